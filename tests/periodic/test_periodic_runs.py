"""What becomes of a run: tries, outcomes, what is observed of it, and how it stops."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from patron import Periodic, RetryPolicy, Service, correlation
from patron.component import Stop
from patron.errors import ConfigError, Reject, RetriesExhausted, Retry, Skip
from patron.observe import capture
from patron.observe.metrics import exposition
from patron.periodic.metrics import METRICS
from patron.reliability.deadline import remaining
from patron.testing import Running
from patron.testing.until import until

TRIES = RetryPolicy(attempts=3, initial=1, multiplier=2, jitter="none")


def raising(*errors: BaseException | None) -> Callable[[], None]:
    """A function that raises each of *errors* in turn, and succeeds afterwards."""
    turns = iter(errors)

    def act() -> None:
        if error := next(turns, None):
            raise error

    return act


def broken() -> None:
    raise OSError("the disk is gone")


@contextmanager
def running(periodic: Periodic) -> Iterator[Stop]:
    stop = Stop()
    thread = threading.Thread(target=periodic.run, args=(stop,))
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(10)


def samples(name: str) -> dict[str, float]:
    """The samples of the component *name*, without those of histogram buckets."""
    lines = exposition()[0].decode().splitlines()
    own = [line for line in lines if f'name="{name}"' in line and "_bucket" not in line]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in own}


# Tries.


def test_a_run_that_fails_is_tried_again_until_it_succeeds(day):
    periodic = day.periodic(raising(OSError(), OSError()), every=10, retry=TRIES)
    assert day.pass_(periodic, 25) == [10, 11, 13, 20]
    assert periodic.info()["failures"] == 0
    assert periodic.info()["runs"] == 2


def test_a_run_that_is_out_of_tries_is_skipped_and_the_next_tick_comes(day):
    periodic = day.periodic(broken, every=10, retry=TRIES)
    assert day.pass_(periodic, 25) == [10, 11, 13, 20, 21, 23]
    info = periodic.info()
    assert (info["runs"], info["failures"]) == (2, 2)
    assert info["last"] == {
        "started": "2023-11-14T22:13:40.000+00:00",
        "seconds": 3.0,
        "status": "failed",
        "tries": 3,
        "error": "OSError: the disk is gone",
    }


def test_it_can_end_the_service_when_it_is_out_of_tries(day):
    periodic = day.periodic(broken, every=10, retry=TRIES, on_exhausted="exit")
    with pytest.raises(RetriesExhausted, match="gave up after 3 of 3 attempts: the disk is gone") as caught:
        day.pass_(periodic, 100)
    assert isinstance(caught.value.__cause__, OSError)
    assert day.times == [10, 11, 13]


def test_a_function_that_calls_sys_exit_has_failed_like_any_other(day):
    periodic = day.periodic(raising(SystemExit(0), KeyboardInterrupt()), every=10, retry=TRIES)
    assert day.pass_(periodic, 15) == [10, 11, 13]


def test_the_tries_of_a_run_count_as_one_run_for_the_ticks_that_pass(day):
    periodic = day.periodic(broken, every=2, retry=TRIES)
    assert day.pass_(periodic, 7) == [2, 3, 5, 6]
    assert periodic.info()["skipped_ticks"] == 1


def test_the_budget_of_the_retry_policy_holds(day):
    policy = RetryPolicy(attempts=9, initial=1, multiplier=2, jitter="none", budget=4)
    assert day.pass_(day.periodic(broken, every=50, retry=policy), 80) == [50, 51, 53]


def test_no_try_begins_after_the_deadline_of_its_run(day):
    policy = RetryPolicy(attempts=9, initial=1, multiplier=2, jitter="none")
    left: list[float | None] = []

    def act() -> None:
        left.append(remaining())
        raise OSError

    assert day.pass_(day.periodic(act, every=50, retry=policy, deadline=5), 80) == [50, 51, 53]
    assert left == [5, 4, 2]


def test_the_function_steers_with_the_outcomes_that_processors_have(day):
    periodic = day.periodic(
        raising(Skip("nothing to do"), Retry(4), None, Reject("hopeless")), every=10, retry=TRIES
    )
    with capture() as seen:
        assert day.pass_(periodic, 35) == [10, 20, 24, 30]
    assert [operation.outcome for operation in seen.operations] == [
        "skipped",
        "retried",
        "succeeded",
        "rejected",
    ]
    assert (periodic.info()["runs"], periodic.info()["failures"]) == (3, 1)


def test_a_stop_between_two_tries_ends_the_run(day):
    periodic = day.periodic(broken, every=10, retry=TRIES)
    assert day.pass_(periodic, 12) == [10, 11]
    assert periodic.info()["last"]["status"] == "stopped"
    assert periodic.info()["failures"] == 0


# What is observed.


def test_each_run_has_a_correlation_id_of_its_own_that_its_tries_share(day):
    ids: list[str | None] = []

    def act() -> None:
        ids.append(correlation.current())
        if len(ids) == 1:
            raise OSError

    with capture() as seen:
        day.pass_(day.periodic(act, every=10, retry=TRIES), 25)
    first, again, second = ids
    assert first == again != second
    assert None not in ids
    assert correlation.current() is None
    assert [(o.kind, o.name, o.outcome, o.correlation_id) for o in seen.operations] == [
        ("internal", "periodic tick", "failed", first),
        ("internal", "periodic tick", "succeeded", first),
        ("internal", "periodic tick", "succeeded", second),
    ]
    assert [span.name for span in seen.spans] == ["periodic tick"] * 3


def test_runs_tries_skipped_ticks_and_the_last_success_are_metrics(day):
    acts = iter([None, lambda: day.clock.advance(25), *[broken] * 3])
    periodic = Periodic(
        "measured",
        lambda: (next(acts, None) or (lambda: None))(),
        every=10,
        retry=TRIES,
        clock=day.clock,
        now=day.now,
    )
    day.pass_(periodic, 65)
    found = samples("measured")
    assert found['component_periodic_runs_total{name="measured",status="succeeded"}'] == 3
    assert found['component_periodic_runs_total{name="measured",status="failed"}'] == 1
    assert found['component_periodic_run_seconds_count{name="measured",outcome="failed"}'] == 3
    assert found['component_periodic_run_seconds_count{name="measured",outcome="succeeded"}'] == 3
    assert found['component_periodic_skipped_ticks_total{name="measured"}'] == 2
    assert found['component_periodic_last_success_timestamp_seconds{name="measured"}'] == 1_700_000_060


def test_every_metric_stands_in_the_documentation():
    page = (Path(__file__).parents[2] / "docs" / "periodic.md").read_text()
    assert [metric.name for metric in METRICS if f"| `{metric.name}` |" not in page] == []


def test_it_says_what_it_is_and_when_it_is_due(day):
    periodic = day.periodic(cron="0 7 * * *", timezone="Europe/Athens", one_worker=True)
    assert periodic.info()["phase"] == "created"
    assert not periodic.ready().ok
    day.pass_(periodic, 60)
    info = periodic.info()
    assert info["type"] == "periodic"
    assert (info["cron"], info["timezone"]) == ("0 7 * * *", "Europe/Athens")
    assert info["next"] == "2023-11-15T05:00:00.000+00:00"
    assert info["phase"] == "waiting"
    assert periodic.ready().ok


# Stopping, with real threads.


def test_a_stop_takes_effect_at_once_while_it_waits():
    periodic = Periodic("rare", lambda: None, every=3600)
    with running(periodic) as stop:
        until(lambda: periodic.info()["phase"] == "waiting")
        stop.set()
    assert periodic.info()["runs"] == 0  # and no thread survives


def test_a_run_that_has_begun_is_named_and_comes_to_its_end():
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def function() -> None:
        begun.set()
        go_on.wait(10)
        done.set()

    periodic = Periodic("slow", function, every=0.001)
    with running(periodic) as stop:
        assert begun.wait(10)
        (work,) = periodic.in_flight()
        assert "test_a_run_that_has_begun" in work.what
        assert work.thread in {thread.ident for thread in threading.enumerate()}
        assert periodic.info()["phase"] == "running"
        stop.set()
        go_on.set()
    assert done.is_set()
    assert periodic.in_flight() == ()
    assert periodic.info()["runs"] == 1


# In a service.


def test_the_function_gets_the_resources_that_its_parameters_name():
    got: list[object] = []

    def clean(db: list[int], limit: int = 5) -> None:
        got.append((db, limit))

    service = Service(
        "shop", components=[Periodic("clean", clean, every=0.01)], resources={"db": lambda: [1]}
    )
    with Running(service):
        until(lambda: got)
    assert got[0] == ([1], 5)


def test_a_parameter_that_no_resource_has_the_name_of_is_a_mistake_of_the_service():
    def clean(bd: object) -> None: ...

    with pytest.raises(ConfigError, match="component clean asks for 'bd', which is no resource"):
        Service("shop", components=[Periodic("clean", clean, every=1)], resources={"db": list})


def test_a_function_that_is_async_behind_a_plain_one_has_failed(day):
    async def later() -> None:
        raise AssertionError("nobody runs it")

    once = RetryPolicy(attempts=1)
    periodic = Periodic("tick", lambda: later(), every=10, retry=once, clock=day.clock, now=day.now)
    day.pass_(periodic, 15)
    assert periodic.info()["last"]["status"] == "failed"
    assert "is async: Patron calls plain functions" in periodic.info()["last"]["error"]


def test_a_run_out_of_tries_ends_the_service_where_that_was_asked_for():
    periodic = Periodic("broken", broken, every=0.01, retry=RetryPolicy(attempts=1), on_exhausted="exit")
    with pytest.raises(ExceptionGroup) as caught, Running(Service("shop", components=[periodic])) as live:
        assert live.wait_ended(10)
    assert (
        "component broken failed: RetriesExhausted: gave up after 1 of 1 attempts: the disk is gone"
        in str(caught.value.exceptions[0])
    )
