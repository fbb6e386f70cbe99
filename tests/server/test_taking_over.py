"""Workers that start while others serve: nobody who could be answered is told to come again."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import ServiceProcess

pytestmark = pytest.mark.server

MODULE = """
    import os
    import time
    from pathlib import Path


    def pool():
        while Path("slow.txt").exists():
            with open("starting.txt", "a") as file:
                file.write(f"{os.getpid()} ")
            time.sleep(0.05)
        return "pool"


    def who(request, pool):
        return {"pid": os.getpid()}
"""
CONFIG = """
    name: shop
    workers: 2
    resources: {pool: "shop:pool"}
    http:
      routes:
        - {method: GET, path: /who, processor: "shop:who"}
"""


@contextmanager
def starts_hang(service: ServiceProcess) -> Iterator[None]:
    """Meanwhile no worker ends its start."""
    flag = service.folder / "slow.txt"
    flag.touch()
    yield
    flag.unlink()


def until_starting(service: ServiceProcess, number: int, but: set[int]) -> set[int]:
    """Wait until *number* workers other than *but* open their resources; all of them."""
    starting = service.folder / "starting.txt"

    def found() -> set[int]:
        return {int(pid) for pid in starting.read_text().split()} - but if starting.exists() else set()

    service.until(lambda: len(found()) == number, 15, f"{number} workers are starting")
    return found()


def who(service: ServiceProcess, number: int = 40) -> set[int]:
    """The workers that answer *number* requests, each with 200."""
    answers = [service.get("/who") for _ in range(number)]
    assert {answer.status for answer in answers} == {200}
    return {json.loads(answer.body)["pid"] for answer in answers}  # type: ignore[attr-defined]


def until_serve(service: ServiceProcess, workers: set[int]) -> None:
    service.until(
        lambda: who(service, 5) <= workers and set(service.workers()) == workers, 15, f"{workers} serve"
    )


def test_the_old_workers_serve_until_the_new_ones_have_started(service: ServiceProcess) -> None:
    service.write(MODULE, CONFIG)
    service.start()
    old = set(service.workers())
    with starts_hang(service):
        service.signal(signal.SIGHUP)
        new = until_starting(service, 2, old)
        assert who(service) <= old
        assert {service.get("/ready").status for _ in range(10)} == {200}
    until_serve(service, new)
    service.signal(signal.SIGTERM)
    assert service.wait() == 0


def test_a_new_worker_that_dies_while_it_starts_is_replaced_and_the_old_ones_go_on(
    service: ServiceProcess,
) -> None:
    service.write(MODULE, CONFIG)
    service.start()
    old = set(service.workers())
    with starts_hang(service):
        service.signal(signal.SIGHUP)
        dead = min(until_starting(service, 2, old))
        os.kill(dead, signal.SIGKILL)
        new = until_starting(service, 2, old | {dead})
        assert who(service) <= old
    until_serve(service, new)


def test_a_second_reload_replaces_the_workers_that_never_started(service: ServiceProcess) -> None:
    service.write(MODULE, CONFIG)
    service.start()
    old = set(service.workers())
    with starts_hang(service):
        service.signal(signal.SIGHUP)
        hanging = until_starting(service, 2, old)
        service.signal(signal.SIGHUP)
        new = until_starting(service, 2, old | hanging)
        assert who(service) <= old
    until_serve(service, new)


def test_a_worker_that_starts_in_the_place_of_a_dead_one_leaves_the_requests_to_the_other(
    service: ServiceProcess,
) -> None:
    service.write(MODULE, CONFIG)
    service.start()
    dead, alive = service.workers()
    with starts_hang(service):
        os.kill(dead, signal.SIGKILL)
        [new] = until_starting(service, 1, {dead, alive})
        assert who(service) == {alive}
        assert service.get("/ready").status == 503  # one too few
    until_serve(service, {alive, new})


def test_a_worker_that_is_left_alone_answers_while_it_starts(service: ServiceProcess) -> None:
    service.write(MODULE, CONFIG)
    service.start()
    dead, alive = service.workers()
    with starts_hang(service):
        os.kill(dead, signal.SIGKILL)
        until_starting(service, 1, {dead, alive})
        os.kill(alive, signal.SIGKILL)
        service.until(lambda: service.get("/alive").status == 200, what="answered")
        assert service.get("/who").status == 503
    service.until_ready()
    assert who(service)


def test_a_stop_while_new_workers_start_ends_all_of_them(service: ServiceProcess) -> None:
    service.write(MODULE, CONFIG + "    grace: 2")
    service.start()
    with starts_hang(service):
        service.signal(signal.SIGHUP)
        until_starting(service, 2, set())
        service.signal(signal.SIGTERM)
        assert service.wait() == 1  # the start was abandoned
    assert "opening resource pool" in service.output()


def test_a_new_worker_that_dies_is_replaced_while_the_old_ones_still_end(service: ServiceProcess) -> None:
    module = """
    import os
    import time
    from pathlib import Path


    def who(request):
        Path("held.txt").touch()
        while Path("hold.txt").exists():
            time.sleep(0.05)
        return {"pid": os.getpid()}


    class Last:
        name = "last"

        def run(self, stop):
            stop.wait()
            Path(f"ends-{os.getpid()}.txt").touch()
    """
    config = CONFIG.replace("workers: 2", "workers: 1").replace('    resources: {pool: "shop:pool"}\n', "")
    service.write(module, config + '    components: ["shop:Last"]\n')
    hold = service.folder / "hold.txt"
    hold.touch()
    service.start()
    [old] = service.workers()
    with ThreadPoolExecutor(1) as client:
        answer = client.submit(service.get, "/who")
        service.until((service.folder / "held.txt").exists, 15, "the old worker has a request")
        service.signal(signal.SIGHUP)
        service.until((service.folder / f"ends-{old}.txt").exists, 15, "the old worker ends")
        [dead] = set(service.workers()) - {old}
        os.kill(dead, signal.SIGKILL)
        service.until(lambda: set(service.workers()) - {old, dead}, 15, "another one")
        assert old in service.workers()
        hold.unlink()
        assert json.loads(answer.result().body)["pid"] == old  # type: ignore[attr-defined]


def test_old_workers_end_some_time_though_the_new_ones_wait_for_what_they_hold() -> None:
    from patron.server import reloading

    said: list[str] = []

    def say(text: str, *args: object) -> None:
        said.append(text)

    log = SimpleNamespace(info=say, error=say, warning=say)
    board = SimpleNamespace(serving=lambda slots: slots == [7])
    run: Any = SimpleNamespace(retiring={11}, board=board)

    def over(since: float, fresh: list[int]) -> bool:
        run.reloaded = run.reminded = time.monotonic() - since
        return reloading._is_over(SimpleNamespace(num_workers=1, log=log), run, fresh)

    assert not over(1, [8])
    assert said == []
    assert not over(reloading.REMIND, [8])
    assert over(reloading.PATIENCE, [8])
    assert over(1, [7])
    assert not over(1, [])
    assert [text.partition(",")[0].partition(" within")[0] for text in said] == [
        "Reload: the new workers have not started yet",
        "The new workers have not started",
        "The new workers serve",
    ]
