"""The engine on the memory source: what goes wrong around it, and what it does then."""

from __future__ import annotations

import contextvars
import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from patron import correlation, observe, resources
from patron.component import Stop
from patron.consumer import Batch, Consumer, Message, RetryPolicy
from patron.consumer import metrics as consumer_metrics
from patron.consumer.desk import Desk
from patron.consumer.hand import Hand
from patron.consumer.ledger import Ledger
from patron.consumer.source import Subscription
from patron.consumer.state import State
from patron.errors import ConfigError, NotASource, PublishFailed, Reject, Retry, SourceError
from patron.sources._memory_partitions import Record
from patron.sources.memory import MemoryBroker, MemorySource, forget_broker, memory_broker, use_broker
from patron.testing.clock import FakeClock
from patron.testing.driving import Driven, drain, driven
from patron.testing.until import until

ONCE = RetryPolicy(attempts=1)
QUICK = RetryPolicy(attempts=3, initial=0.01, cap=0.02)


@pytest.fixture
def broker() -> Iterator[MemoryBroker]:
    name = uuid.uuid4().hex
    yield memory_broker(name)
    forget_broker(name)


def orders(broker: MemoryBroker, **settings: Any) -> MemorySource:
    return MemorySource("orders", broker=broker.name, **settings)


def publish(broker: MemoryBroker, *bodies: str, key: str | None = None, **options: Any) -> None:
    for body in bodies:
        broker.publish("orders", body.encode(), key=key, **options)


def bodies(broker: MemoryBroker, topic: str) -> list[bytes]:
    return [record.body for record in broker.messages(topic)]


class Spy:
    """A source that counts the calls of its subscription, and can be told to fail in one of them."""

    def __init__(self, source: MemorySource, **failing: Exception) -> None:
        self.source = source
        self.calls: list[tuple[str, Any]] = []
        self.failing = failing
        self.system, self.positional, self.target, self.lease = (
            "memory",
            source.positional,
            source.topic,
            source.lease,
        )
        self.publisher = source.publisher

    def open(self) -> Subscription:
        self.note("open", None)
        return _Spied(self, self.source.open())  # type: ignore[return-value]

    def note(self, name: str, value: Any) -> None:
        self.calls.append((name, value))
        if name in self.failing:
            raise self.failing[name]

    def count(self, name: str) -> int:
        return sum(1 for call, _ in list(self.calls) if call == name)


class _Spied:
    def __init__(self, spy: Spy, subscription: Any) -> None:
        self._spy = spy
        self._subscription = subscription
        self.threads: set[int] = set()

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "revoking":
            self._subscription.revoking = value
        else:
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._subscription, name)

        def call(*arguments: Any) -> Any:
            if name != "wake":
                self.threads.add(threading.get_ident())
                assert len(self.threads) == 1, f"{name} was called from a second thread"
            self._spy.note(name, arguments[0] if arguments else None)
            return method(*arguments)

        return call


# Connections


def test_a_broker_that_is_down_at_the_start_is_waited_for(broker: MemoryBroker) -> None:
    done: list[bytes] = []
    broker.down()
    consumer = Consumer("c", orders(broker), lambda m: done.append(m.body), reconnect=QUICK)
    with driven(consumer):
        until(lambda: "is down" in str(consumer.ready().reasons))
        assert not consumer.ready().ok
        assert consumer.info()["state"] == "reconnecting"
        broker.up()
        publish(broker, "1")
        until(lambda: done == [b"1"])
        assert consumer.ready().ok


def test_stop_ends_the_wait_for_a_broker_at_once(broker: MemoryBroker) -> None:
    broker.down()
    forever = RetryPolicy(initial=3600, cap=3600, jitter="none")
    spy = Spy(orders(broker))
    live = Driven(Consumer("c", spy, print, reconnect=forever), 30.0)
    live.start()
    until(lambda: spy.count("open") == 1)
    assert live.end() < 20
    assert live.error is None
    assert spy.count("open") == 1


def test_a_source_that_opens_and_fails_is_not_hammered(broker: MemoryBroker) -> None:
    spy = Spy(orders(broker), poll=SourceError("refused"))
    hour = RetryPolicy(initial=3600, cap=3600, jitter="none")
    consumer = Consumer("c", spy, print, reconnect=hour)
    with driven(consumer):
        until(lambda: consumer.info()["state"] == "reconnecting")
        time.sleep(0.2)
        assert (spy.count("open"), spy.count("close")) == (1, 1)


@pytest.mark.parametrize("place", ["open", "poll"])
@pytest.mark.parametrize("error", [NotASource("a photo album"), RuntimeError("a bug in the adapter")])
def test_what_opening_again_cannot_help_ends_the_consumer(
    broker: MemoryBroker, place: str, error: Exception
) -> None:
    live = Driven(Consumer("c", Spy(orders(broker), **{place: error}), print), 5.0)
    live.start()
    until(lambda: live.ended)
    assert live.error is error


def test_after_a_lost_connection_nothing_is_lost_and_order_holds(broker: MemoryBroker) -> None:
    seen: list[int] = []

    def process(message: Message) -> None:
        seen.append(int(message.body))
        if len(seen) in (20, 60):
            broker.lose()

    publish(broker, *map(str, range(100)), key="k")
    with driven(Consumer("c", orders(broker), process, workers=4, reconnect=QUICK)):
        drain(orders(broker))
    assert sorted(set(seen)) == list(range(100))
    first = [number for index, number in enumerate(seen) if number not in seen[:index]]
    assert first == sorted(first)


