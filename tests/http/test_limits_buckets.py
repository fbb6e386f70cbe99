"""Token buckets, in memory and in Redis: never more than they may, and no less."""

from __future__ import annotations

import multiprocessing
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from fractions import Fraction

import pytest
from brokers.redis_server import RedisServer
from hypothesis import given, settings
from hypothesis import strategies as st

from patron.cache import RedisStore
from patron.http._limits_memory import MemoryBuckets
from patron.http._limits_redis import RedisBuckets
from patron.testing import until


class Nanoseconds:
    """A clock in whole nanoseconds that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 10**15

    def __call__(self) -> int:
        return self.now


RATES = st.one_of(st.sampled_from([1.0, 3.0, 7.0, 10.0, 100.0, 0.1]), st.floats(0.01, 5000))
WAITS = st.lists(st.one_of(st.just(0), st.integers(0, 3 * 10**9)), min_size=1, max_size=80)


@settings(deadline=None)
@given(RATES, st.integers(1, 10), WAITS)
def test_no_window_has_more_than_the_burst_and_what_came_back_in_it(
    rate: float, burst: int, waits: list[int]
) -> None:
    clock = Nanoseconds()
    buckets = MemoryBuckets(rate, burst, clock=clock)
    let_in = []
    for wait in waits:
        clock.now += wait // 10
        if buckets.take("a") == 0:
            let_in.append(clock.now)
    check_windows(let_in, rate, burst)


def check_windows(let_in: list[int], rate: float, burst: int) -> None:
    """Any two who were let in, and all between them, are no more than the limit allows in that time."""
    for first, begin in enumerate(let_in):
        for last in range(first, len(let_in)):
            span = Fraction(let_in[last] - begin, 10**9)
            assert last - first + 1 <= burst + Fraction(rate) * span


@pytest.mark.parametrize("rate", [3.0, 7.0, 0.7, 1e4 / 3])
def test_who_asks_at_the_first_possible_moment_gets_no_more_either(rate: float) -> None:
    clock = Nanoseconds()
    buckets = MemoryBuckets(rate, 2, clock=clock)
    let_in = []
    while len(let_in) < 100:
        if seconds := buckets.take("a"):
            clock.now += round(seconds * 10**9)
        else:
            let_in.append(clock.now)
    check_windows(let_in, rate, 2)


@settings(deadline=None)
@given(RATES, st.integers(1, 10), WAITS)
def test_who_is_refused_is_let_in_after_just_the_time_that_was_named(
    rate: float, burst: int, waits: list[int]
) -> None:
    clock = Nanoseconds()
    buckets = MemoryBuckets(rate, burst, clock=clock)
    for wait in waits:
        clock.now += wait // 10
        if seconds := buckets.take("a"):
            nanoseconds = round(seconds * 10**9)
            clock.now += nanoseconds - 1
            if nanoseconds > 1:
                assert buckets.take("a") > 0
            clock.now += 1
            assert buckets.take("a") == 0


@given(RATES, st.integers(1, 20), st.integers(1, 5))
def test_an_empty_bucket_is_full_again_in_time_and_never_fuller(rate: float, burst: int, enough: int) -> None:
    clock = Nanoseconds()
    buckets = MemoryBuckets(rate, burst, clock=clock)
    for _ in range(2):
        assert [buckets.take("a") for _ in range(burst)] == [0.0] * burst
        assert buckets.take("a") > 0
        clock.now += (int(burst / rate * 1e9) + 2 * burst) * enough


def test_each_key_has_a_bucket_of_its_own() -> None:
    buckets = MemoryBuckets(1.0, 1, clock=Nanoseconds())
    assert [buckets.take(key) > 0 for key in ("a", "b", "a", "b")] == [False, False, True, True]


def test_a_clock_of_a_machine_just_started_is_no_special_time() -> None:
    clock = Nanoseconds()
    clock.now = 0
    buckets = MemoryBuckets(1.0, 2, clock=clock)
    assert [buckets.take("a") > 0 for _ in range(3)] == [False, False, True]


def test_refused_requests_take_nothing() -> None:
    clock = Nanoseconds()
    buckets = MemoryBuckets(1.0, 1, clock=clock)
    buckets.take("a")
    for _ in range(9):
        clock.now += 10**8
        assert buckets.take("a") > 0
    clock.now += 10**8
    assert buckets.take("a") == 0


def test_a_hundred_thousand_addresses_do_not_fill_the_memory() -> None:
    buckets = MemoryBuckets(0.001, 1, keys=1000, clock=Nanoseconds())
    for number in range(100_000):
        buckets.take(f"address {number}")
    assert len(buckets) == 1000


def test_who_keeps_asking_is_not_forgotten_for_others() -> None:
    buckets = MemoryBuckets(0.001, 1, keys=100, clock=Nanoseconds())
    buckets.take("insistent")
    for number in range(1000):
        buckets.take(f"address {number}")
        assert buckets.take("insistent") > 0


def test_full_buckets_are_forgotten_without_need() -> None:
    clock = Nanoseconds()
    buckets = MemoryBuckets(1.0, 1, clock=clock)
    for number in range(1000):
        buckets.take(f"address {number}")
    for number in range(1001):
        clock.now += 2 * 10**9
        buckets.take(f"other {number}")
    assert len(buckets) == 1


def test_threads_together_get_no_more_than_one_would() -> None:
    buckets = MemoryBuckets(0.001, 500)
    let_in: list[int] = []
    before = sys.getswitchinterval()

    def work() -> None:
        let_in.append(sum(buckets.take("a") == 0 for _ in range(400)))

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert sum(let_in) == 500


@pytest.fixture
def in_redis(redis: RedisServer) -> Iterator[Callable[[float, int], RedisBuckets]]:
    """Buckets in Redis; all of one test are the same ones."""
    prefix, made = f"test-{uuid.uuid4().hex[:12]}", []

    def buckets(rate: float, burst: int) -> RedisBuckets:
        made.append(RedisStore(redis.url, prefix, timeout=10))
        return RedisBuckets(rate, burst, made[-1], "limit")

    yield buckets
    made[0].purge()
    for store in made:
        store.close()


def test_redis_lets_in_the_burst_and_names_the_time(in_redis: Callable[[float, int], RedisBuckets]) -> None:
    buckets = in_redis(0.5, 3)
    assert [buckets.take("a") for _ in range(3)] == [0, 0, 0]
    assert 0 < buckets.take("a") <= 2.0
    assert buckets.take("b") == 0


def test_the_time_that_redis_names_shrinks_as_it_passes(
    in_redis: Callable[[float, int], RedisBuckets],
) -> None:
    buckets = in_redis(0.01, 2)
    buckets.take("a")
    buckets.take("a")
    first = buckets.take("a")
    assert 99 < first <= 100
    until(lambda: 90 < buckets.take("a") < first - 0.02)


def test_redis_gives_back_one_at_a_time(in_redis: Callable[[float, int], RedisBuckets]) -> None:
    buckets = in_redis(50.0, 2)
    waited = [buckets.take("a") for _ in range(4)]
    assert waited[:2] == [0, 0]
    assert all(0 < wait <= 0.02 for wait in waited[2:] if wait)
    until(lambda: buckets.take("a") == 0)


@pytest.mark.parametrize("rate", [0.3, 3.0, 7.0, 1e4 / 3])
def test_redis_counts_parts_of_tokens_exactly_enough_for_the_whole_burst(
    in_redis: Callable[[float, int], RedisBuckets], rate: float
) -> None:
    buckets = in_redis(rate / 1000, 100)
    assert [wait for wait in (buckets.take("a") for _ in range(100)) if wait] == []
    assert buckets.take("a") > 0


def test_redis_forgets_a_bucket_that_is_full_again(
    in_redis: Callable[[float, int], RedisBuckets], redis: RedisServer
) -> None:
    buckets = in_redis(20.0, 1)
    buckets.take("of this test")
    until(lambda: b"of this test" not in redis.say("KEYS", "*"))


def test_two_processes_share_what_is_in_redis(in_redis: Callable[[float, int], RedisBuckets]) -> None:
    buckets = in_redis(0.001, 300)
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()

    def work() -> None:
        results.put(sum(buckets.take("a") == 0 for _ in range(250)))

    processes = [context.Process(target=work) for _ in range(2)]
    for process in processes:
        process.start()
    let_in = [results.get() for _ in processes]
    for process in processes:
        process.join()
    results.close()
    assert sum(let_in) == 300
    assert all(each < 300 for each in let_in)
