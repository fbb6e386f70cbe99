"""The Kafka producer on a real broker: what is on the wire, what is counted, and what happens when it fails."""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import kafka
import pytest
from brokers.kafka_server import KafkaServer
from brokers.processes import Server
from brokers.tcp_proxy import Proxy
from kafka.admin import KafkaAdminClient, NewTopic

from patron import correlation, observe
from patron.clients._kafka_delivery import Connection, Delivery, Done, Record, Unconfirmed
from patron.clients._kafka_python import KafkaPythonDriver
from patron.clients.kafka import METRICS, KafkaMessage, KafkaProducer
from patron.errors import BatchFailed, ConfigError, DeadlineExceeded, EncodeError, PublishFailed
from patron.observe import capture, operation
from patron.reliability import deadline
from patron.testing import until

DRIVERS = ("kafka-python", "confluent")
PARTITIONS = 7


@pytest.fixture(scope="module")
def topic(kafka: KafkaServer) -> str:
    """One topic for all tests here; each looks for its own messages."""
    name = f"producer-{uuid.uuid4().hex[:12]}"
    admin = KafkaAdminClient(bootstrap_servers=kafka.url)
    admin.create_topics([NewTopic(name=name, num_partitions=PARTITIONS, replication_factor=1)])
    admin.wait_for_topics([name])
    admin.close()
    return name


@pytest.fixture(params=DRIVERS)
def producer(request: pytest.FixtureRequest, kafka: KafkaServer) -> Iterator[KafkaProducer]:
    with KafkaProducer(kafka.url, driver=request.param, timeout=20) as made:
        yield made


@pytest.fixture
def mark() -> str:
    """What is in the key of every message of one test."""
    return uuid.uuid4().hex[:12]


def read(server: KafkaServer, topic: str, mark: str, count: int) -> list[Any]:
    """*count* records of *topic* with *mark* in their key, as a bare consumer sees them."""
    consumer = kafka.KafkaConsumer(
        topic, bootstrap_servers=server.url, auto_offset_reset="earliest", enable_auto_commit=False
    )
    found: list[Any] = []
    try:

        def enough() -> bool:
            for records in consumer.poll(200).values():
                found.extend(record for record in records if mark.encode() in (record.key or b""))
            return len(found) >= count

        until(enough, 20)
    finally:
        consumer.close()
    return found


def test_a_message_is_on_the_wire_as_the_go_original_writes_it(
    kafka: KafkaServer, topic: str, producer: KafkaProducer, mark: str
) -> None:
    with operation("server", "http", "/orders", {"x-correlation-id": "flow-1"}) as outer:
        confirmed = producer.send(topic, {"sku": "A1"}, key=mark, headers={"tenant": "t1"}, timestamp=12.5)
    (record,) = read(kafka, topic, mark, 1)
    headers = dict(record.headers)
    assert record.value == b'{"sku":"A1"}'
    assert (record.key, record.timestamp) == (mark.encode(), 12500)
    assert sorted(headers) == ["Content-Type", "X-Correlation-Id", "tenant", "uber-trace-id"]
    assert headers["Content-Type"] == b"application/json"
    assert headers["X-Correlation-Id"] == b"flow-1"
    trace_id, span_id, parent_id, _ = headers["uber-trace-id"].decode().split(":")
    assert (trace_id, parent_id) == (f"{outer.context.trace_id:016x}", f"{outer.context.span_id:016x}")
    assert span_id != parent_id
    assert (confirmed.topic, confirmed.partition, confirmed.offset) == (
        topic,
        record.partition,
        record.offset,
    )
    assert confirmed.timestamp == 12.5


def test_without_an_operation_around_it_a_message_begins_a_correlation(
    kafka: KafkaServer, topic: str, producer: KafkaProducer, mark: str
) -> None:
    producer.send(topic, b"raw", key=mark.encode(), content_type="text/plain")
    (record,) = read(kafka, topic, mark, 1)
    headers = dict(record.headers)
    assert (record.value, headers["Content-Type"]) == (b"raw", b"text/plain")
    assert correlation.accept(headers["X-Correlation-Id"].decode()) == headers["X-Correlation-Id"].decode()
    assert "uber-trace-id" in headers