def test_what_had_not_started_when_the_connection_broke_is_processed_once(broker: MemoryBroker) -> None:
    started, go = threading.Event(), threading.Event()
    seen: list[bytes] = []

    def process(message: Message) -> None:
        seen.append(message.body)
        started.set()
        assert go.wait(10)

    publish(broker, *map(str, range(10)), key="k")
    spy = Spy(orders(broker))
    with driven(Consumer("c", spy, process, reconnect=QUICK)):
        assert started.wait(10)
        broker.lose()
        until(lambda: spy.count("open") == 2)
        go.set()
        drain(orders(broker))
    assert seen == [b"0", *(str(number).encode() for number in range(10))]


def test_a_quiet_consumer_polls_a_few_times_a_second_and_not_more(broker: MemoryBroker) -> None:
    spy = Spy(orders(broker))
    with driven(Consumer("c", spy, print, workers=4)):
        until(lambda: spy.count("poll") >= 2)
        before, began = spy.count("poll"), time.monotonic()
        until(lambda: spy.count("poll") >= before + 5)
        assert time.monotonic() - began >= 0.4
        cpu = time.process_time()
        until(lambda: spy.count("poll") >= before + 10, interval=0.2)
        assert time.process_time() - cpu < 0.2


def test_topics_are_looked_at_until_they_were_found_once(broker: MemoryBroker) -> None:
    asked: list[list[str]] = []

    class Asked(Spy):
        def prepare(self, topics: Sequence[str]) -> None:
            asked.append(list(topics))
            self.source.prepare(topics)

    done: list[bytes] = []
    broker.down()
    with driven(Consumer("c", Asked(orders(broker)), lambda m: done.append(m.body), reconnect=QUICK)):
        until(lambda: len(asked) >= 2)
        broker.up()
        publish(broker, "1")
        until(lambda: done == [b"1"])
        drain(orders(broker))  # or it would come again after the loss
        found = len(asked)
        broker.lose()
        publish(broker, "2")
        until(lambda: done == [b"1", b"2"])
    assert asked == [["c.dlq"]] * found


# Settling


def test_a_failing_commit_is_tried_again_until_it_works(broker: MemoryBroker) -> None:
    done: list[bytes] = []
    broker.fail_settle(times=3)
    publish(broker, "1")
    with driven(Consumer("c", orders(broker), lambda m: done.append(m.body))):
        drain(orders(broker))
    assert done == [b"1"]


def test_results_of_a_lost_lease_are_not_settled(broker: MemoryBroker) -> None:
    started, go = threading.Event(), threading.Event()
    deliveries: list[int] = []

    def process(message: Message) -> None:
        deliveries.append(message.deliveries)
        if message.deliveries == 1:
            started.set()
            assert go.wait(10)

    publish(broker, "1")
    with driven(Consumer("c", orders(broker), process)):
        assert started.wait(10)
        broker.expire_leases("orders")
        go.set()
        drain(orders(broker))
    assert deliveries == [1, 2]


def test_leases_are_extended_while_a_processor_is_slow() -> None:
    clock = FakeClock()
    broker = use_broker(MemoryBroker(uuid.uuid4().hex, clock=clock, now=clock.now))
    started, go = threading.Event(), threading.Event()
    seen: list[int] = []

    def process(message: Message) -> None:
        seen.append(message.deliveries)
        started.set()
        assert go.wait(10)

    spy = Spy(orders(broker, lease=30.0))
    publish(broker, "1")
    with driven(Consumer("c", spy, process, clock=clock, now=clock.now)):
        assert started.wait(10)
        for _ in range(6):
            before = spy.count("extend")
            clock.advance(10.0)
            until(lambda n=before: spy.count("extend") > n)
        go.set()
        drain(orders(broker))
    assert seen == [1]
    forget_broker(broker.name)


def test_a_rebalance_drops_what_is_held_and_loses_nothing(broker: MemoryBroker) -> None:
    seen: list[int] = []
    source = orders(broker, positional=True, partitions=4)

    def process(message: Message) -> None:
        seen.append(int(message.body))
        if len(seen) in (10, 30):
            broker.revoke("orders")
        time.sleep(0.0005)

    broker.topic("orders").read_as(True)
    for number in range(100):
        publish(broker, str(number), key=f"k{number % 7}")
    with driven(Consumer("c", source, process, workers=4)):
        drain(source)
    assert sorted(set(seen)) == list(range(100))


def test_lanes_that_must_be_given_up_are_settled_first_and_nothing_runs_twice(broker: MemoryBroker) -> None:
    source = orders(broker, positional=True, partitions=2)
    started, go = threading.Event(), threading.Event()
    seen: list[bytes] = []

    def process(message: Message) -> None:
        seen.append(message.body)
        started.set()
        assert go.wait(10)

    broker.topic("orders", 2).read_as(True)
    publish(broker, *map(str, range(5)), key="k")
    with driven(Consumer("c", source, process)) as live:
        assert started.wait(10)
        broker.revoke("orders", orderly=True)
        until(lambda: live.component.info()["held"] == 1)  # what has not started is let go at once
        assert seen == [b"0"]
        go.set()
        drain(source)
    assert seen == [b"0", b"1", b"2", b"3", b"4"]


