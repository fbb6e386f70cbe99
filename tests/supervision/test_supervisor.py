"""Each component runs in a thread of its own; every end is noticed, and all stop within one budget."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from patron.component import Stop, Verdict, Work
from patron.errors import ComponentFailed, ConfigError
from patron.supervisor import ProcessSettings, RestartPolicy, Supervisor, describe_work


class Fn:
    """A component that runs a function."""

    def __init__(self, name: str, run: Callable[[Stop], None]) -> None:
        self.name = name
        self._run = run

    def run(self, stop: Stop) -> None:
        self._run(stop)


def wait(stop: Stop) -> None:
    stop.wait()


def fail(stop: Stop) -> None:
    raise ValueError("boom")


def supervise(*components: Fn, **options: object) -> tuple[Supervisor, threading.Event, list[str]]:
    ended, names = threading.Event(), list[str]()

    def on_end(name: str) -> None:
        names.append(name)
        ended.set()

    supervisor = Supervisor(components, on_end=on_end, **options)  # type: ignore[arg-type]
    supervisor.start()
    return supervisor, ended, names


def finish(supervisor: Supervisor) -> bool:
    supervisor.stop(time.monotonic() + 5)
    return supervisor.join(time.monotonic() + 5)


def test_components_run_side_by_side_until_the_stop() -> None:
    both = threading.Barrier(2)

    def meet(stop: Stop) -> None:
        both.wait(5)
        stop.wait()

    supervisor, ended, _ = supervise(Fn("a", meet), Fn("b", meet))
    assert finish(supervisor)
    assert supervisor.errors() == []
    assert not ended.is_set()
    assert [d["state"] for d in supervisor.describe()] == ["ended", "ended"]


@pytest.mark.parametrize("error", [ValueError("boom"), SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_a_component_that_raises_ends_the_service_and_its_error_is_kept(error: BaseException) -> None:
    def run(stop: Stop) -> None:
        raise error

    supervisor, ended, names = supervise(Fn("good", wait), Fn("bad", run))
    assert ended.wait(5)
    assert names == ["bad"]
    assert finish(supervisor)
    [failure] = supervisor.errors()
    assert isinstance(failure, ComponentFailed)
    assert failure.component == "bad"
    assert failure.__cause__ is error


@pytest.mark.parametrize(
    "run", [lambda stop: None, lambda stop: exec("raise SystemExit(0)")], ids=["returns", "exits 0"]
)
def test_a_component_that_returns_ends_the_service_without_an_error(run: Callable[[Stop], None]) -> None:
    supervisor, ended, names = supervise(Fn("short", run), Fn("long", wait))
    assert ended.wait(5)
    assert names == ["short"]
    assert finish(supervisor)
    assert supervisor.errors() == []


def test_the_errors_of_all_components_are_reported_also_those_after_the_stop() -> None:
    def late(stop: Stop) -> None:
        stop.wait()
        raise OSError("while stopping")

    supervisor, ended, names = supervise(Fn("first", fail), Fn("late", late), Fn("good", wait))
    assert ended.wait(5)
    assert finish(supervisor)
    group = ExceptionGroup("service failed", supervisor.errors())
    with pytest.raises(ExceptionGroup) as caught:
        raise group
    assert sorted(e.component for e in caught.value.exceptions if isinstance(e, ComponentFailed)) == [
        "first",
        "late",
    ]
    assert names == ["first"]


def test_a_hanging_component_is_left_at_the_deadline_and_named_with_its_stack() -> None:
    release = threading.Event()

    def hang_here(stop: Stop) -> None:
        release.wait(30)

    supervisor, _, _ = supervise(*(Fn(f"hang{n}", hang_here) for n in range(8)))
    started = time.monotonic()
    supervisor.stop(started + 0.3)
    assert not supervisor.join(started + 0.3)
    assert time.monotonic() - started < 1.5  # one budget, not eight
    report = [describe_work(work) for work in supervisor.in_flight()]
    assert len(report) == 8
    assert "component hang0" in report[0]
    assert "hang_here" in report[0]
    release.set()
    assert supervisor.join(time.monotonic() + 5)
    assert supervisor.in_flight() == []


def test_a_component_names_its_own_work() -> None:
    class Named(Fn):
        def in_flight(self) -> list[Work]:
            return [Work("orders/3@1042", time.monotonic() - 2, None)]

    supervisor, _, _ = supervise(Named("orders", wait))
    assert supervisor.in_flight()[0].what == "orders: orders/3@1042"
    assert finish(supervisor)


def test_a_component_with_a_restart_policy_is_started_again_and_the_service_goes_on() -> None:
    runs, healthy = [], threading.Event()

    def run(stop: Stop) -> None:
        runs.append(1)
        if len(runs) < 3:
            raise ConnectionError("not yet")
        healthy.set()
        stop.wait()

    policy = RestartPolicy(initial=0.01, cap=0.02)
    supervisor, ended, _ = supervise(Fn("flaky", run), restart={"flaky": policy})
    assert healthy.wait(5)
    assert not ended.is_set()
    assert supervisor.describe()[0]["restarts"] == 2
    assert supervisor.ready().ok
    assert finish(supervisor)
    assert supervisor.errors() == []


def test_too_many_restarts_in_the_window_escalate() -> None:
    runs = []

    def run(stop: Stop) -> None:
        runs.append(1)
        raise ConnectionError(f"failure {len(runs)}")

    supervisor, ended, _ = supervise(
        Fn("dead", run), restart={"dead": RestartPolicy(initial=0.001, cap=0.002, limit=3)}
    )
    assert ended.wait(5)
    assert finish(supervisor)
    assert len(runs) == 4
    assert str(supervisor.errors()[0].__cause__) == "failure 4"


def test_the_wait_before_a_restart_ends_at_the_stop() -> None:
    supervisor, _, _ = supervise(Fn("dead", fail), restart={"dead": RestartPolicy(initial=3000, cap=3000)})
    while supervisor.describe()[0]["state"] != "restarting":
        time.sleep(0.005)
    assert not supervisor.ready().ok
    assert finish(supervisor)
    assert supervisor.errors() == []


def test_readiness_is_asked_of_the_components_and_one_that_raises_is_a_no() -> None:
    class Asked(Fn):
        def ready(self) -> Verdict:
            raise RuntimeError("no idea")

    supervisor, _, _ = supervise(Asked("odd", wait), Fn("plain", wait))
    verdict = supervisor.ready()
    assert not verdict.ok
    assert verdict.reasons == ("odd: readiness raised RuntimeError('no idea')",)
    assert finish(supervisor)


def test_stop_knows_what_is_left_of_the_budget() -> None:
    now = [100.0]
    stop = Stop(clock=lambda: now[0])
    assert stop.remaining() is None
    stop.set(130.0)
    stop.set(9999.0)
    now[0] = 110.0
    assert stop.remaining() == 20.0
    now[0] = 200.0
    assert stop.remaining() == 0.0


def test_process_settings_report_every_mistake_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        ProcessSettings(workers=0, grace=0.0, drain=5.0)
    assert len(caught.value.problems) == 3
    assert "workers is 0" in caught.value.problems[0]
