"""Profiles of a real service with two workers: of either, of both, under load, and while it ends."""

from __future__ import annotations

import os
import shutil
import signal
import socket
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
        for number in range(500_000):
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


def known(service: ServiceProcess) -> dict[int, int]:
    """Number → process id, once the workers know each other."""
    service.until(
        lambda: len(service.workers()) == 2 and set(workers(service).values()) == set(service.workers()),
        what="both workers known",
    )
    return workers(service)


def started(service: ServiceProcess) -> ServiceProcess:
    service.write(MODULE, CONFIG)
    return service.start()


@pytest.fixture(scope="module")
def shop(shared_service: ServiceProcess) -> ServiceProcess:
    """The service, of which tests may kill a worker: there is another one soon."""
    return started(shared_service)


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


def sampling(service: ServiceProcess, thread: str = "") -> set[int]:
    """The numbers of the workers that take a profile now, in a thread with this name."""
    dump = service.get(f"{PAGES}/threads?worker=all", timeout=40).body.decode()
    blocks = [block.splitlines() for block in dump.split("\n\nthread ")[1:]]
    return {
        int(block[0].rpartition(" ")[2])
        for block in blocks
        if thread in block[0] and any(line.endswith("in patron.profiling.sampler.sample") for line in block)
    }


def test_the_busy_function_of_each_worker_is_on_top(shop: ServiceProcess, tmp_path: Path) -> None:
    processes = known(shop)
    with load(shop), ThreadPoolExecutor() as pool:
        texts = {
            number: asked(shop, pool, f"profile?seconds=1&worker={number}&format=text")
            for number in processes
        }
        for number, answer in texts.items():
            assert answer.result().status == 200
            lines = answer.result().body.decode().splitlines()
            assert f"worker {number}, process {processes[number]}" in lines
            table = lines.index(next(line for line in lines if line.endswith("function")))
            assert "shop.crunch" in lines[table + 1], "\n".join(lines)
        both = shop.get(f"{PAGES}/profile?seconds=1&worker=all&format=collapsed", timeout=40)
        file = shop.get(f"{PAGES}/profile?seconds=1", timeout=40).body
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
    assert messages(shop) == []


def test_threads_and_heap_of_the_other_worker(shop: ServiceProcess) -> None:
    processes = known(shop)
    with ThreadPoolExecutor() as pool:
        heaps = {n: asked(shop, pool, f"heap?seconds=1&worker={n}&format=text") for n in processes}
        for number, answer in heaps.items():
            text = answer.result().body.decode()
            assert f"worker {number}, process {processes[number]}" in text
        untraced = [asked(shop, pool, f"heap?worker={n}") for n in processes]
        for answer in untraced:
            assert (answer.result().status, b"PYTHONTRACEMALLOC" in answer.result().body) == (409, True)
    every = shop.get(f"{PAGES}/threads?worker=all", timeout=40).body.decode()
    mains = [line for line in every.splitlines() if "MainThread" in line]
    assert sorted(line.rpartition(" ")[2] for line in mains) == sorted(map(str, processes))


def test_a_worker_that_dies_meanwhile_is_told(shop: ServiceProcess) -> None:
    processes = known(shop)
    with ThreadPoolExecutor() as pool:
        waiting = asked(shop, pool, "profile?seconds=5&worker=all&format=text")
        # The one whose thread is not of the HTTP pool takes its profile for the other one.
        found: set[int] = set()
        shop.until(lambda: found.update(sampling(shop, "patron-profile")) or found)
        [other] = found
        os.kill(processes[other], signal.SIGKILL)
        answer = waiting.result()
    text = f"worker {other} (process {processes[other]}) has ended meanwhile"
    assert (answer.status, answer.headers["X-Profile-Missing"]) == (200, f"left out: {text}")
    assert text in answer.body.decode()
    shop.until(lambda: messages(shop) == [], what="no message left")
    assert processes[other] not in known(shop).values()
    assert shop.get(f"{PAGES}/profile?seconds=1&worker=all", timeout=40).status == 200


def test_a_worker_that_hangs_is_left_out_and_holds_no_thread_for_long(shop: ServiceProcess) -> None:
    processes = known(shop)
    with ThreadPoolExecutor() as pool:
        stopped = max(processes)
        os.kill(processes[stopped], signal.SIGSTOP)
        try:
            alone = asked(shop, pool, f"threads?worker={stopped}")
            dump, folded = (asked(shop, pool, f"threads?worker=all{f}") for f in ("", "&format=collapsed"))
            text = f"worker {stopped} (process {processes[stopped]}) does not answer"
            assert (alone.result().status, alone.result().body.decode()) == (503, f"{text}\n")
            assert f"threads\nleft out: {text}\n\nthread " in dump.result().body.decode()
            for answer in (dump.result(), folded.result()):
                assert (answer.status, answer.headers["X-Profile-Missing"]) == (200, f"left out: {text}")
                assert b"MainThread" in answer.body
        finally:
            os.kill(processes[stopped], signal.SIGCONT)
    shop.until(lambda: messages(shop) == [], what="no message left")


def test_profiles_end_in_every_worker_when_their_client_has_gone(shop: ServiceProcess) -> None:
    processes = known(shop)
    with socket.create_connection(("127.0.0.1", shop.port)) as client:
        client.sendall(
            f"GET {PAGES}/profile?seconds=300&worker=all HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        )
        shop.until(lambda: sampling(shop) == set(processes), what="profiles of both")
    shop.until(lambda: sampling(shop) == set(), what="no profile any more")
    shop.until(lambda: messages(shop) == [], what="no message left")


def test_a_worker_takes_one_profile_at_a_time_until_the_end_of_the_service_ends_it(
    service: ServiceProcess,
) -> None:
    processes = known(started(service))
    with ThreadPoolExecutor() as pool:
        waiting = [asked(service, pool, f"profile?seconds=60&worker={number}") for number in processes]
        service.until(lambda: sampling(service) == set(processes))
        refused = [asked(service, pool, f"profile?seconds=1&worker={number}") for number in processes]
        for number, answer in zip(processes, refused, strict=True):
            left = answer.result().headers["Retry-After"]
            text = f"worker {number} takes a profile already: try again in {left} s\n"
            assert (answer.result().status, answer.result().body.decode()) == (409, text)
        service.signal(signal.SIGTERM)
        assert service.wait() == 0
        assert {answer.result().status for answer in waiting} <= {200, 503}
    assert service.lines("work abandoned at the end of the stop budget") == []