def test_what_is_in_hand_for_longer_than_revoke_wait_is_abandoned(broker: MemoryBroker) -> None:
    name = uuid.uuid4().hex
    source = orders(broker, positional=True, partitions=1)
    started, go = threading.Event(), threading.Event()
    deliveries: list[int] = []

    def process(message: Message) -> None:
        deliveries.append(message.deliveries)
        started.set()
        if len(deliveries) == 1:
            assert go.wait(10)

    broker.topic("orders", 1).read_as(True)
    publish(broker, "1", key="k")
    spy = Spy(source)
    with driven(Consumer(name, spy, process, revoke_wait=0.1, workers=2)) as live:
        assert started.wait(10)
        broker.revoke("orders", orderly=True)
        polls = spy.count("poll")
        until(lambda: spy.count("poll") > polls + 1)
        assert deliveries == [1], "its successor must wait for it"
        go.set()
        drain(source)
        until(lambda: not live.component.info()["in_flight"])
    assert deliveries == [1, 2]
    stale = consumer_metrics.messages.bind(name=name, topic="orders", status="stale")
    assert stale._value.get() == 1


def test_a_retry_of_a_lane_that_is_given_up_is_left_to_its_next_reader(broker: MemoryBroker) -> None:
    source = orders(broker, positional=True, partitions=1)
    tries: list[tuple[int, int]] = []

    def process(message: Message) -> None:
        tries.append((message.deliveries, message.attempts))
        if message.deliveries == 1:
            raise Retry(3600.0)

    broker.topic("orders", 1).read_as(True)
    publish(broker, "1", key="k")
    with driven(Consumer("c", source, process)):
        until(lambda: tries)
        broker.revoke("orders", orderly=True)
        drain(source)
    assert tries == [(1, 0), (2, 0)]


def test_a_connection_that_breaks_while_lanes_are_given_up_is_opened_again(broker: MemoryBroker) -> None:
    source = orders(broker, positional=True, partitions=1)
    started, go = threading.Event(), threading.Event()
    seen: list[bytes] = []

    def process(message: Message) -> None:
        seen.append(message.body)
        started.set()
        assert go.wait(10)

    broker.topic("orders", 1).read_as(True)
    publish(broker, "1", key="k")
    with driven(Consumer("c", source, process, reconnect=QUICK)) as live:
        assert started.wait(10)
        broker.revoke("orders", orderly=True)
        broker.down()
        go.set()
        until(lambda: live.component.info()["state"] == "reconnecting")
        broker.up()
        until(lambda: len(seen) >= 2)
        drain(source)


def test_two_consumers_share_the_partitions_of_a_log(broker: MemoryBroker) -> None:
    seen: dict[str, list[tuple[Any, int]]] = {"a": [], "b": []}
    source = orders(broker, positional=True, partitions=4)
    first = Consumer("a", source, lambda m: seen["a"].append((m.lane, int(m.body))))
    second = Consumer("b", source, lambda m: seen["b"].append((m.lane, int(m.body))))
    with driven(first), driven(second):
        until(lambda: first.info()["assigned"] == second.info()["assigned"] == 2)
        for number in range(100):
            publish(broker, str(number))
        drain(source)
    assert {lane for lane, _ in seen["a"]}.isdisjoint({lane for lane, _ in seen["b"]})
    assert sorted(number for _, number in seen["a"] + seen["b"]) == list(range(100))


def test_a_duplicate_is_processed_twice_and_settled_twice(broker: MemoryBroker) -> None:
    seen: list[bytes] = []
    broker.duplicate()
    publish(broker, "1", key="k")
    with driven(Consumer("c", orders(broker), lambda m: seen.append(m.body))):
        until(lambda: len(seen) == 2)
        drain(orders(broker))


def test_a_log_by_key_commits_nothing_behind_what_is_not_finished(broker: MemoryBroker) -> None:
    go = threading.Event()
    done: list[int] = []
    source = orders(broker, positional=True, partitions=1)

    def process(message: Message) -> None:
        if message.body == b"3":
            assert go.wait(10)
        done.append(int(message.body))

    topic = broker.topic("orders", 1)
    topic.read_as(True)
    for number in range(10):
        topic.logs[0].records.append(_record(number))
    with driven(Consumer("c", source, process, workers=2, order="key")):
        until(lambda: len(done) == 9)
        until(lambda: topic.logs[0].committed == 3)
        time.sleep(0.1)
        assert topic.logs[0].committed == 3
        go.set()
        until(lambda: topic.logs[0].committed == 10)


def _record(number: int) -> Any:
    return Record(str(number).encode(), f"k{number}", {}, 0.0, 0, number)


def test_prefetch_bounds_what_is_held(broker: MemoryBroker) -> None:
    go = threading.Event()
    publish(broker, *map(str, range(100)))
    spy = Spy(orders(broker))
    consumer = Consumer("c", spy, lambda m: go.wait(10), workers=2, prefetch=10)
    with driven(consumer):
        until(lambda: consumer.info()["held"] == 10)
        until(lambda: spy.calls.count(("poll", 0)) >= 2)
        assert broker.topic("orders").waiting() == 90
        assert consumer.info()["in_flight"] == 2
        go.set()
        drain(orders(broker))
    limits = [value for name, value in spy.calls if name == "poll"]
    assert max(limits) <= 10


# Failures


