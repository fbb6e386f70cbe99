"""A consumer has caught up when everything is processed that was there when it started."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from patron import observe, resources
from patron.consumer import Consumer, Message
from patron.consumer import metrics as consumer_metrics
from patron.consumer.source import Stats
from patron.sources.memory import MemoryBroker, MemorySource, forget_broker, memory_broker
from patron.testing.driving import driven
from patron.testing.until import until


@pytest.fixture
def broker() -> Iterator[MemoryBroker]:
    name = uuid.uuid4().hex
    yield memory_broker(name)
    forget_broker(name)


@pytest.fixture(params=[False, True], ids=["queue", "log"])
def source(request: pytest.FixtureRequest, broker: MemoryBroker) -> MemorySource:
    source = MemorySource("orders", positional=request.param, broker=broker.name)
    source.open().close()
    return source


class Gate:
    """A processor that lets messages pass when told so."""

    def __init__(self) -> None:
        self.free = threading.Semaphore(0)
        self.done: list[bytes] = []

    def __call__(self, message: Message) -> None:
        assert self.free.acquire(timeout=10)
        self.done.append(message.body)


def test_readiness_can_wait_until_what_was_there_is_processed(
    broker: MemoryBroker, source: MemorySource
) -> None:
    gate = Gate()
    for number in range(3):
        broker.publish("orders", str(number).encode(), key="k")
    consumer = Consumer("c", source, gate, readiness="caught-up")
    with driven(consumer):
        until(lambda: consumer.info()["in_flight"] and consumer.info()["assigned"])
        gate.free.release(2)
        until(lambda: len(gate.done) == 2)
        until(lambda: consumer.info()["lag"] == source.positional)  # a queue says that nothing waits
        assert not consumer.ready().ok
        assert consumer.ready().reasons == ("has not processed yet what was there when it started",)
        assert not consumer.info()["caught_up"]
        gate.free.release(1)
        until(lambda: consumer.ready().ok)
        broker.publish("orders", b"later", key="k")
        until(lambda: consumer.info()["in_flight"])
        assert consumer.ready().ok, "it stays ready"
        gate.free.release(1)


def test_a_log_has_caught_up_although_more_keeps_coming(broker: MemoryBroker) -> None:
    source = MemorySource("orders", positional=True, broker=broker.name, partitions=1)
    source.open().close()
    gate = Gate()
    broker.publish("orders", b"there", key="k")
    consumer = Consumer("c", source, gate)
    with driven(consumer):
        until(lambda: consumer.info()["in_flight"])
        broker.publish("orders", b"came later", key="k")
        gate.free.release(1)
        until(lambda: consumer.info()["caught_up"])
        assert gate.done == [b"there"]
        gate.free.release(1)


def test_an_empty_topic_is_caught_up_with_at_once(source: MemorySource) -> None:
    consumer = Consumer("c", source, print, readiness="caught-up")
    with driven(consumer):
        until(lambda: consumer.ready().ok)


def test_a_source_that_knows_no_lag_has_caught_up_when_nothing_more_comes(broker: MemoryBroker) -> None:
    inner = MemorySource("orders", broker=broker.name)

    class Ignorant:
        system, positional, target, publisher = "memory", False, "orders", inner.publisher

        def open(self) -> Any:
            subscription = inner.open()
            subscription.stats = lambda: Stats(assigned=1)  # type: ignore[method-assign]
            return subscription

    gate = Gate()
    broker.publish("orders", b"1")
    consumer = Consumer("c", Ignorant(), gate)  # type: ignore[arg-type]
    with driven(consumer):
        until(lambda: consumer.info()["assigned"] and consumer.info()["in_flight"])
        assert not consumer.info()["caught_up"]
        gate.free.release(1)
        until(lambda: consumer.info()["caught_up"])


def test_code_is_told_once_with_the_resources_that_it_names(
    broker: MemoryBroker, source: MemorySource
) -> None:
    told: list[tuple[str, str]] = []

    def on_caught_up(db: str) -> None:
        told.append((db, threading.current_thread().name))

    resources.install({"db": "the database"})
    try:
        with driven(Consumer("c", source, print, on_caught_up=on_caught_up)) as live:
            until(lambda: told)
            broker.lose()
            until(lambda: live.component.info()["connected"])
    finally:
        resources.install({})
    assert told == [("the database", "c-caught-up")]


def test_code_that_fails_when_told_stops_nobody(broker: MemoryBroker) -> None:
    done: list[bytes] = []
    reported: list[BaseException] = []

    def on_caught_up() -> None:
        raise SystemExit("no")

    before = observe.set_error_reporter(lambda error, context: reported.append(error))
    try:
        source = MemorySource("orders", broker=broker.name)
        with driven(Consumer("c", source, lambda m: done.append(m.body), on_caught_up=on_caught_up)):
            until(lambda: reported)
            broker.publish("orders", b"1")
            until(lambda: done)
    finally:
        observe.set_error_reporter(before)
    assert isinstance(reported[0], SystemExit)


def test_the_age_of_the_oldest_message_and_the_lag_are_shown(broker: MemoryBroker) -> None:
    name = uuid.uuid4().hex
    broker.now = lambda: 1000.0
    gate = Gate()
    for number in range(5):
        broker.publish("orders", str(number).encode())
    broker.now = lambda: 1060.0
    source = MemorySource("orders", broker=broker.name)
    consumer = Consumer(name, source, gate, prefetch=1, now=lambda: 1060.0)
    labels = {"name": name, "topic": "orders"}

    def shown(gauge: Any) -> float:
        return float(gauge.bind(**labels)._value.get())

    with driven(consumer):
        until(lambda: shown(consumer_metrics.lag) == 4)
        assert shown(consumer_metrics.oldest_age) == 60
        assert shown(consumer_metrics.message_age) == 60
        assert shown(consumer_metrics.in_flight) == 1
        assert 1000 < shown(consumer_metrics.last_poll) <= 1060
        gate.free.release(5)
        until(lambda: shown(consumer_metrics.lag) == 0 and shown(consumer_metrics.oldest_age) == 0)
