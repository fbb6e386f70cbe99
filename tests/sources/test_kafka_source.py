"""What the Kafka source does beyond what all sources must: poison, where to begin, membership, rebalances."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import kafka as driver
import pytest
from brokers.forgotten import forgotten_sockets  # noqa: F401
from brokers.kafka_server import KafkaServer
from kafka.admin import KafkaAdminClient

from patron.consumer import Consumer
from patron.consumer.source import Message, Revoked, Subscription
from patron.errors import ConfigError, ConnectionLost, NotASource, PublishFailed
from patron.observe.metrics import exposition
from patron.slots import worker_slot
from patron.sources.kafka import KafkaSource
from patron.testing import driven, until

pytestmark = pytest.mark.broker

Make = Callable[..., KafkaSource]


@pytest.fixture
def make(real_kafka: KafkaServer) -> Make:
    """Settings for a new topic that is there."""

    def made(**settings: Any) -> KafkaSource:
        topic = f"patron-{uuid.uuid4().hex[:12]}"
        quick = {"heartbeat_interval": 0.1, "session_timeout": 6.0, "fetch_max_wait": 0.05, "partitions": 2}
        source = KafkaSource(topic, f"group-{topic}", brokers=real_kafka.url, create=True, **quick | settings)
        source.prepare([])
        return source

    return made


@contextlib.contextmanager
def producer(source: KafkaSource, **settings: Any) -> Iterator[Any]:
    made = driver.KafkaProducer(bootstrap_servers=source.brokers, max_request_size=20_000_000, **settings)
    try:
        yield made
    finally:
        made.close()


def publish(source: KafkaSource, *bodies: str, key: str | None = None) -> None:
    with contextlib.closing(source.publisher()) as publisher:
        for body in bodies:
            publisher.publish(source.target, body.encode(), key=key)


@contextlib.contextmanager
def opened(source: KafkaSource) -> Iterator[Any]:
    with contextlib.closing(source.open()) as subscription:
        yield subscription


def receive(subscription: Subscription, count: int, timeout: float = 15.0, limit: int = 100) -> list[Message]:
    received: list[Message] = []
    end = time.monotonic() + timeout
    while len(received) < count:
        assert time.monotonic() < end, f"received {len(received)} of {count}"
        received += messages(subscription.poll(limit, 0.1))
    return received


def messages(received: Sequence[Message | Revoked]) -> list[Message]:
    return [item for item in received if isinstance(item, Message)]


def assigned(subscription: Subscription, count: int, timeout: float = 15.0) -> None:
    end = time.monotonic() + timeout
    while subscription.stats().assigned != count:
        assert time.monotonic() < end, subscription.stats()
        assert not messages(subscription.poll(0, 0.05))


def committed(source: KafkaSource) -> int:
    """The sum of the offsets that the group has committed."""
    admin = KafkaAdminClient(bootstrap_servers=source.brokers)
    try:
        offsets = admin.list_group_offsets([source.group])[source.group]
    finally:
        admin.close()
    return sum(max(0, each.offset) for each in offsets.values())


# What cannot be read


def test_a_10_mb_message_is_read(make: Make) -> None:
    source = make()
    body = "x" * 10_000_000
    publish(source, body)
    with opened(source) as subscription:
        (message,) = receive(subscription, 1)
        assert message.body == body.encode()


def test_a_header_that_is_no_text_is_a_problem_and_the_message_after_it_is_none(make: Make) -> None:
    source = make(partitions=1)
    with producer(source) as kafka:
        kafka.send(source.target, b"1", headers=[("ok", b"yes"), ("bad", b"caf\xe9")])
        kafka.send(source.target, b"2", headers=[("ok", b"yes")])
    with opened(source) as subscription:
        first, second = receive(subscription, 2)
    assert first.problem == "header 'bad' is not UTF-8"
    assert first.headers == {"ok": "yes", "bad": "caf\\xe9"}
    assert (second.problem, second.headers) == (None, {"ok": "yes"})


def test_a_header_name_that_is_no_text_is_a_problem_of_its_own_message_only(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kafka.record.default_records import DefaultRecordBatchBuilder

    source = make(partitions=1)
    written = DefaultRecordBatchBuilder.append

    def spoilt(self: Any, offset: int, *record: Any, **rest: Any) -> Any:
        result = written(self, offset, *record, **rest)
        self._buffer[:] = self._buffer.replace(b"NAME", b"NAM\xff")
        return result

    with producer(source, linger_ms=200) as kafka:
        monkeypatch.setattr(DefaultRecordBatchBuilder, "append", spoilt)
        for name in ("fine", "NAME", "fine"):
            kafka.send(source.target, name.encode(), key=b"k", headers=[(name, b"value")])
        kafka.flush()
        monkeypatch.undo()
    with opened(source) as subscription:
        found = receive(subscription, 3)
    assert [message.body for message in found] == [b"fine", b"NAM\xff", b"fine"]
    assert [message.problem is None for message in found] == [True, False, True]
    assert dict(found[1].headers) == {"NAM\\xff": "value"}
    assert found[1].key == "k"
    assert [message.position for message in found] == [0, 1, 2]


def test_a_null_body_is_a_problem_unless_tombstones_are_wanted(make: Make) -> None:
    source = make(partitions=1)
    with producer(source) as kafka:
        kafka.send(source.target, None, key=b"k")
        kafka.send(source.target, b"", key=b"k", headers=[("empty", b"")])
    with opened(source) as subscription:
        null, empty = receive(subscription, 2)
    assert null.problem == "null body (a tombstone)"
    assert (null.body, empty.body, empty.problem) == (b"", b"", None)
    with opened(dataclasses.replace(source, tombstones=True)) as subscription:
        null, _ = receive(subscription, 2)
    assert (null.body, null.problem, null.raw.value) == (b"", None, None)


def test_a_key_that_is_no_text_comes_out_of_the_publisher_as_it_was(make: Make) -> None:
    source = make(partitions=1)
    with producer(source) as kafka:
        kafka.send(source.target, b"1", key=b"\x00\xff\xc3")
    with opened(source) as subscription:
        (message,) = receive(subscription, 1)
        publish(source, "2", key=message.key)
        (copy,) = receive(subscription, 1)
    assert copy.raw.key == b"\x00\xff\xc3"


def test_a_batch_of_unknown_compression_is_a_dead_letter_and_reading_goes_on(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    import kafka.codec

    source = make(partitions=1)
    letters = f"{source.target}.dlq"
    done: list[bytes] = []
    with producer(source, linger_ms=100, compression_type="lz4") as kafka:
        for number in range(3):
            kafka.send(source.target, b"packed " * 100, key=b"k")
    publish(source, "after", key="k")
    monkeypatch.setattr("kafka.codec.has_lz4", lambda: False)
    consumer = Consumer("test", source, lambda message: done.append(message.body), dead_letters=letters)
    with driven(consumer):
        until(lambda: done)
        until(lambda: committed(source) == 4)
    assert done == [b"after"]
    monkeypatch.undo()
    with contextlib.closing(source.letters(letters)) as shelf:
        (letter,) = receive(shelf, 1)
    assert "batch at offset 0 cannot be read" in letter.headers["x-patron-reason"]
    assert "lz4" in letter.headers["x-patron-reason"]
    assert b"packed" in letter.body


def test_only_what_was_committed_in_a_transaction_is_read_and_its_markers_are_no_backlog(make: Make) -> None:
    source = make(partitions=1, read_committed=True)
    with producer(source, transactional_id=f"tx-{source.target}") as kafka:
        kafka.init_transactions()
        for body, keep in ((b"aborted", False), (b"kept", True)):
            kafka.begin_transaction()
            kafka.send(source.target, body, partition=0).get(10)
            kafka.commit_transaction() if keep else kafka.abort_transaction()
    with opened(source) as subscription:
        (message,) = receive(subscription, 1)
        assert (message.body, message.position) == (b"kept", 2)
        assert subscription.stats().backlog
        subscription.ack([message])
        end = time.monotonic() + 15
        while subscription.stats().backlog or subscription.stats().lag:
            assert time.monotonic() < end, subscription.stats()
            assert not subscription.poll(10, 0.05)


def test_a_partition_whose_message_was_given_back_with_a_delay_waits_and_others_go_on(make: Make) -> None:
    source = make()
    with producer(source) as kafka:
        for partition in (0, 1):
            for number in range(3):
                kafka.send(source.target, b"%d" % number, partition=partition)
    with opened(source) as subscription:
        found = receive(subscription, 6)
        late = [message for message in found if message.lane[1] == 0]
        soon = [message for message in found if message.lane[1] == 1]
        given_back = time.monotonic()
        subscription.nack(late[1:], 1.0)
        subscription.nack(soon)
        again = receive(subscription, 3)
        assert {message.lane[1] for message in again} == {1}
        assert [message.deliveries for message in again] == [2, 2, 2]
        assert not messages(subscription.poll(10, 0.1))
        last = receive(subscription, 2)
        assert time.monotonic() - given_back >= 1.0
        assert [(m.lane[1], m.body, m.deliveries) for m in last] == [(0, b"1", 2), (0, b"2", 2)]


def test_how_far_it_is_behind_is_shown_by_partition(make: Make) -> None:
    source = make()
    with producer(source) as kafka:
        for partition, count in ((0, 3), (1, 5)):
            for _ in range(count):
                kafka.send(source.target, b"1", partition=partition)

    def shown() -> dict[str, float]:
        page = exposition()[0].decode()
        found = re.findall(rf'offset_diff{{group="{source.group}",.*partition="(.)",.*}} (\S+)', page)
        return {partition: float(value) for partition, value in found}

    with opened(source) as subscription:
        receive(subscription, 1)
        while subscription.stats().lag != 0:
            subscription.poll(3, 0.1)
        assert shown() == {"0": 0.0, "1": 0.0}
        with producer(source) as kafka:
            kafka.send(source.target, b"1", partition=1)
        until(lambda: (subscription.poll(0, 0.05), subscription.stats().lag, shown()["1"])[1:] == (1, 1.0))
    assert shown() == {"0": 0.0, "1": 0.0}


# Where a group begins


def test_a_group_begins_at_the_newest_and_does_not_lose_what_comes_before_its_first_commit(
    make: Make,
) -> None:
    source = make(start="newest")
    publish(source, "before")
    with opened(source) as subscription:
        assigned(subscription, 2)
        assert not messages(subscription.poll(10, 0.3))
    publish(source, "between")
    with opened(source) as subscription:
        assert [message.body for message in receive(subscription, 1)] == [b"between"]


@pytest.mark.parametrize("form", ["moment", "ago"])
def test_a_group_begins_at_a_time(make: Make, form: str) -> None:
    source = make()
    now = int(time.time())
    with producer(source) as kafka:
        for partition in (0, 1):
            for age in (7200, 1800):
                kafka.send(source.target, b"%d" % age, partition=partition, timestamp_ms=(now - age) * 1000)
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now - 3600))
    with opened(dataclasses.replace(source, start=moment if form == "moment" else "1h ago")) as subscription:
        assert [message.body for message in receive(subscription, 2)] == [b"1800", b"1800"]


def test_an_offset_that_is_no_longer_there_is_left_for_where_start_says(make: Make) -> None:
    source = make(partitions=1)
    publish(source, "0", "1", "2")
    with opened(source) as subscription:
        subscription.ack(receive(subscription, 3)[:1])
    admin = KafkaAdminClient(bootstrap_servers=source.brokers)
    admin.delete_records({driver.TopicPartition(source.target, 0): 2})
    admin.close()
    with opened(source) as subscription:
        assert [message.body for message in receive(subscription, 1)] == [b"2"]


# Membership


def test_a_missing_topic_is_named_with_the_way_to_make_it(make: Make) -> None:
    source = dataclasses.replace(make(), create=False)
    source.prepare([])
    with pytest.raises(
        NotASource, match=r"no topic nowhere\.dlq in Kafka: set create: true, or make it with"
    ):
        source.prepare(["nowhere.dlq"])


@pytest.mark.parametrize("name", ["kafka-python", "confluent"])
def test_publishing_to_a_topic_that_is_missing_says_at_once_what_to_do(make: Make, name: Any) -> None:
    source = dataclasses.replace(make(), create=False, driver=name)
    missing = f"{source.target}.elsewhere"
    advice = f"no topic {missing} in Kafka: set create: true, or make it with"
    with contextlib.closing(source.publisher()) as publisher:
        with pytest.raises(PublishFailed, match=advice):
            publisher.publish(missing, b"1")
        dataclasses.replace(source, create=True).prepare([missing])
        assert publisher.publish(missing, b"1").endswith(":0")


@pytest.mark.parametrize("name", ["kafka-python", "confluent"])
def test_letters_of_a_topic_that_is_missing_are_no_empty_list(make: Make, name: Any) -> None:
    source = dataclasses.replace(make(), driver=name)
    with pytest.raises(NotASource, match=rf"no topic {source.target}\.dlq in Kafka"):
        source.letters(f"{source.target}.dlq")


def test_a_broker_that_is_not_there_is_a_lost_connection_and_leaves_no_thread(make: Make) -> None:
    source = dataclasses.replace(make(), brokers="127.0.0.1:1", connect_timeout=0.3, create=False)
    for call in (source.open, lambda: source.prepare([]), lambda: source.letters("x")):
        with pytest.raises(ConnectionLost, match=r"no broker of 127\.0\.0\.1:1 answers.*refused"):
            call()
    with pytest.raises(PublishFailed, match="no broker"):
        source.publisher().publish("x", b"1")


def test_an_option_that_the_driver_does_not_know_is_a_mistake_of_the_settings(make: Make) -> None:
    with pytest.raises(ConfigError, match="no_such_option"):
        dataclasses.replace(make(), options={"no_such_option": 1}).open()


def test_several_topics_are_read_in_one_group(make: Make) -> None:
    one, other = make(partitions=1), make(partitions=1)
    both = dataclasses.replace(one, topic=(one.target, other.target))
    publish(one, "1")
    publish(other, "2")
    with opened(both) as subscription:
        found = {message.topic: message.body for message in receive(subscription, 2)}
    assert found == {one.target: b"1", other.target: b"2"}


def test_nobody_gets_the_partitions_of_a_static_member_that_is_away_for_a_moment(make: Make) -> None:
    source = make(group_instance_id="shop", session_timeout=20.0)
    with opened(source) as stays:
        with worker(1), opened(source) as goes:
            share(stays, goes, 1, 1)
        for _ in range(20):
            stays.poll(0, 0.05)
        assert stays.stats().assigned == 1
        with worker(1), opened(source) as back:
            share(stays, back, 1, 1, timeout=5.0)


def test_workers_are_static_members_of_different_names(make: Make) -> None:
    source = make(group_instance_id="shop")
    with opened(source) as first:
        assigned(first, 2)
        with worker(1), opened(source) as second:
            share(first, second, 1, 1)


def test_a_second_process_with_the_same_static_name_ends_the_first(make: Make) -> None:
    source = make(group_instance_id="shop")
    with opened(source) as first:
        assigned(first, 2)
        with opened(source) as second:
            assigned(second, 2)
            with pytest.raises(NotASource, match="another live process has the same group_instance_id"):
                first.poll(1, 15.0)


@contextlib.contextmanager
def worker(number: int) -> Iterator[None]:
    """As if the block ran in the worker of this *number*."""
    token = worker_slot.set(number)
    try:
        yield
    finally:
        worker_slot.reset(token)


def share(one: Subscription, other: Subscription, *counts: int, timeout: float = 15.0) -> None:
    """Poll both until they have so many partitions."""
    end = time.monotonic() + timeout
    while (one.stats().assigned, other.stats().assigned) != counts:
        assert time.monotonic() < end, (one.stats(), other.stats())
        one.poll(0, 0.02)
        other.poll(0, 0.02)


def test_partitions_take_turns_however_much_was_fetched_of_one(make: Make) -> None:
    source = make(partitions=8)
    with producer(source) as kafka:
        for number in range(400):
            kafka.send(source.target, b"%d" % number, partition=number % 8)
    with opened(source) as subscription:
        assigned(subscription, 8)
        seen: dict[Any, list[int]] = {}
        for count in (10, 20, 30, 40, 50):
            for message in receive(subscription, 80, limit=80):
                seen.setdefault(message.lane, []).append(int(message.body))
            assert {len(numbers) for numbers in seen.values()} == {count}
    assert all(numbers == sorted(set(numbers)) for numbers in seen.values())