def test_a_retry_waits_as_the_policy_says_and_holds_only_its_lane() -> None:
    clock = FakeClock()
    broker = use_broker(MemoryBroker(uuid.uuid4().hex, clock=clock, now=clock.now))
    tries: list[tuple[bytes, int]] = []

    def process(message: Message) -> None:
        tries.append((message.body, message.attempts))
        if message.body == b"bad" and message.attempts == 0:
            raise RuntimeError("not yet")

    hour = RetryPolicy(attempts=2, initial=3600, cap=3600, jitter="none")
    publish(broker, "bad", "behind", key="a")
    publish(broker, "other", key="b")
    consumer = Consumer("c", orders(broker, lease=1e6), process, retry=hour, clock=clock, now=clock.now)
    with driven(consumer):
        until(lambda: len(tries) == 2 and not consumer.info()["in_flight"])
        clock.advance(3599)
        time.sleep(0.1)
        assert (b"behind", 0) not in tries
        clock.advance(2)
        drain(orders(broker))
    assert [entry for entry in tries if entry[0] != b"other"] == [(b"bad", 0), (b"bad", 1), (b"behind", 0)]
    forget_broker(broker.name)


@pytest.mark.parametrize(
    "settings", [{}, {"dead_letters": "none", "on_exhausted": "requeue"}], ids=["retry", "requeue"]
)
def test_nothing_overtakes_a_failure_in_the_middle_of_a_long_run(
    broker: MemoryBroker, settings: dict[str, Any]
) -> None:
    """A worker that is fast takes many messages of a lane at once, and must let go of them."""
    done: list[int] = []
    policy = RetryPolicy(attempts=1 if settings else 2, initial=0.05, jitter="none")

    def process(message: Message) -> None:
        if int(message.body) % 50 == 49 and message.attempts == 0 and message.deliveries == 1:
            raise RuntimeError("once")
        done.append(int(message.body))

    publish(broker, *map(str, range(400)), key="k")
    with driven(Consumer("c", orders(broker), process, retry=policy, **settings)):
        drain(orders(broker))
    assert done == list(range(400))


def test_a_message_that_waits_for_its_retry_occupies_no_worker(broker: MemoryBroker) -> None:
    done: list[bytes] = []

    def process(message: Message) -> None:
        if message.body == b"bad":
            raise Retry(3600.0)
        done.append(message.body)

    publish(broker, "bad", "1", "2")
    with driven(Consumer("c", orders(broker), process, workers=1)):
        until(lambda: done == [b"1", b"2"])
    assert bodies(broker, "orders") == [b"bad"]


def test_asking_for_a_retry_uses_up_the_attempts(broker: MemoryBroker) -> None:
    def process(message: Message) -> None:
        raise Retry(0.0, "later")

    publish(broker, "1")
    with driven(Consumer("c", orders(broker), process, retry=QUICK)):
        drain(orders(broker))
    (letter,) = broker.messages("c.dlq")
    assert letter.headers["x-patron-attempts"] == "3"
    assert letter.headers["x-patron-reason"] == "Retry: later"


def test_every_try_and_the_dead_letter_have_one_correlation_id(broker: MemoryBroker) -> None:
    seen: list[str | None] = []

    def process(message: Message) -> None:
        seen.append(correlation.current())
        raise RuntimeError("no")

    publish(broker, "1")
    with driven(Consumer("c", orders(broker), process, retry=QUICK)):
        drain(orders(broker))
    (letter,) = broker.messages("c.dlq")
    assert set(seen) == {letter.headers["X-Correlation-Id"]}


def test_a_long_or_strange_reason_is_cut_and_cleaned(broker: MemoryBroker) -> None:
    def process(message: Message) -> None:
        raise Reject("line one\r\nX-Evil: 1 " + "x" * 5000)

    publish(broker, "1")
    with driven(Consumer("c", orders(broker), process)):
        drain(orders(broker))
    (letter,) = broker.messages("c.dlq")
    assert len(letter.headers["x-patron-reason"]) == 1000
    assert "\n" not in letter.headers["x-patron-reason"]


def test_a_dead_letter_that_dies_again_tells_of_its_last_death(broker: MemoryBroker) -> None:
    def process(message: Message) -> None:
        raise Reject("second")

    publish(broker, "1", headers={"x-patron-reason": "first", "X-Patron-Error": "KeyError", "mine": "1"})
    with driven(Consumer("c", orders(broker), process)):
        drain(orders(broker))
    (letter,) = broker.messages("c.dlq")
    assert letter.headers["x-patron-reason"] == "second"
    assert "X-Patron-Error" not in letter.headers
    assert letter.headers["mine"] == "1"


@pytest.mark.parametrize(
    ("name", "kept"), [("nack-exit", True), ("exit", True), ("ack", False), ("skip", False)]
)
def test_the_strategies_of_the_original_keep_their_names(broker: MemoryBroker, name: Any, kept: bool) -> None:
    def process(message: Message) -> None:
        raise RuntimeError("no")

    publish(broker, "1")
    live = Driven(
        Consumer("c", orders(broker), process, retry=ONCE, dead_letters="none", on_exhausted=name), 5.0
    )
    live.start()
    until(lambda: live.ended if kept else not broker.messages("orders"))
    live.end()
    assert bodies(broker, "orders") == ([b"1"] if kept else [])
    assert isinstance(live.error, RuntimeError) is kept