def test_no_payload_deletes_its_key_and_needs_one(
    kafka: KafkaServer, topic: str, producer: KafkaProducer, mark: str
) -> None:
    producer.send(topic, None, key=mark)
    assert [record.value for record in read(kafka, topic, mark, 1)] == [None]
    with pytest.raises(EncodeError, match="has no key"):
        producer.send(topic, None)


# Partitions that Java's and Sarama's own hash functions give for seven partitions.
JAVA = {"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536}
SARAMA = {"b": 0xE70C2DE5, "a": 0xE40C292C, "foobar": 0xBF9CF968}


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("partitioner", ["murmur2", "fnv1a"])
def test_keys_land_where_java_and_sarama_put_them(
    kafka: KafkaServer, topic: str, driver: Any, partitioner: Any
) -> None:
    java = {key: (number & 0x7FFFFFFF) % PARTITIONS for key, number in JAVA.items()}
    sarama = {key: abs(number - (1 << 32)) % PARTITIONS for key, number in SARAMA.items()}
    expected = java if partitioner == "murmur2" else sarama
    with KafkaProducer(kafka.url, driver=driver, partitioner=partitioner) as producer:
        got = {key: producer.send(topic, b"", key=key).partition for key in expected}
    assert got == expected


def test_a_key_and_headers_that_are_no_text_go_on_as_a_source_reads_them(
    kafka: KafkaServer, topic: str, producer: KafkaProducer, mark: str
) -> None:
    key = b"\x00\xff\xc3" + mark.encode()
    producer.send(topic, 1, key=key.decode("utf-8", "surrogateescape"), headers={"name": "\ud800"})
    (record,) = read(kafka, topic, mark, 1)
    assert (record.key, dict(record.headers)["name"]) == (key, b"\\ud800")
    with pytest.raises(EncodeError, match="key"):
        producer.send(topic, 1, key="\ud800")


def test_a_partition_can_be_chosen(topic: str, producer: KafkaProducer) -> None:
    assert [producer.send(topic, b"", partition=number).partition for number in range(3)] == [0, 1, 2]


def test_a_batch_is_confirmed_in_its_order(
    kafka: KafkaServer, topic: str, producer: KafkaProducer, mark: str
) -> None:
    messages = [KafkaMessage(topic, {"number": number}, key=f"{mark}-{number}") for number in range(30)]
    confirmed = producer.send_batch(messages)
    records = {(record.partition, record.offset): record for record in read(kafka, topic, mark, 30)}
    keys = [records[each.partition, each.offset].key.decode() for each in confirmed]  # type: ignore[index]
    assert keys == [message.key for message in messages]


def test_a_failure_within_a_batch_tells_which_and_stops_no_other(
    kafka: KafkaServer, topic: str, producer: KafkaProducer, mark: str
) -> None:
    messages = [
        KafkaMessage(topic, 1, key=f"{mark}-0"),
        KafkaMessage(topic, object(), key=f"{mark}-1"),
        KafkaMessage(topic, 2, key=f"{mark}-2"),
    ]
    with pytest.raises(BatchFailed, match="1 of 3") as caught:
        producer.send_batch(messages)
    first, second, third = caught.value.outcomes
    assert (first.topic, third.topic, type(second)) == (topic, topic, EncodeError)
    assert len(read(kafka, topic, mark, 2)) == 2


def counted(topic: str) -> Mapping[tuple[str, str], float]:
    """The counter of *topic* by type and status."""
    statuses = ("sent", "send-errors", "creation-errors")
    values = {
        (kind, status): METRICS[0].bind(status=status, topic=topic, type=kind)._value.get()
        for kind in ("sync", "async")
        for status in statuses
    }
    return {key: value for key, value in values.items() if value}


def test_what_is_sent_is_counted_once_it_is_confirmed(topic: str, producer: KafkaProducer) -> None:
    before = counted(topic)
    producer.send(topic, b"")
    producer.send_async(topic, b"").result(20)
    with pytest.raises(EncodeError):
        producer.send_async(topic, object())
    after = counted(topic)
    grown = {key: value - before.get(key, 0) for key, value in after.items() if value != before.get(key, 0)}
    assert grown == {("sync", "sent"): 1, ("async", "sent"): 1, ("async", "creation-errors"): 1}


def test_spans_have_the_names_and_tags_of_the_go_original(topic: str, producer: KafkaProducer) -> None:
    with capture() as seen, operation("internal", "test", "outer") as outer:
        producer.send(topic, b"")
        producer.send_async(topic, b"").result(20)
    spans = {span.name: span for span in seen.spans if span.name.startswith("kafka")}
    assert sorted(spans) == [f"kafka-async-producer {topic}", f"kafka-sync-producer {topic}"]
    for kind in ("sync", "async"):
        tags = spans[f"kafka-{kind}-producer {topic}"].tags
        assert {
            "span.kind": "producer",
            "type": kind,
            "topic": topic,
            "component": f"kafka-{kind}-producer",
        }.items() <= tags.items()
    assert all(span.context.trace_id == outer.context.trace_id for span in spans.values())


def test_a_callback_runs_with_the_correlation_and_span_of_its_sender(
    topic: str, producer: KafkaProducer
) -> None:
    seen: list[tuple[str | None, int | None, int]] = []
    done = threading.Event()

    def confirmed(future: Any) -> None:
        current = observe.current_operation()
        seen.append(
            (
                correlation.current(),
                current.context.trace_id if current else None,
                threading.get_ident(),
            )
        )
        done.set()

    with operation("server", "http", "/", {"x-correlation-id": "flow-7"}) as outer:
        producer.send_async(topic, b"").add_done_callback(confirmed)
    assert done.wait(20)
    assert seen[0][:2] == ("flow-7", outer.context.trace_id)
    assert correlation.current() is None


def test_a_future_cannot_be_cancelled_for_the_message_is_on_its_way(
    topic: str, producer: KafkaProducer
) -> None:
    future = producer.send_async(topic, b"")
    assert not future.cancel()
    assert future.result(20).topic == topic


def test_flush_returns_when_everything_is_confirmed(topic: str, producer: KafkaProducer) -> None:
    futures = [producer.send_async(topic, b"x" * 100) for _ in range(300)]
    producer.flush()
    assert all(future.done() and future.exception() is None for future in futures)


def test_close_flushes_and_then_nothing_can_be_sent(topic: str, producer: KafkaProducer) -> None:
    futures = [producer.send_async(topic, b"x" * 100) for _ in range(300)]
    producer.close()
    producer.close()
    assert all(future.done() and future.exception() is None for future in futures)
    with pytest.raises(PublishFailed, match="is closed"):
        producer.send(topic, b"")


def test_threads_share_one_producer(
    kafka: KafkaServer, topic: str, producer: KafkaProducer, mark: str
) -> None:
    def send(name: int) -> None:
        for number in range(20):
            producer.send(topic, b"", key=f"{mark}-{name}-{number}")

    threads = [threading.Thread(target=send, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({record.key for record in read(kafka, topic, mark, 80)}) == 80


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_forked_child_sends_over_a_connection_of_its_own(
    kafka: KafkaServer, topic: str, mark: str, driver: Any
) -> None:
    with KafkaProducer(kafka.url, driver=driver) as producer:
        producer.send(topic, b"", key=f"{mark}-parent")
        child = os.fork()
        if child == 0:
            try:
                producer.send(topic, b"", key=f"{mark}-child")
                producer.close()
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        producer.send(topic, b"", key=f"{mark}-parent-again")
    assert len(read(kafka, topic, mark, 3)) == 3


# ------------------------------------------------------------------ failures


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of something that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("driver", DRIVERS)
def test_without_a_broker_a_message_fails_within_its_time(silent: str, driver: Any) -> None:
    with KafkaProducer(silent, driver=driver, timeout=0.5) as producer, capture() as seen:
        with pytest.raises(PublishFailed, match="no Kafka broker answered"):
            producer.send("orders", b"")
        with pytest.raises(PublishFailed, match="no Kafka broker answered"):
            producer.send_async("orders", b"")
    assert [each.outcome for each in seen.operations] == ["send-errors", "send-errors"]


@pytest.mark.parametrize("driver", DRIVERS)
def test_after_its_deadline_a_message_is_not_sent(silent: str, driver: Any) -> None:
    with KafkaProducer(silent, driver=driver) as producer, deadline(0):
        with pytest.raises(DeadlineExceeded):
            producer.send("orders", b"")
        with pytest.raises(DeadlineExceeded):
            producer.send_batch([KafkaMessage("orders", b"")])


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_message_to_a_topic_that_is_not_there_fails_within_the_deadline(
    real_kafka: KafkaServer, driver: Any
) -> None:
    with KafkaProducer(real_kafka.url, driver=driver, timeout=3) as producer, capture() as seen:
        with deadline(1), pytest.raises(PublishFailed, match=r"missing-.*"):
            producer.send(f"missing-{uuid.uuid4().hex[:8]}", b"")
        assert seen.operations[-1].seconds < 2.5


@pytest.fixture(params=DRIVERS)
def behind(
    request: pytest.FixtureRequest, real_kafka: KafkaServer, topic: str, proxy: Callable[[Server], Proxy]
) -> Iterator[tuple[KafkaProducer, Proxy]]:
    """A producer that has sent its first message through a proxy, and the proxy."""
    through = proxy(real_kafka)
    made = KafkaProducer(through.url, driver=request.param, timeout=3.0, max_unconfirmed=5)
    try:
        made.send(topic, b"")
        yield made, through
    finally:
        through.heal()
        made.close()


def test_what_is_never_confirmed_fails_in_time_and_is_logged_and_counted_without_a_reader(
    behind: tuple[KafkaProducer, Proxy], topic: str
) -> None:
    producer, through = behind
    before = counted(topic).get(("async", "send-errors"), 0)
    with capture() as seen:
        through.hole()
        for partition in range(
            3
        ):  # after the first one kafka-python waits for a broker to give up the others
            producer.send_async(topic, b"", partition=partition)
        until(lambda: counted(topic).get(("async", "send-errors"), 0) == before + 3, 20)
        until(lambda: [line for line in seen.lines if "message not delivered" in line.values()])


class Forgetful:
    """A driver that takes messages and never says another word."""

    def append(self, record: Record, done: Done, timeout: float) -> None: ...

    def flush(self, timeout: float) -> None: ...

    def close(self, timeout: float) -> None: ...


def test_what_the_driver_forgets_fails_in_its_time_and_makes_room() -> None:
    unconfirmed = Unconfirmed(1, 1000)
    connection = Connection(Forgetful(), unconfirmed, timeout=0.2)
    delivery = unsettled()
    connection.append(Record("orders", b"", None, [], None, None), delivery, 1.0)
    with pytest.raises(PublishFailed, match="it may still arrive"):
        delivery.result(20)
    until(lambda: unconfirmed.wait(0) == 0)
    assert connection.close(1.0) == 0


def unsettled() -> Delivery:
    started = operation("producer", "kafka", "orders")
    started.detach()  # its delivery ends it, in another thread
    return Delivery(started)


def test_what_waits_for_room_while_the_producer_is_closed_is_told_so() -> None:
    class Slow(Forgetful):
        def close(self, timeout: float) -> None:
            until(lambda: told)

    told: list[str] = []
    record = Record("orders", b"x", None, [], None, None)
    connection = Connection(Slow(), Unconfirmed(1, 1000), 30)
    connection.append(record, first := unsettled(), 1.0)

    def waits() -> None:
        with pytest.raises(PublishFailed) as refused:
            connection.append(record, unsettled(), 30.0)
        told.append(str(refused.value))

    waiting = threading.Thread(target=waits)
    waiting.start()
    assert connection.close(1.0) == 1
    waiting.join(10)
    assert "closed" in told[0]
    assert isinstance(first.exception(0), PublishFailed)


def test_a_full_producer_fails_instead_of_growing(behind: tuple[KafkaProducer, Proxy], topic: str) -> None:
    producer, through = behind
    through.hole()
    for _ in range(5):
        producer.send_async(topic, b"")
    with deadline(0.2), pytest.raises(PublishFailed, match=r"5 messages .* this one was not sent"):
        producer.send_async(topic, b"")


def test_a_flush_and_a_send_that_take_too_long_say_so(
    behind: tuple[KafkaProducer, Proxy], topic: str
) -> None:
    producer, through = behind
    through.hole()
    with deadline(0.3), pytest.raises(PublishFailed, match="it may still arrive"):
        producer.send(topic, b"")
    with pytest.raises(PublishFailed, match="1 messages were not confirmed"):
        producer.flush(0.1)


def test_after_a_broken_connection_it_goes_on_by_itself(
    behind: tuple[KafkaProducer, Proxy], topic: str
) -> None:
    producer, through = behind
    through.cut()
    assert producer.send(topic, b"").topic == topic


def test_a_broker_that_was_away_for_long_is_tried_every_two_seconds(
    kafka: KafkaServer, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    made = KafkaPythonDriver.__init__

    def kept(driver: KafkaPythonDriver, config: Mapping[str, Any], timeout: float) -> None:
        made(driver, config, timeout)
        opened.append(driver)

    monkeypatch.setattr(KafkaPythonDriver, "__init__", kept)
    with KafkaProducer(kafka.url, timeout=20) as producer:
        producer.send(topic, b"")
        assert opened[0]._producer.config["reconnect_backoff_max_ms"] == 2000


def test_what_is_unconfirmed_at_the_close_fails_and_is_told(
    behind: tuple[KafkaProducer, Proxy], topic: str
) -> None:
    producer, through = behind
    through.hole()
    future = producer.send_async(topic, b"")
    producer.close()
    assert isinstance(future.exception(0), PublishFailed)


# ------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"brokers": ""}, "brokers"),
        ({"brokers": ["a:1", ""]}, "brokers"),
        ({"brokers": "a:1", "timeout": 0}, "timeout"),
        ({"brokers": "a:1", "linger": -1}, "linger"),
        ({"brokers": "a:1", "driver": "kafka"}, "use kafka-python, confluent"),
        ({"brokers": "a:1", "partitioner": "crc32"}, "use murmur2, fnv1a"),
        ({"brokers": "a:1", "compression": "zip"}, "use None, gzip"),
        ({"brokers": "a:1", "max_unconfirmed": 0}, "max_unconfirmed"),
        ({"brokers": "a:1", "security_protocol": "TLS"}, "use PLAINTEXT, SSL"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_opened(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        KafkaProducer(**settings)


@pytest.mark.parametrize("driver", DRIVERS)
def test_an_option_that_the_driver_does_not_know_is_a_wrong_setting(kafka: KafkaServer, driver: Any) -> None:
    with (
        KafkaProducer(kafka.url, driver=driver, options={"no_such": 1}) as producer,
        pytest.raises(ConfigError, match="refuses"),
    ):
        producer.send("orders", b"")


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_password_is_shown_nowhere(silent: str, driver: Any) -> None:
    with (
        KafkaProducer(
            silent,
            driver=driver,
            timeout=0.5,
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="PLAIN",
            sasl_username="shop",
            sasl_password="s3cr3t",
        ) as producer,
        capture() as seen,
    ):
        with pytest.raises(PublishFailed, match="no Kafka broker answered") as caught:
            producer.send("orders", b"")
        assert "s3cr3t" not in f"{caught.value} {vars(producer)} {seen.lines}"


def test_the_page_has_every_metric() -> None:
    page = (Path(__file__).parents[2] / "docs" / "clients.md").read_text()
    assert [metric.name for metric in METRICS if f"| `{metric.name}` |" not in page] == []


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_topic_that_is_not_there_is_told_in_so_many_words(kafka: KafkaServer, driver: str) -> None:
    absent = f"absent-{uuid.uuid4().hex[:12]}"
    said = {
        "kafka-python": "no broker knew this topic: is it there",
        "confluent": "Unknown topic or partition",
    }
    with (
        KafkaProducer(kafka.url, driver=driver, timeout=3) as producer,
        pytest.raises(PublishFailed, match=f"topic '{absent}' not .*{said[driver]}"),
    ):
        producer.send(absent, {"a": 1})
