"""Kafka goes away and comes back: nothing is lost, nothing changes places, and readers are told."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from brokers import fixtures
from brokers.forgotten import forgotten_sockets  # noqa: F401
from brokers.kafka_server import Kafka, KafkaServer
from brokers.tcp_proxy import Proxy

from patron.consumer import Consumer
from patron.consumer.source import Message
from patron.errors import PublishFailed
from patron.reliability.retry import RetryPolicy
from patron.sources.kafka import KafkaSource
from patron.testing import driven, until

pytestmark = pytest.mark.broker

QUICK = RetryPolicy(initial=0.05, cap=0.5)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A real Kafka of this module alone; a test leaves it running."""
    yield from fixtures._run(Kafka, tmp_path_factory.mktemp("kafka"))  # type: ignore[misc]


def source(url: str, **settings: Any) -> KafkaSource:
    topic = f"patron-{uuid.uuid4().hex[:12]}"
    quick = {"heartbeat_interval": 0.2, "session_timeout": 6.0, "fetch_max_wait": 0.05, "partitions": 2}
    return KafkaSource(topic, f"group-{topic}", brokers=url, create=True, **quick | settings)


def publish(to: KafkaSource, numbers: range) -> None:
    """Each number until the broker has confirmed it, at least once."""
    with contextlib.closing(to.publisher()) as publisher:
        for number in numbers:
            publisher.publish(to.target, str(number).encode(), key=f"k{number % 4}")


class Seen:
    """What a consumer processed."""

    def __init__(self) -> None:
        self.bodies: list[int] = []
        self.by_key: dict[str | None, list[int]] = {}

    def __call__(self, message: Message) -> None:
        number = int(message.body)
        self.bodies.append(number)
        self.by_key.setdefault(message.key, []).append(number)

    def in_order(self) -> bool:
        """Whether the first sight of each number came after the smaller ones of its key."""
        return all(list(dict.fromkeys(numbers)) == sorted(set(numbers)) for numbers in self.by_key.values())


def test_a_broker_that_dies_and_comes_back_costs_nothing_but_time(broker: Kafka) -> None:
    seen = Seen()
    reader = source(broker.url, lost_after=1.0)
    consumer = Consumer("test", reader, seen, workers=4, reconnect=QUICK)
    with driven(consumer):
        publish(reader, range(100))
        until(lambda: len(set(seen.bodies)) == 100, 30)
        broker.kill()
        until(lambda: "no broker" in str(consumer.info()["trouble"]), 20)
        broker.start()
        until(lambda: consumer.info()["trouble"] is None, 30)
        publish(reader, range(100, 200))
        until(lambda: len(set(seen.bodies)) == 200, 30)
    assert seen.in_order()


def test_a_cut_connection_is_made_again_and_what_is_in_hand_goes_on(
    broker: Kafka, proxy: Callable[[KafkaServer], Proxy]
) -> None:
    seen = Seen()
    through = proxy(broker)
    reader = source(through.url)
    writer = dataclasses.replace(reader, brokers=broker.url)
    going, go_on = threading.Event(), threading.Event()

    def process(message: Message) -> None:
        if message.body == b"50":
            going.set()
            assert go_on.wait(30)
        seen(message)

    consumer = Consumer("test", reader, process, workers=4, reconnect=QUICK)
    with driven(consumer):
        publish(writer, range(100))
        assert going.wait(30)
        through.cut()
        go_on.set()
        until(lambda: len(seen.bodies) >= 100, 30)
        publish(writer, range(100, 120))
        until(lambda: len(seen.bodies) >= 120, 30)
        until(lambda: consumer.info()["lag"] == 0, 30)
    assert sorted(seen.bodies) == list(range(120))
    assert seen.in_order()


def test_a_network_that_swallows_everything_is_noticed(
    broker: Kafka, proxy: Callable[[KafkaServer], Proxy]
) -> None:
    seen = Seen()
    through = proxy(broker)
    reader = source(through.url, lost_after=1.0, request_timeout=1.0, connect_timeout=2.0)
    writer = dataclasses.replace(reader, brokers=broker.url, request_timeout=30.0)
    consumer = Consumer("test", reader, seen, workers=4, reconnect=QUICK)
    with driven(consumer):
        publish(writer, range(20))
        until(lambda: len(set(seen.bodies)) == 20, 30)
        through.hole()
        until(lambda: consumer.info()["trouble"], 30)
        publish(writer, range(20, 40))
        through.heal()
        until(lambda: len(set(seen.bodies)) == 40, 60)
    assert seen.in_order()


def test_publishing_fails_within_its_time_and_works_again_when_the_broker_does(broker: Kafka) -> None:
    to = source(broker.url, delivery_timeout=1.0)
    with contextlib.closing(to.publisher()) as publisher:
        publisher.publish(to.target, b"1")
        broker.kill()
        began = time.monotonic()
        with pytest.raises(PublishFailed, match=f"cannot publish to {to.target}"):
            publisher.publish(to.target, b"2")
        assert time.monotonic() - began < 20
        broker.start()
        until(lambda: _published(publisher, to.target), 30)


def _published(publisher: Any, topic: str) -> bool:
    try:
        return bool(publisher.publish(topic, b"3"))
    except PublishFailed:
        return False


def test_a_damaged_batch_becomes_a_dead_letter_and_the_batches_after_it_are_read(broker: Kafka) -> None:
    seen = Seen()
    reader = source(broker.url, partitions=1)
    letters = f"{reader.target}.dlq"
    publish(reader, range(1111, 1112))
    publish(reader, range(2222, 2223))
    publish(reader, range(3333, 3334))
    (log,) = (broker.folder / "data" / f"{reader.target}-0").glob("*.log")
    with log.open("r+b") as file:
        file.seek(log.read_bytes().index(b"2222"))
        file.write(b"9")
    consumer = Consumer("test", reader, seen, dead_letters=letters)
    with driven(consumer):
        until(lambda: len(seen.bodies) == 2, 30)
    assert seen.bodies == [1111, 3333]
    with contextlib.closing(reader.letters(letters)) as shelf:
        found: list[Message] = []
        until(lambda: found.extend(shelf.poll(10, 0.1)) or found, 30)
    assert found[0].headers["x-patron-reason"] == (
        "undecodable: batch at offset 1 cannot be read: its checksum is wrong"
    )
    assert b"9222" in found[0].body