def test_exit_lets_nothing_of_its_lane_overtake(broker: MemoryBroker) -> None:
    seen: list[bytes] = []

    def process(message: Message) -> None:
        seen.append(message.body)
        if message.body == b"2":
            raise RuntimeError("stop here")

    publish(broker, *map(str, range(6)), key="k")
    consumer = Consumer(
        "c", orders(broker), process, workers=3, retry=ONCE, dead_letters="none", on_exhausted="exit"
    )
    live = Driven(consumer, 5.0)
    live.start()
    until(lambda: live.ended)
    assert seen == [b"0", b"1", b"2"]
    assert bodies(broker, "orders") == [b"2", b"3", b"4", b"5"]


def test_requeueing_keeps_the_order_of_the_lane(broker: MemoryBroker) -> None:
    done: list[bytes] = []

    def process(message: Message) -> None:
        if message.body == b"1" and message.deliveries < 3:
            raise RuntimeError("no")
        done.append(message.body)

    publish(broker, *map(str, range(4)), key="k")
    policy = RetryPolicy(attempts=1, initial=0.01, cap=0.01)
    settings: dict[str, Any] = {"retry": policy, "dead_letters": "none", "on_exhausted": "requeue"}
    with driven(Consumer("c", orders(broker), process, **settings)):
        drain(orders(broker))
    assert done == [b"0", b"1", b"2", b"3"]


@pytest.mark.parametrize("positional", [False, True])
def test_what_a_poll_fetches_while_its_lane_goes_back_does_not_overtake(
    broker: MemoryBroker, positional: bool
) -> None:
    source = orders(broker, positional=positional, partitions=1)
    begun, fetched, fail = threading.Event(), threading.Event(), threading.Event()
    done: list[bytes] = []

    def process(message: Message) -> None:
        if message.body == b"0" and not fail.is_set():
            begun.set()
            assert fetched.wait(10)
            fail.set()
            raise RuntimeError("no")
        done.append(message.body)

    class Late(_Spied):
        def poll(self, limit: int, timeout: float) -> Sequence[Any]:
            received = self._subscription.poll(limit, timeout)
            if any(getattr(item, "body", None) == b"2" for item in received) and not fetched.is_set():
                fetched.set()
                until(lambda: consumer.info()["held"] == 0)
            return received

    class Source(Spy):
        def open(self) -> Subscription:
            return Late(self, self.source.open())  # type: ignore[return-value]

    if positional:
        broker.topic("orders", 1).read_as(True)
    publish(broker, "0", "1", key="k")
    policy = RetryPolicy(attempts=1, initial=0.01, cap=0.01)
    settings: dict[str, Any] = {"retry": policy, "dead_letters": "none", "on_exhausted": "requeue"}
    consumer = Consumer("c", Source(source), process, **settings)
    with driven(consumer):
        assert begun.wait(10)
        publish(broker, "2", "3", key="k")
        until(lambda: len(done) >= 4)
        drain(source)
    assert done == [b"0", b"1", b"2", b"3"]


def test_nothing_is_fetched_that_would_overtake_what_could_not_be_given_back(broker: MemoryBroker) -> None:
    done: list[int] = []
    source = orders(broker, positional=True, partitions=1)
    spy = Spy(source, nack=SourceError("not now"))

    def process(message: Message) -> None:
        if message.body == b"0" and message.attempts == 0:
            raise Retry(0.3)  # long enough that what waits behind it is given back, however busy the machine
        done.append(int(message.body))

    broker.topic("orders", 1).read_as(True)
    publish(broker, *map(str, range(20)), key="k")
    with driven(Consumer("c", spy, process, prefetch=4, workers=2, retry=QUICK)):
        until(lambda: spy.count("nack") >= 2)
        until(lambda: done == [0])
        time.sleep(0.1)
        assert done == [0]
        del spy.failing["nack"]
        until(lambda: len(done) >= 20)
    assert done == list(range(20))


def test_what_goes_back_of_a_lane_that_is_taken_away_is_nobodys_any_more() -> None:
    desk = Desk(Ledger(True), [Hand()], clock=time.monotonic, settle_at=1)
    desk.receive([Message(b"", "t", str(at), lane="p", position=at) for at in range(2)])
    hand = Hand()
    assert desk.next(hand)
    desk.give_back(hand, [hand.run.popleft()], 0.0)
    desk.revoke(["p"])
    assert [messages for _, messages in desk.collect()[1] if messages] == []


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit(), RecursionError()])
def test_whatever_a_processor_raises_is_the_failure_of_its_message(
    broker: MemoryBroker, error: BaseException
) -> None:
    def process(message: Message) -> None:
        raise error

    publish(broker, "1", "2")
    with driven(Consumer("c", orders(broker), process, retry=ONCE)) as live:
        drain(orders(broker))
        assert not live.ended
    assert len(broker.messages("c.dlq")) == 2


