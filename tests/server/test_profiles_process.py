"""Profiles of a real service with two workers: of either, of both, under load, and while it ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import ServiceProcess

pytestmark = pytest.mark.server

MODULE = """
    import os

    def crunch():
        total = 0
        for number in range(100_000):
            total += number * number
        return total

    def busy(request):
        return {"pid": os.getpid(), "total": crunch()}
"""
CONFIG = """
    name: shop
    workers: 2
    grace: 8
    http:
      threads: 4
      routes:
        - {method: GET, path: /busy, processor: "shop:busy"}
"""
PAGES = "/debug/pprof"


@contextmanager
def load(service: ServiceProcess) -> Iterator[None]:
    """Requests to the busy route, one after the other, from a few clients."""
    done = threading.Event()

    def client() -> None:
        while not done.is_set():
            with suppress(OSError):
                service.get("/busy")

    clients = [threading.Thread(target=client) for _ in range(4)]
    for thread in clients:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in clients:
            thread.join()


def workers(service: ServiceProcess) -> dict[int, int]:
    """Number → process id of the workers that the index names."""
    index = service.get(f"{PAGES}/").body.decode()
    rows = [part.split(")")[0] for part in index.split("<h2>")[1].split("<li>worker ")[1:]]
    return {int(row.split(" ")[0]): int(row.split(" ")[2]) for row in rows}


def started(service: ServiceProcess) -> dict[int, int]:
    """The service runs, and its workers know each other."""
    service.write(MODULE, CONFIG)
    service.start()
    service.until(lambda: set(workers(service).values()) == set(service.workers()), what="all workers known")
    return workers(service)


def messages(service: ServiceProcess) -> list[Path]:
    """The files by which the workers talk of profiles, of the run whose arbiter this is."""
    directories = {
        Path(os.readlink(f"/proc/{service.pid}/fd/{fd}")).parent
        for fd in os.listdir(f"/proc/{service.pid}/fd")
        if os.readlink(f"/proc/{service.pid}/fd/{fd}").endswith("/lock")
    }
    return [file for directory in directories for file in (directory / "profiles").glob("*")]


def asked(service: ServiceProcess, pool: ThreadPoolExecutor, path: str) -> Future[Any]:
    return pool.submit(service.get, f"{PAGES}/{path}", timeout=40)


def test_the_busy_function_of_each_worker_is_on_top(service: ServiceProcess, tmp_path: Path) -> None:
    known = started(service)
    assert len(known) == 2
    with load(service):
        for number, pid in known.items():
            answer = service.get(f"{PAGES}/profile?seconds=2&worker={number}&format=text", timeout=40)
            assert answer.status == 200
            lines = answer.body.decode().splitlines()
            assert f"worker {number}, process {pid}" in lines
            table = lines.index(next(line for line in lines if line.endswith("function")))
            assert "shop.crunch" in lines[table + 1], answer.body.decode()
        both = service.get(f"{PAGES}/profile?seconds=2&worker=all&format=collapsed", timeout=40)
        file = service.get(f"{PAGES}/profile?seconds=2", timeout=40).body
    text = both.body.decode()
    # The main thread of a worker was forked: it must not be taken for somebody else's.
    assert "MainThread;" in text
    assert "patron-http_" in text
    assert "native thread python" not in text
    if shutil.which("go"):
        (tmp_path / "cpu.pb.gz").write_bytes(file)
        command = ["go", "tool", "pprof", "-top", str(tmp_path / "cpu.pb.gz")]
        top = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rows = top.split("cum%\n")[1].splitlines()
        assert rows[0].endswith(" shop.crunch"), top
    assert messages(service) == []
    service.signal(signal.SIGTERM)
    assert service.wait() == 0


def test_threads_and_heap_of_the_other_worker(service: ServiceProcess) -> None:
    known = started(service)
    for number, pid in known.items():
        heap = service.get(f"{PAGES}/heap?seconds=1&worker={number}&format=text", timeout=40)
        assert f"worker {number}, process {pid}" in heap.body.decode()
        answer = service.get(f"{PAGES}/heap?worker={number}", timeout=40)
        assert (answer.status, b"PYTHONTRACEMALLOC" in answer.body) == (409, True)
    every = service.get(f"{PAGES}/threads?worker=all", timeout=40).body.decode()
    mains = [line for line in every.splitlines() if "MainThread" in line]
    assert sorted(line.rpartition(" ")[2] for line in mains) == sorted(map(str, known))


def test_a_worker_takes_one_profile_at_a_time_whoever_asks(service: ServiceProcess) -> None:
    started(service)
    with ThreadPoolExecutor() as pool:
        first = asked(service, pool, "profile?seconds=4&worker=1")
        service.until(lambda: b"sampler.sample" in service.get(f"{PAGES}/threads?worker=1").body)
        second = service.get(f"{PAGES}/profile?seconds=1&worker=1", timeout=40)
        assert (second.status, second.body) == (
            409,
            b"worker 1 takes a profile already: try again when that is done\n",
        )
        assert first.result().status == 200


def test_a_worker_that_dies_meanwhile_is_told(service: ServiceProcess) -> None:
    known = started(service)

    def is_asked(number: int) -> bool:
        """Whether that worker takes its profile for another one."""
        stacks = service.get(f"{PAGES}/threads?worker={number}&format=collapsed").body.splitlines()
        return any(b"patron-profile;" in stack and b"sampler.sample" in stack for stack in stacks)

    with ThreadPoolExecutor() as pool:
        waiting = asked(service, pool, "profile?seconds=6&worker=all")
        service.until(lambda: any(map(is_asked, known)))
        other = next(number for number in known if is_asked(number))
        os.kill(known[other], signal.SIGKILL)
        answer = waiting.result()
    text = f"worker {other} (process {known[other]}) has ended meanwhile\n"
    assert (answer.status, answer.body.decode()) == (503, text)
    service.until(lambda: messages(service) == [], what="no message left")
    service.until(lambda: set(workers(service).values()) == set(service.workers()) - {known[other]})
    assert service.get(f"{PAGES}/profile?seconds=1&worker=all", timeout=40).status == 200


def test_the_end_of_the_service_ends_a_profile_that_runs(service: ServiceProcess) -> None:
    started(service)
    with ThreadPoolExecutor() as pool:
        waiting = [asked(service, pool, f"profile?seconds=60&worker={number}") for number in (0, 1)]
        for number in (0, 1):
            service.until(
                lambda number=number: (
                    b"sampler.sample" in service.get(f"{PAGES}/threads?worker={number}").body
                )
            )
        service.signal(signal.SIGTERM)
        assert service.wait() == 0
        assert {answer.result().status for answer in waiting} <= {200, 503}
    assert service.lines("work abandoned at the end of the stop budget") == []
