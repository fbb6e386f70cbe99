"""The driver confluent does what the tests of the Kafka source ask for, and a few things of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import confluent_kafka
import pytest
from brokers.kafka_server import KafkaServer
from brokers.processes import Server
from brokers.tcp_proxy import Proxy
from confluent_kafka import KafkaError
from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient
from sources.test_kafka_source import (  # noqa: F401 - the same tests, with the `make` of this module
    Make,
    assigned,
    committed,
    forgotten_sockets,
    messages,
    opened,
    producer,
    publish,
    receive,
    share,
    test_a_10_mb_message_is_read,
    test_a_broker_that_is_not_there_is_a_lost_connection_and_leaves_no_thread,
    test_a_group_begins_at_a_time,
    test_a_group_begins_at_the_newest_and_does_not_lose_what_comes_before_its_first_commit,
    test_a_header_that_is_no_text_is_a_problem_and_the_message_after_it_is_none,
    test_a_missing_topic_is_named_with_the_way_to_make_it,
    test_a_second_process_with_the_same_static_name_ends_the_first,
    test_an_offset_that_is_no_longer_there_is_left_for_where_start_says,
    test_an_option_that_the_driver_does_not_know_is_a_mistake_of_the_settings,
    test_nobody_gets_the_partitions_of_a_static_member_that_is_away_for_a_moment,
    test_several_topics_are_read_in_one_group,
    test_workers_are_static_members_of_different_names,
)

from patron.consumer.source import Message, Revoked
from patron.errors import ConnectionLost, NotASource, SourceError, Stale
from patron.observe import capture
from patron.sources import _kafka_confluent_commits
from patron.sources._kafka_confluent_library import Health, translation
from patron.sources._kafka_confluent_message import message_of
from patron.sources._kafka_confluent_subscription import ConfluentSubscription
from patron.sources._kafka_lanes import Partition
from patron.sources._kafka_messages import message as slow_message
from patron.sources.kafka import KafkaSource
from patron.testing import until


@pytest.fixture
def make(real_kafka: KafkaServer) -> Make:
    """Settings for a new topic that is there."""

    def made(**settings: Any) -> KafkaSource:
        topic = f"patron-{uuid.uuid4().hex[:12]}"
        quick = {"heartbeat_interval": 0.1, "session_timeout": 6.0, "fetch_max_wait": 0.05, "partitions": 2}
        given = {"brokers": real_kafka.url, "driver": "confluent", "create": True, **quick, **settings}
        source = KafkaSource(topic, f"group-{topic}", **given)
        source.prepare([])
        return source

    return made


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
    assert (null.body, null.problem, null.raw.value()) == (b"", None, None)


def test_a_key_that_is_no_text_comes_out_of_the_publisher_as_it_was(make: Make) -> None:
    source = make(partitions=1)
    with producer(source) as kafka:
        kafka.send(source.target, b"1", key=b"\x00\xff\xc3")
    with opened(source) as subscription:
        (message,) = receive(subscription, 1)
        publish(source, "2", key=message.key)
        (copy,) = receive(subscription, 1)
    assert copy.raw.key() == b"\x00\xff\xc3"


# Messages


def test_a_header_name_that_is_no_text_is_a_problem_of_its_own_message_and_crashes_nothing(
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
        for number in range(100):  # the interpreter specializes what it does often
            kafka.send(
                source.target, b"fine", key=b"k", headers=[("NAME" if number % 50 == 49 else "name", b"v")]
            )
        kafka.flush()
        monkeypatch.undo()
    with opened(source) as subscription:
        found = receive(subscription, 100)
    spoiled = [message for message in found if message.problem]
    assert [message.position for message in spoiled] == [49, 99]
    assert {message.problem for message in spoiled} == {"the name of a header is not UTF-8"}
    assert [bool(message.raw.headers()) for message in spoiled] == [
        False,
        False,
    ]  # nor will a processor's look crash
    assert [message.position for message in found] == list(range(100))


@given(
    key=st.none() | st.binary(max_size=8),
    value=st.none() | st.binary(max_size=8),
    headers=st.none()
    | st.lists(st.tuples(st.text(max_size=3), st.none() | st.binary(max_size=4)), max_size=4),
    timestamp=st.sampled_from([(0, 0), (1, 12345), (2, 1), (1, -1)]),
    tombstones=st.booleans(),
)
def test_a_quick_message_is_the_same_as_a_slow_one(
    key: bytes | None, value: bytes | None, headers: Any, timestamp: tuple[int, int], tombstones: bool
) -> None:
    record = confluent_kafka.Message(
        topic="orders", partition=3, offset=7, key=key, value=value, headers=headers, timestamp=timestamp
    )
    lane = Partition("orders", 3)
    quick = message_of(record, lane, 7, 5, 2, tombstones)
    slow = slow_message(
        "orders",
        3,
        7,
        key,
        value,
        headers,
        timestamp[1] if timestamp[0] else None,
        record,
        lane=lane,
        generation=5,
        deliveries=2,
        tombstones=tombstones,
    )
    for field in dataclasses.fields(Message):
        assert getattr(quick, field.name) == getattr(slow, field.name), field.name
    copy = dataclasses.replace(quick, body=b"other", id="4")
    assert (copy.body, copy.id, copy.key, str(copy)) == (b"other", "4", slow.key, "orders/4")


def test_a_record_that_the_library_cannot_read_becomes_a_message_with_a_problem(make: Make) -> None:
    source = make(partitions=1)
    with opened(source) as subscription:
        assigned(subscription, 1)
        record = confluent_kafka.Message(
            topic=source.target, partition=0, offset=4, error=KafkaError(KafkaError._BAD_COMPRESSION)
        )
        subscription._turns._put([record])
        (message,) = receive(subscription, 1)
        assert message.problem is not None
        assert message.problem.startswith("unreadable record: ")
        assert (message.position, message.lane, message.body) == (4, (source.target, 0), b"")


def test_what_came_together_with_the_news_that_a_partition_must_begin_again_comes_once(make: Make) -> None:
    source = make(assignment="eager")
    with producer(source) as kafka:
        for number in range(20):
            kafka.send(source.target, b"%d" % number, partition=1)
    with opened(source) as subscription:
        assigned(subscription, 2)
        until(lambda: (subscription._fetch(100, 0.1), subscription._turns.count >= 20)[1], 20)
        news = confluent_kafka.Message(
            topic=source.target, partition=0, offset=7, error=KafkaError(KafkaError.OFFSET_OUT_OF_RANGE)
        )
        subscription._turns._put([news])
        publish(source, *map(str, range(4)))
        received = receive(subscription, 24, limit=8)
        got = [(m.lane[1], m.position) for m in received]
        assert [offset for lane, offset in got if lane == 1][:20] == list(range(20))
        assert len(set(got)) == len(got) == 24
        assert not messages(subscription.poll(8, 0.1))


def test_an_eager_member_goes_on_with_its_other_partitions_where_it_was(make: Make) -> None:
    source = make(assignment="eager")
    with producer(source) as kafka:
        for number in range(200):
            kafka.send(source.target, b"%d" % number, partition=number % 2)
    with opened(source) as subscription:
        subscription.ack([m for m in receive(subscription, 200) if m.lane == (source.target, 0)][:1])
    delete_records(source, 0, 50)
    with opened(source) as subscription:
        received = receive(subscription, 150)
        assert [m.position for m in received if m.lane[1] == 0] == list(range(50, 100))
        assert [m.position for m in received if m.lane[1] == 1] == list(range(100))


def delete_records(source: KafkaSource, partition: int, before: int) -> None:
    admin = KafkaAdminClient(bootstrap_servers=source.brokers)
    admin.delete_records({TopicPartition(source.target, partition): before})
    admin.close()


# Giving back, and keeping alive


def test_what_is_given_back_with_a_delay_comes_in_order_after_it_and_holds_up_no_other_lane(
    make: Make,
) -> None:
    source = make()
    with producer(source) as kafka:
        for number in range(400):
            kafka.send(source.target, b"%d" % (number // 2), partition=number % 2)
    with opened(source) as subscription:
        received = receive(subscription, 400)
        lanes = {lane: [m for m in received if m.lane == lane] for lane in {m.lane for m in received}}
        late, soon = lanes.values()
        began = time.monotonic()
        subscription.nack(late[100:], delay=0.5)
        subscription.nack(soon[150:])
        first = receive(subscription, 50)
        assert [m.position for m in first] == list(range(150, 200))
        again = receive(subscription, 100)
        assert time.monotonic() - began >= 0.5
        assert [m.position for m in again] == list(range(100, 200))
        assert {m.deliveries for m in again} == {2}
        subscription.ack(again)


def test_with_no_room_for_long_nothing_is_lost_and_nothing_comes_twice(make: Make) -> None:
    source = make()
    with producer(source) as kafka:
        for number in range(1000):
            kafka.send(source.target, b"%d" % number, partition=number % 2)
    with opened(source) as subscription:
        received = receive(subscription, 1)
        for _ in range(10):
            assert not subscription.poll(0, 0.02)
        while len(received) < 1000:
            received += messages(subscription.poll(7, 5.0))
            subscription.poll(0, 0.0)
        assert subscription._turns.count == 0
    assert sorted(int(m.body) for m in received) == list(range(1000))
    for number in (0, 1):
        positions = [m.position for m in received if m.lane == (source.target, number)]
        assert positions == list(range(500))


def test_a_partition_that_was_lost_while_it_was_held_back_is_read_when_it_comes_again(make: Make) -> None:
    source = make()
    publish(source, "1")
    with opened(source) as subscription:
        (message,) = receive(subscription, 1)
        subscription.nack([message], delay=600.0)
        lost = [confluent_kafka.TopicPartition(*message.lane)]
        subscription._lost(subscription._consumer, lost)
        subscription._assigned(subscription._consumer, lost)
        assert [each.body for each in receive(subscription, 1)] == [b"1"]


def test_polls_without_room_keep_the_membership_and_without_any_it_is_lost(make: Make) -> None:
    source = make(session_timeout=1.0, heartbeat_interval=0.2, max_poll_interval=1.0)
    publish(source, "1")
    with opened(source) as subscription:
        (message,) = receive(subscription, 1)
        for _ in range(20):
            assert not subscription.poll(0, 0.1)
        with contextlib.closing(source.open()) as other:
            end = time.monotonic() + 20
            while other.stats().assigned < 2:  # the first one does not poll any more
                assert time.monotonic() < end
                other.poll(0, 0.1)
            subscription.ack([message])  # it does not know yet
        gone: set[Any] = set()
        while len(gone) < 2:
            gone.update(*(each.lanes for each in subscription.poll(0, 5.0) if isinstance(each, Revoked)))
        with pytest.raises(Stale):
            subscription.ack([message])


def test_the_end_of_a_transaction_is_not_taken_for_a_message_that_waits(make: Make) -> None:
    source = make(partitions=1, read_committed=True)
    with producer(source, transactional_id=f"t-{uuid.uuid4().hex[:8]}") as kafka:
        kafka.init_transactions()
        for outcome in (kafka.commit_transaction, kafka.abort_transaction):
            kafka.begin_transaction()
            kafka.send(source.target, outcome.__name__.encode()).get(timeout=10)
            outcome()
    with opened(source) as subscription:
        found = receive(subscription, 1)
        assert [m.body for m in found] == [b"commit_transaction"]
        assert subscription.stats().backlog != 0
        subscription.ack(found)
        end = time.monotonic() + 15
        while (subscription.stats().lag, subscription.stats().backlog) != (0, 0):
            assert time.monotonic() < end, subscription.stats()
            assert not messages(subscription.poll(10, 0.1))


# Connections


def through(source: KafkaSource, proxy: Proxy, **settings: Any) -> KafkaSource:
    return dataclasses.replace(source, brokers=proxy.url, request_timeout=2.0, **settings)


def test_a_broken_connection_is_mended_by_the_library(
    make: Make, real_kafka: KafkaServer, proxy: Callable[[Server], Proxy]
) -> None:
    direct = make()
    network = proxy(real_kafka)
    publish(direct, "1")
    with opened(through(direct, network)) as subscription:
        subscription.ack(receive(subscription, 1))
        network.cut()
        publish(direct, "2")
        assert [m.body for m in receive(subscription, 1)] == [b"2"]


def test_brokers_that_are_away_for_long_are_a_lost_connection(
    make: Make, real_kafka: KafkaServer, proxy: Callable[[Server], Proxy]
) -> None:
    direct = make()
    network = proxy(real_kafka)
    with opened(through(direct, network, lost_after=0.5)) as subscription:
        assigned(subscription, 2)
        network.refuse()
        with pytest.raises(ConnectionLost, match="no broker could be reached"):
            until(lambda: subscription.poll(1, 0.1), 20)
        network.accept()


# Committing


def test_a_commit_that_was_refused_goes_with_the_next_and_is_told_when_that_lasts(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make(partitions=1)
    publish(source, *map(str, range(10)))
    with opened(source) as subscription:
        received = receive(subscription, 10)
        made: list[int] = []
        client = subscription._consumer
        subscription._consumer = Spied(client, made, silent=True)
        subscription.ack(received[:3])
        subscription._commits.answered(KafkaError(KafkaError.REBALANCE_IN_PROGRESS), [])
        subscription.ack(received[3:4])
        until(lambda: (subscription.poll(0, 0.01), made == [3, 4])[1])
        subscription._commits.answered(KafkaError(KafkaError.ILLEGAL_GENERATION), [])
        monkeypatch.setattr(_kafka_confluent_commits, "_PATIENCE", 0.0)
        with pytest.raises(SourceError, match="cannot commit"):
            subscription.ack(received[4:])
        subscription._consumer = client
        # The broker has the commit a moment before its answer is here.
        until(lambda: (subscription.poll(0, 0.01), subscription._commits._failing is None)[1], 20)
        assert committed(source) == 4
        subscription.ack(received[4:])
    assert committed(source) == 10


def test_a_member_that_may_not_commit_is_told_so_at_its_next_poll(make: Make) -> None:
    source = make(partitions=1)
    publish(source, "1")
    with opened(source) as subscription:
        received = receive(subscription, 1)
        subscription._consumer = Spied(subscription._consumer, [], silent=True)
        subscription.ack(received)
        subscription._commits.answered(KafkaError(KafkaError.FENCED_INSTANCE_ID), [])
        with pytest.raises(NotASource):
            subscription.poll(0, 0.0)


def test_what_is_acknowledged_is_committed_while_there_is_nothing_to_read_and_at_the_end(make: Make) -> None:
    source = make(partitions=1)
    publish(source, *map(str, range(10)))
    with opened(source) as subscription:
        received = receive(subscription, 10)
        for message in received[:5]:
            subscription.ack([message])
        subscription.poll(10, 0.3)
        assert committed(source) == 5
        for message in received[5:]:
            subscription.ack([message])
    assert committed(source) == 10


def test_offsets_are_committed_together_and_never_backwards(make: Make) -> None:
    source = make(partitions=1)
    with producer(source) as kafka:
        for number in range(500):
            kafka.send(source.target, b"%d" % number)
    with opened(source) as subscription:
        made: list[int] = []
        client = Spied(subscription._consumer, made)
        subscription._consumer = client
        for message in receive(subscription, 500):
            subscription.ack([message])
            subscription.poll(0, 0.0)
    assert made == sorted(made)
    assert made[-1] == 500
    assert len(made) < 100


class Spied:
    """A consumer that notes the offsets of its commits; a *silent* one makes none."""

    def __init__(self, client: Any, offsets: list[int], *, silent: bool = False) -> None:
        self._client = client
        self._silent = silent
        self._offsets = offsets

    def commit(self, offsets: Any, asynchronous: bool) -> Any:
        self._offsets += [each.offset for each in offsets]
        return None if self._silent else self._client.commit(offsets=offsets, asynchronous=asynchronous)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def test_closing_is_bounded_when_a_commit_is_never_answered(
    make: Make, real_kafka: KafkaServer, proxy: Callable[[Server], Proxy]
) -> None:
    direct = make(partitions=1)
    network = proxy(real_kafka)
    publish(direct, "1")
    with opened(dataclasses.replace(direct, brokers=network.url)) as subscription:
        received = receive(subscription, 1)
        network.hole()
        subscription.ack(received)
        began = time.monotonic()
        subscription.close()
        assert time.monotonic() - began < 15  # request_timeout is 30
        network.heal()
        until(lambda: not any(t.name == "patron-kafka-leave" for t in threading.enumerate()), 60)


# What the library says


def test_what_the_library_says_is_told_seldom_and_without_secrets() -> None:
    source = KafkaSource(
        "orders",
        "shop",
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="PLAIN",
        sasl_username="shop",
        sasl_password="s3cr3t",
    )
    health = Health(source)
    with capture() as seen:
        for _ in range(100):
            health.log(40, "%s [%s] %s", "FAIL", "rdkafka#consumer-1", "refused with s3cr3t")
    (line,) = [line for line in seen.lines if "Kafka client" in line.values()]
    assert line["line"] == "FAIL [rdkafka#consumer-1] refused with ***"
    health.error(KafkaError(KafkaError._TRANSPORT, "broken at s3cr3t"))
    health.error(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    assert (health.failure, health.said) == (None, "broken at ***")
    assert health.down is not None


@pytest.mark.parametrize(
    ("code", "fatal", "kind"),
    [
        (KafkaError._AUTHENTICATION, False, NotASource),
        (KafkaError._FATAL, True, NotASource),
        (KafkaError.FENCED_INSTANCE_ID, True, NotASource),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, False, NotASource),
        (KafkaError.ILLEGAL_GENERATION, False, Stale),
        (KafkaError.UNKNOWN_MEMBER_ID, False, Stale),
        (KafkaError._ASSIGNMENT_LOST, False, Stale),
        (KafkaError.REBALANCE_IN_PROGRESS, False, SourceError),
        (KafkaError._TIMED_OUT, False, SourceError),
        (KafkaError._TRANSPORT, False, SourceError),
    ],
)
def test_the_type_of_an_error_says_what_to_do(code: int, fatal: bool, kind: type[Exception]) -> None:
    assert type(translation(KafkaError(code, "why", fatal), "doing")) is kind


def test_a_subscription_of_this_driver_is_what_the_settings_ask_for(make: Make) -> None:
    with opened(make()) as subscription:
        assert isinstance(subscription, ConfluentSubscription)