def test_a_worker_that_dies_is_noticed(broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    from patron.consumer.worker import Worker

    def broken(self: Worker) -> float:
        raise MemoryError("in the engine itself")

    monkeypatch.setattr(Worker, "_one_by_one", broken)
    publish(broker, "1")
    live = Driven(Consumer("c", orders(broker), print), 2.0)
    live.start()
    until(lambda: live.ended)
    assert isinstance(live.error, MemoryError)
    assert bodies(broker, "orders") == [b"1"]


# Batches


def test_a_batch_that_is_not_full_starts_when_it_has_waited() -> None:
    clock = FakeClock()
    broker = use_broker(MemoryBroker(uuid.uuid4().hex, clock=clock, now=clock.now))
    sizes: list[int] = []
    publish(broker, "1", "2", "3")
    consumer = Consumer(
        "c",
        orders(broker),
        lambda batch: sizes.append(len(batch)),
        batch=Batch(10, 60.0),
        clock=clock,
        now=clock.now,
    )
    with driven(consumer):
        until(lambda: consumer.info()["held"] == 3)
        clock.advance(59)
        time.sleep(0.1)
        assert sizes == []
        clock.advance(2)
        drain(orders(broker))
    assert sizes == [3]
    forget_broker(broker.name)


def test_a_batch_as_large_as_the_prefetch_fills(broker: MemoryBroker) -> None:
    sizes: list[int] = []
    publish(broker, *map(str, range(9)))
    consumer = Consumer(
        "c", orders(broker), lambda b: sizes.append(len(b)), batch=Batch(10, 3600.0), prefetch=10
    )
    with driven(consumer):
        until(lambda: consumer.info()["held"] == 9)
        publish(broker, "9")
        until(lambda: sizes == [10])


def test_a_batch_is_tried_again_as_a_whole(broker: MemoryBroker) -> None:
    tries: list[list[bytes]] = []

    def process(batch: Sequence[Message]) -> None:
        tries.append([message.body for message in batch])
        if len(tries) < 3:
            raise RuntimeError("the database is away")

    publish(broker, "0", "1", "2", key="k")
    with driven(Consumer("c", orders(broker), process, batch=Batch(3, 5.0), retry=QUICK)):
        drain(orders(broker))
    assert tries == [[b"0", b"1", b"2"]] * 3
    assert broker.messages("c.dlq") == []


def test_order_holds_over_batches(broker: MemoryBroker) -> None:
    seen: dict[str | None, list[int]] = {}
    lock = threading.Lock()

    def process(batch: Sequence[Message]) -> None:
        with lock:
            for message in batch:
                seen.setdefault(message.key, []).append(int(message.body))

    for number in range(300):
        publish(broker, str(number), key=f"k{number % 5}")
    with driven(Consumer("c", orders(broker), process, workers=4, batch=Batch(7, 0.01))):
        drain(orders(broker))
    assert all(numbers == sorted(numbers) for numbers in seen.values())
    assert sum(map(len, seen.values())) == 300


def test_a_batch_with_one_operation_counts_all_its_messages(broker: MemoryBroker) -> None:
    publish(broker, *map(str, range(8)))
    with observe.capture() as captured, driven(Consumer("c", orders(broker), len, batch=Batch(8, 5.0))):
        drain(orders(broker))
    assert [operation.count for operation in captured.operations] == [8]


def test_the_span_of_a_message_is_called_as_in_the_go_original(broker: MemoryBroker) -> None:
    publish(broker, "1")
    with observe.capture() as captured, driven(Consumer("c", orders(broker), lambda message: None)):
        drain(orders(broker))
    (span,) = captured.spans
    assert (span.name, span.tags["component"]) == ("memory-consumer orders", "memory-consumer")


def test_of_one_key_a_batch_has_only_the_newest(broker: MemoryBroker) -> None:
    name = uuid.uuid4().hex
    seen: list[list[tuple[str | None, bytes]]] = []
    letters = ["a1", "b1", "-1", "a2", "c1", "-2", "b2", "a3"]
    source = orders(broker, positional=True, partitions=1)
    topic = broker.topic("orders", 1)
    topic.read_as(True)
    for number, letter in enumerate(letters):
        key = None if letter[0] == "-" else letter[0]
        topic.logs[0].records.append(Record(letter.encode(), key, {}, 0.0, 0, number))

    def process(messages: Sequence[Message]) -> None:
        seen.append([(message.key, message.body) for message in messages])

    with driven(Consumer(name, source, process, batch=Batch(8, 5.0, dedupe=True))):
        drain(source)
    (batch,) = seen
    assert batch == [(None, b"-1"), ("c", b"c1"), (None, b"-2"), ("b", b"b2"), ("a", b"a3")]
    counted = {
        status: consumer_metrics.messages.bind(name=name, topic="orders", status=status)._value.get()
        for status in ("received", "processed", "deduplicated")
    }
    assert counted == {"received": 8, "processed": 5, "deduplicated": 3}


def test_a_message_that_cannot_be_read_replaces_no_older_one(broker: MemoryBroker) -> None:
    seen: list[bytes] = []
    publish(broker, "good", key="k")
    publish(broker, "bad", key="k", problem="cut off")
    publish(broker, "other", key="k2")

    def process(messages: Sequence[Message]) -> None:
        seen.extend(message.body for message in messages)

    with driven(Consumer("c", orders(broker), process, batch=Batch(3, 5.0, dedupe=True))):
        drain(orders(broker))
    assert sorted(seen) == [b"good", b"other"]
    assert bodies(broker, "c.dlq") == [b"bad"]


def test_work_handed_to_another_thread_keeps_the_ids_of_its_message(broker: MemoryBroker) -> None:
    """The ids are read late, so they must not be those of the message after it."""
    contexts: list[contextvars.Context] = []
    at_once: list[str | None] = []

    def process(message: Message) -> None:
        contexts.append(contextvars.copy_context())
        if len(contexts) % 2:
            at_once.append(correlation.current())

    for number in range(10):
        with_id = {"x-correlation-ID": f"id-{number}", "TraceParent": f"00-{number + 1:032x}-{7:016x}-00"}
        publish(broker, str(number), headers=with_id if number < 5 else {})
    with driven(Consumer("c", orders(broker), process)):
        drain(orders(broker))
    later = [context.run(correlation.current) for context in contexts]
    assert later[:5] == [f"id-{number}" for number in range(5)]
    assert later[::2] == at_once
    assert len(set(later)) == 10
    traces = [context.run(correlation.outgoing)["uber-trace-id"].split(":")[0] for context in contexts]
    assert traces[:5] == [f"{number + 1:016x}" for number in range(5)]
    assert [context.run(correlation.current) for context in contexts] == later
    assert correlation.current() is None


# The end


def test_a_stop_waits_for_what_is_in_flight_and_settles_it(broker: MemoryBroker) -> None:
    started, go = threading.Event(), threading.Event()

    def process(message: Message) -> None:
        started.set()
        assert go.wait(10)

    publish(broker, "1", "2", key="k")
    live = Driven(Consumer("c", orders(broker), process), 10.0)
    live.start()
    assert started.wait(10)
    threading.Timer(0.2, go.set).start()
    assert live.end() < 8
    assert bodies(broker, "orders") == [b"2"]


def test_a_stop_gives_back_what_waits_for_its_retry(broker: MemoryBroker) -> None:
    failed = threading.Event()

    def process(message: Message) -> None:
        failed.set()
        raise RuntimeError("later")

    hour = RetryPolicy(attempts=2, initial=3600, cap=3600, jitter="none")
    publish(broker, "1")
    live = Driven(Consumer("c", orders(broker), process, retry=hour), 10.0)
    live.start()
    assert failed.wait(10)
    assert live.end() < 8
    assert bodies(broker, "orders") == [b"1"]


def test_leases_go_on_while_the_last_messages_end() -> None:
    clock = FakeClock()
    broker = use_broker(MemoryBroker(uuid.uuid4().hex, clock=clock, now=clock.now))
    started, go = threading.Event(), threading.Event()

    def process(message: Message) -> None:
        started.set()
        assert go.wait(10)

    spy = Spy(orders(broker, lease=30.0))
    publish(broker, "1")
    live = Driven(Consumer("c", spy, process, clock=clock, now=clock.now), 10.0)
    live.start()
    assert started.wait(10)
    live.stop.set(time.monotonic() + 10)
    for _ in range(4):
        before = spy.count("extend")
        clock.advance(11.0)
        until(lambda n=before: spy.count("extend") > n)
    go.set()
    live.end()
    assert broker.messages("orders") == []
    forget_broker(broker.name)


def test_a_commit_that_fails_during_the_stop_is_tried_again(broker: MemoryBroker) -> None:
    started = threading.Event()

    def process(message: Message) -> None:
        started.set()
        time.sleep(0.1)
        broker.fail_settle(times=2)

    publish(broker, "1")
    live = Driven(Consumer("c", orders(broker), process), 10.0)
    live.start()
    assert started.wait(10)
    live.end()
    assert broker.messages("orders") == []


def test_a_stop_before_the_first_message_is_clean(broker: MemoryBroker) -> None:
    stop = Stop()
    stop.set(time.monotonic() + 5)
    Consumer("c", orders(broker), print, workers=3).run(stop)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("c-worker-")]


