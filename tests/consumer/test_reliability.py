"""Retries and deadlines."""

from __future__ import annotations

import threading

import hypothesis.strategies as st
import pytest
from hypothesis import given

from patron.errors import ConfigError, DeadlineExceeded, RetriesExhausted
from patron.reliability import RetryPolicy, deadline, remaining, retry
from patron.testing.clock import FakeClock

POLICIES = st.builds(
    RetryPolicy,
    attempts=st.integers(1, 50),
    initial=st.floats(0, 100),
    cap=st.floats(0, 1000),
    multiplier=st.floats(1, 100),
    jitter=st.sampled_from(["full", "none"]),
)


class Waiting:
    """A stop that notes the waits, lets the clock pass and is set after *stop_after* of them."""

    def __init__(self, clock: FakeClock, stop_after: int = 1000) -> None:
        self.waits: list[float] = []
        self._clock = clock
        self._stop_after = stop_after

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waits.append(timeout)
        self._clock.advance(timeout)
        return len(self.waits) >= self._stop_after


def failing(times: int) -> tuple[list[int], object]:
    calls: list[int] = []

    def function() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise OSError(f"failure {len(calls)}")
        return "done"

    return calls, function


@given(policy=POLICIES, failures=st.integers(1, 10_000))
def test_a_wait_is_never_negative_and_never_above_the_cap(policy: RetryPolicy, failures: int) -> None:
    assert 0 <= policy.delay(failures) <= policy.ceiling(failures) <= policy.cap


@given(policy=POLICIES, failures=st.integers(1, 100))
def test_ceilings_never_shrink(policy: RetryPolicy, failures: int) -> None:
    assert policy.ceiling(failures) <= policy.ceiling(failures + 1)


@given(policy=POLICIES, bad=st.integers(0, 60))
def test_it_tries_as_often_as_allowed_and_never_waits_after_the_last(policy: RetryPolicy, bad: int) -> None:
    clock = FakeClock()
    stop = Waiting(clock)
    calls, function = failing(bad)
    if bad < policy.attempts:
        assert retry(policy, function, stop=stop, clock=clock) == "done"  # type: ignore[arg-type]
        assert len(calls) == bad + 1
    else:
        with pytest.raises(RetriesExhausted) as caught:
            retry(policy, function, stop=stop, clock=clock)  # type: ignore[arg-type]
        assert len(calls) == policy.attempts
        assert isinstance(caught.value.__cause__, OSError)
    assert len(stop.waits) == len(calls) - 1


def test_full_jitter_spreads_over_the_whole_interval() -> None:
    policy = RetryPolicy(initial=1.0, cap=8.0)
    assert [policy.ceiling(n) for n in (1, 2, 3, 4, 5)] == [1.0, 2.0, 4.0, 8.0, 8.0]
    assert policy.delay(3, uniform=lambda low, high: low) == 0.0
    assert policy.delay(3, uniform=lambda low, high: high) == 4.0
    assert len(list(RetryPolicy(attempts=4).delays())) == 3


def test_stop_ends_the_retries_at_once() -> None:
    calls, function = failing(100)
    stop = threading.Event()
    stop.set()
    with pytest.raises(RetriesExhausted):
        retry(RetryPolicy(attempts=100, initial=3600, jitter="none"), function, stop=stop)  # type: ignore[arg-type]
    assert len(calls) == 1


def test_the_budget_ends_them_before_a_wait_that_would_exceed_it() -> None:
    clock = FakeClock()
    stop = Waiting(clock)
    _, function = failing(100)
    policy = RetryPolicy(attempts=100, initial=1.0, multiplier=1.0, jitter="none", budget=3.5)
    with pytest.raises(RetriesExhausted):
        retry(policy, function, stop=stop, clock=clock)  # type: ignore[arg-type]
    assert stop.waits == [1.0, 1.0, 1.0]


def test_an_error_that_is_not_to_be_retried_goes_through() -> None:
    calls, function = failing(1)
    with pytest.raises(OSError, match="failure 1"):
        retry(RetryPolicy(), function, on=KeyError)  # type: ignore[arg-type]
    assert len(calls) == 1


def test_every_mistake_of_a_policy_is_reported() -> None:
    with pytest.raises(ConfigError) as caught:
        RetryPolicy(attempts=0, initial=-1, cap=-1, multiplier=0.5, jitter="some", budget=0)  # type: ignore[arg-type]
    assert len(caught.value.problems) == 6


def test_a_deadline_counts_down_and_ends_with_its_block() -> None:
    clock = FakeClock()
    assert remaining() is None
    with deadline(5.0, clock) as limit:
        assert limit is not None
        assert remaining() == 5.0
        clock.advance(4.0)
        assert remaining() == 1.0
        limit.check()
        clock.advance(2.0)
        assert remaining() == 0.0
        with pytest.raises(DeadlineExceeded, match=r"1\.000 s ago"):
            limit.check()
    assert remaining() is None


def test_an_inner_deadline_never_gives_more_than_the_outer_one() -> None:
    clock = FakeClock()
    with deadline(5.0, clock):
        with deadline(60.0, clock):
            assert remaining() == 5.0
        with deadline(1.0, clock):
            assert remaining() == 1.0
        with deadline(None, clock):
            assert remaining() == 5.0
