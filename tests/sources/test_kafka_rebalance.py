"""Members of a Kafka group come, go and are thrown out, while messages are processed."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, Literal

import kafka as driver
import pytest
from brokers.forgotten import forgotten_sockets  # noqa: F401
from brokers.kafka_server import KafkaServer

from patron.consumer import Consumer
from patron.consumer.source import Message, Revoked
from patron.errors import Stale
from patron.sources.kafka import KafkaSource
from patron.testing import driven, until

pytestmark = pytest.mark.broker


def source_on(
    kafka: KafkaServer, assignment: Literal["cooperative", "eager"], **settings: Any
) -> KafkaSource:
    topic = f"patron-{uuid.uuid4().hex[:12]}"
    quick = {"heartbeat_interval": 0.1, "session_timeout": 6.0, "fetch_max_wait": 0.05, "partitions": 4}
    source = KafkaSource(
        topic, f"group-{topic}", brokers=kafka.url, create=True, assignment=assignment, **quick | settings
    )
    source.prepare([])
    return source


class Book:
    """Who processed what, and whether two did something of one key at once, or in the wrong order."""

    def __init__(self, pause: float) -> None:
        self.seen: dict[str | None, list[int]] = defaultdict(list)
        self.by: Counter[str] = Counter()
        self.together: list[str | None] = []
        self._busy: Counter[str | None] = Counter()
        self._pause = pause
        self._lock = threading.Lock()  # guards all of it

    def of(self, name: str) -> Any:
        def process(message: Message) -> None:
            with self._lock:
                self._busy[message.key] += 1
                if self._busy[message.key] > 1:
                    self.together.append(message.key)
            time.sleep(self._pause)
            with self._lock:
                self.seen[message.key].append(int(message.body))
                self.by[name] += 1
                self._busy[message.key] -= 1

        return process

    def distinct(self) -> int:
        with self._lock:
            return sum(len(set(numbers)) for numbers in self.seen.values())


@pytest.mark.parametrize("assignment", ["cooperative", "eager"])
def test_members_come_and_go_and_nothing_is_lost_doubled_or_overtaken(
    real_kafka: KafkaServer, assignment: Literal["cooperative", "eager"]
) -> None:
    source = source_on(real_kafka, assignment)
    book = Book(0.005)
    enough = threading.Event()
    sent: list[int] = []

    def member(name: str) -> Consumer:
        return Consumer(
            name, source, book.of(name), workers=4, prefetch=32, dead_letters=f"{source.target}.dlq"
        )

    def publish() -> None:
        with contextlib.closing(driver.KafkaProducer(bootstrap_servers=real_kafka.url)) as producer:
            while not enough.wait(0.01):
                if len(sent) < book.distinct() + 300:
                    for number in range(len(sent), len(sent) + 50):
                        producer.send(source.target, str(number).encode(), key=b"k%d" % (number % 64))
                        sent.append(number)

    publishing = threading.Thread(target=publish)
    publishing.start()
    try:
        with driven(member("first")):
            until(lambda: book.by["first"] > 50, 30)
            with driven(member("second")):
                until(lambda: book.by["second"] > 50, 30)
                with driven(member("third")):
                    until(lambda: book.by["third"] > 10, 30)
            enough.set()
            publishing.join()
            until(lambda: book.distinct() == len(sent), 60)
    finally:
        enough.set()
        publishing.join()
    assert book.together == []
    assert {key: numbers for key, numbers in book.seen.items() if numbers != sorted(set(numbers))} == {}
    assert sum(map(len, book.seen.values())) == len(sent)


def test_a_slow_processor_keeps_its_membership_and_its_message(real_kafka: KafkaServer) -> None:
    source = source_on(real_kafka, "cooperative", max_poll_interval=1.0, session_timeout=1.5, partitions=1)
    seen: list[tuple[bytes, int]] = []

    def process(message: Message) -> None:
        time.sleep(2.5)
        seen.append((message.body, message.generation))

    with contextlib.closing(source.publisher()) as publisher:
        publisher.publish(source.target, b"1")
        publisher.publish(source.target, b"2")
    with driven(Consumer("slow", source, process, dead_letters=f"{source.target}.dlq")):
        until(lambda: len(seen) == 2, 30)
    assert [body for body, _ in seen] == [b"1", b"2"]
    assert len({generation for _, generation in seen}) == 1


def test_a_member_too_many_is_ready_without_a_partition(real_kafka: KafkaServer) -> None:
    source = source_on(real_kafka, "cooperative", partitions=1)
    with contextlib.closing(source.open()) as first:
        until(lambda: (first.poll(0, 0.05), first.stats().assigned)[1])
        consumer = Consumer("second", source, print, dead_letters=f"{source.target}.dlq")
        with driven(consumer):
            until(lambda: (first.poll(0, 0.05), consumer.ready().ok)[1], 20)
            assert first.stats().assigned == 1
            assert consumer.info()["assigned"] == 0


def test_who_was_thrown_out_of_the_group_settles_nothing(real_kafka: KafkaServer) -> None:
    source = source_on(real_kafka, "cooperative", max_poll_interval=0.5, partitions=1)
    with contextlib.closing(source.publisher()) as publisher:
        publisher.publish(source.target, b"1")
    with contextlib.closing(source.open()) as subscription:
        (message,) = poll(subscription, Message)
        until(lambda: subscription._consumer.group_metadata().state == "<unjoined>", 15)
        with pytest.raises(Stale) as refused:
            subscription.ack([message])
        assert refused.value.messages in ((), (message,))
        (revoked,) = poll(subscription, Revoked)
        assert revoked.lanes == {message.lane}
        with pytest.raises(Stale):
            subscription.nack([message])
        (again,) = poll(subscription, Message)
        assert again.body == b"1"
        assert again.generation > message.generation
        subscription.ack([again])


def poll(subscription: Any, kind: type, timeout: float = 15.0) -> Sequence[Any]:
    """What the first poll gives that gives something, which must all be of *kind*."""
    end = time.monotonic() + timeout
    while not (received := subscription.poll(10, 0.1)):
        assert time.monotonic() < end
    assert [type(each) for each in received] == [kind] * len(received)
    return list(received)