# What it tells


def test_work_in_flight_has_a_name_and_a_thread(broker: MemoryBroker) -> None:
    go = threading.Event()
    threads: list[str] = []

    def process(message: Message) -> None:
        threads.append(threading.current_thread().name)
        assert go.wait(10)

    source = orders(broker, positional=True, partitions=1)
    broker.topic("orders").read_as(True)
    consumer = Consumer("eager", source, process)
    publish(broker, "1", key="k")
    with driven(consumer):
        until(lambda: consumer.in_flight())
        (work,) = consumer.in_flight()
        assert work.what.startswith("orders/")
        assert "@0" in work.what
        assert work.thread in {
            thread.ident for thread in threading.enumerate() if thread.name == "eager-worker-0"
        }
        assert work.since <= time.monotonic()
        until(lambda: threads == ["eager-worker-0"])
        go.set()
        until(lambda: not consumer.in_flight())


def test_it_is_ready_for_good_after_the_first_assignment(broker: MemoryBroker) -> None:
    consumer = Consumer("c", orders(broker), print, reconnect=QUICK)
    assert not consumer.ready().ok
    with driven(consumer):
        until(lambda: consumer.ready().ok)
        broker.down()
        until(lambda: consumer.ready().reasons)
        assert consumer.ready().ok
        assert "is down" in consumer.ready().reasons[0]


def test_when_required_it_is_ready_only_while_it_makes_progress(broker: MemoryBroker) -> None:
    go = threading.Event()
    consumer = Consumer(
        "c",
        orders(broker),
        lambda m: go.wait(10),
        readiness="required",
        max_lag=5,
        prefetch=1,
        reconnect=QUICK,
    )
    with driven(consumer):
        until(lambda: consumer.ready().ok)
        broker.down()
        until(lambda: not consumer.ready().ok)
        broker.up()
        until(lambda: consumer.ready().ok)
        publish(broker, *map(str, range(10)))
        until(lambda: "behind" in str(consumer.ready().reasons))
        assert not consumer.ready().ok
        go.set()
        until(lambda: consumer.ready().ok)
    assert "has ended" in str(consumer.ready().reasons)


def test_dead_letters_that_cannot_be_published_are_told_until_they_are(broker: MemoryBroker) -> None:
    def fail(message: Message) -> None:
        raise ValueError("bad")

    consumer = Consumer("c", orders(broker), fail, retry=ONCE)
    publish(broker, "1")
    broker.fail_publish(2, PublishFailed("the letter is too large"))
    with driven(consumer):
        until(lambda: "PublishFailed: the letter is too large" in str(consumer.info()["trouble"]))
        assert "too large" in str(consumer.ready().reasons)
        until(lambda: len(broker.messages("c.dlq")) == 1)


def test_what_was_wrong_with_a_dead_letter_is_no_news_any_more_well_after_its_next_try() -> None:
    state = State()
    state.bury_later("PublishFailed: no", 1.0)
    assert state.troubles() == ["dead letters cannot be published: PublishFailed: no"]
    state.bury_later("PublishFailed: no", -60.0)
    assert state.troubles() == []


def test_every_outcome_is_counted(broker: MemoryBroker) -> None:
    name = uuid.uuid4().hex

    def process(message: Message) -> None:
        if message.body == b"bad":
            raise RuntimeError("no")

    publish(broker, "good", "good", "bad")
    with driven(Consumer(name, orders(broker), process, retry=QUICK)):
        drain(orders(broker))
    counted = {
        status: consumer_metrics.messages.bind(name=name, topic="orders", status=status)._value.get()
        for status in ("received", "processed", "failed", "dead-lettered")
    }
    assert counted == {"received": 3, "processed": 2, "failed": 3, "dead-lettered": 1}
    histogram = consumer_metrics.processing_seconds.bind(name=name, topic="orders")
    samples = {s.name: s.value for s in histogram._child_samples() if s.name == "_count"}
    assert samples == {"_count": 5}


def test_info_tells_settings_and_state(broker: MemoryBroker) -> None:
    consumer = Consumer("c", orders(broker), print, workers=3)
    assert consumer.info()["state"] == "created"
    with driven(consumer):
        until(lambda: consumer.info()["connected"])
        info = consumer.info()
    assert (info["type"], info["workers"], info["dead_letters"], info["target"]) == (
        "consumer",
        3,
        "c.dlq",
        "orders",
    )


# What it is made of


def test_every_mistake_is_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Consumer("", object(), "no function", workers=0, max_deliveries=0, dead_letters="none")  # type: ignore[arg-type]
    text = str(caught.value)
    for part in (
        "name is empty",
        "source is",
        "processor is",
        "workers is 0",
        "max_deliveries is 0",
        "on_exhausted",
    ):
        assert part in text
    assert len(caught.value.problems) == 6


def test_no_dead_letters_need_a_word_about_what_happens_instead(broker: MemoryBroker) -> None:
    with pytest.raises(ConfigError, match="skip, requeue or exit"):
        Consumer("c", orders(broker), print, dead_letters="none")


def test_an_unknown_setting_is_refused_with_the_known_ones(broker: MemoryBroker) -> None:
    with pytest.raises(ConfigError, match="there is no setting worker: there are batch"):
        Consumer("c", orders(broker), print, worker=3)  # type: ignore[call-arg]


def test_a_processor_gets_the_resources_that_it_names(broker: MemoryBroker) -> None:
    seen: list[tuple[bytes, str]] = []

    def process(message: Message, db: str, *, limit: int = 3) -> None:
        seen.append((message.body, db))

    publish(broker, "1")
    resources.install({"db": "the database"})
    try:
        with driven(Consumer("c", orders(broker), process)):
            drain(orders(broker))
    finally:
        resources.install({})
    assert seen == [(b"1", "the database")]


def test_a_fixed_content_type_wins_over_the_header(broker: MemoryBroker) -> None:
    seen: list[Any] = []
    publish(broker, '{"a": 1}', headers={"content-type": "application/x-unheard-of"})
    with driven(
        Consumer("c", orders(broker), lambda m: seen.append(m.decode()), decode_as="application/json")
    ):
        drain(orders(broker))
    assert seen == [{"a": 1}]


def test_a_slow_message_does_not_keep_the_rest_of_its_run(broker: MemoryBroker) -> None:
    """One worker is fast enough to take long runs; then a message hangs, and the others of its run go on elsewhere."""
    go = threading.Event()
    numbers = itertools.count()
    done: list[int] = []

    def process(message: Message) -> None:
        if next(numbers) == 500:
            assert go.wait(10)
        done.append(int(message.body))

    publish(broker, *map(str, range(1000)))
    with driven(Consumer("c", orders(broker), process, workers=2)):
        until(lambda: len(done) == 999)
        go.set()
        drain(orders(broker))
    assert sorted(done) == list(range(1000))


@pytest.mark.parametrize("settings", [{}, {"batch": Batch(size=2, wait=0.01)}], ids=["single", "batch"])
def test_a_message_whose_processor_is_async_behind_a_plain_function_has_failed(
    broker: MemoryBroker, settings: dict[str, Any]
) -> None:
    async def later(message: object) -> None:
        raise AssertionError("nobody runs it")

    publish(broker, "a", "b")
    consumer = Consumer("c", orders(broker), lambda message: later(message), retry=ONCE, **settings)
    with driven(consumer):
        until(lambda: len(broker.messages("c.dlq")) == 2)
    letter = broker.messages("c.dlq")[0]
    assert letter.headers["x-patron-error"] == "TypeError"
    assert "is async: Patron calls plain functions" in letter.headers["x-patron-reason"]
