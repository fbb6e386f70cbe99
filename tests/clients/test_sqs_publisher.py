"""The publisher to SQS, against moto's server, and what it refuses before it sends anything."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable

import boto3
import pytest
from brokers.moto_process import SqsServer
from brokers.processes import Server
from brokers.tcp_proxy import Proxy

from patron import correlation
from patron.clients.sqs import METRICS, SqsMessage, SqsPublisher
from patron.consumer.source import Message
from patron.errors import BatchFailed, ConfigError, DeadlineExceeded, EncodeError, PublishFailed
from patron.observe import capture
from patron.reliability.deadline import deadline
from patron.sources.sqs import SqsSource

pytestmark = pytest.mark.broker


class World:
    """A queue of the test's own."""

    def __init__(self, url: str, suffix: str = "") -> None:
        self.url = url
        self.queue = f"patron-{uuid.uuid4().hex[:12]}{suffix}"

    def publisher(self, **options: object) -> SqsPublisher:
        return SqsPublisher(self.queue, **{"endpoint_url": self.url, "create": True, **options})  # type: ignore[arg-type]

    def read(self, count: int = 1) -> list[Message]:
        source = SqsSource(self.queue, endpoint_url=self.url, create=True, wait=0.05, receivers=1)
        subscription = source.open()
        try:
            received: list[Message] = []
            end = time.monotonic() + 10
            while len(received) < count and time.monotonic() < end:
                received += subscription.poll(count - len(received), 0.1)
            subscription.ack(received)
            assert len(received) == count
            return received
        finally:
            subscription.close()

    def bare(self) -> list[dict]:
        client = boto3.client("sqs", endpoint_url=self.url)
        try:
            address = client.get_queue_url(QueueName=self.queue)["QueueUrl"]
            return client.receive_message(
                QueueUrl=address,
                MaxNumberOfMessages=10,
                MessageAttributeNames=["All"],
                AttributeNames=["All"],
            )["Messages"]
        finally:
            client.close()


@pytest.fixture
def world(sqs: SqsServer) -> World:
    return World(sqs.url)


@pytest.fixture
def fifo(sqs: SqsServer) -> World:
    return World(sqs.url, ".fifo")


def test_a_payload_arrives_with_its_content_type_and_headers(world: World) -> None:
    with world.publisher() as publisher:
        identifier = publisher.publish({"order": 1}, {"x-mine": "☃"})
    (message,) = world.read()
    assert message.decode() == {"order": 1}
    assert message.id == identifier
    assert (message.content_type, message.headers["x-mine"]) == ("application/json", "☃")


def test_any_program_can_read_what_is_sent(world: World) -> None:
    with world.publisher() as publisher, correlation.use("order-17"):
        publisher.publish({"order": 1}, attributes={"weight": 2.5, "seal": b"\x00\xff", "urgent": True})
    (raw,) = world.bare()
    attributes = raw["MessageAttributes"]
    assert json.loads(raw["Body"]) == {"order": 1}
    assert attributes["X-Correlation-Id"]["StringValue"] == "order-17"
    assert attributes["Content-Type"] == {"DataType": "String", "StringValue": "application/json"}
    assert attributes["weight"] == {"DataType": "Number", "StringValue": "2.5"}
    assert attributes["seal"] == {"DataType": "Binary", "BinaryValue": b"\x00\xff"}
    assert attributes["urgent"]["StringValue"] == "true"
    assert "uber-trace-id" in attributes


def test_bytes_that_are_no_text_arrive_as_they_are(world: World) -> None:
    with world.publisher() as publisher:
        publisher.publish(bytes(range(256)), content_type="application/octet-stream")
        publisher.publish(b"")
    assert {message.body for message in world.read(2)} == {bytes(range(256)), b""}


def test_the_consumer_sees_typed_attributes_as_text(world: World) -> None:
    with world.publisher() as publisher:
        publisher.publish("x", attributes={"weight": 3, "seal": b"ab"})
    (message,) = world.read()
    assert (message.headers["weight"], message.headers["seal"]) == ("3", "YWI=")


def test_a_batch_is_sent_by_tens_and_its_ids_are_in_order(world: World) -> None:
    with world.publisher() as publisher:
        ids = publisher.publish_batch(SqsMessage(number) for number in range(12))
    messages = world.read(12)
    assert {message.id: message.decode() for message in messages} == dict(zip(ids, range(12), strict=True))


def test_the_messages_of_a_batch_fail_one_by_one(world: World) -> None:
    messages = [SqsMessage("a"), SqsMessage(object()), SqsMessage("b", delay=901), SqsMessage("c")]
    with world.publisher() as publisher, pytest.raises(BatchFailed, match="2 of 4") as raised:
        publisher.publish_batch(messages)
    first, second, third, fourth = raised.value.outcomes
    assert isinstance(first, str)
    assert isinstance(second, EncodeError)
    assert isinstance(third, PublishFailed)
    assert isinstance(fourth, str)
    assert sorted(message.decode() for message in world.read(2)) == ["a", "c"]


def test_a_batch_of_large_messages_is_sent_in_several_requests(world: World) -> None:
    text = "x" * 600_000
    with world.publisher() as publisher:
        assert len(publisher.publish_batch([SqsMessage(text), SqsMessage(text)])) == 2
    assert [len(message.body) for message in world.read(2)] == [600_002, 600_002]


def test_a_fifo_queue_keeps_the_order_of_a_group_and_drops_duplicates(fifo: World) -> None:
    with fifo.publisher() as publisher:
        for number in range(3):
            publisher.publish(number, group="g")
        publisher.publish(7, group="g", deduplication_id="once")
        publisher.publish(8, group="g", deduplication_id="once")
    messages = fifo.read(4)
    assert [message.decode() for message in messages] == [0, 1, 2, 7]
    assert {(message.key, message.lane) for message in messages} == {("g", "g")}


def test_messages_without_a_group_have_no_order_to_wait_for(fifo: World) -> None:
    with fifo.publisher() as publisher:
        publisher.publish_batch([SqsMessage(1), SqsMessage(2)])
    messages = fifo.read(2)
    assert len({message.lane for message in messages}) == 2
    assert {message.key for message in messages} == {None}


def test_a_delay_keeps_a_message_back(world: World) -> None:
    with world.publisher() as publisher:
        published = time.monotonic()
        publisher.publish("later", delay=0.2)
    world.read()
    assert time.monotonic() - published >= 0.2


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            SqsMessage("x", headers={f"h{n}": "v" for n in range(8)}),
            r"11 attributes and AWS takes 10: Content-Type",
        ),
        (SqsMessage("x", headers={"bad name": "v"}), "'bad name' is no attribute name"),
        (SqsMessage("x", headers={"aws.name": "v"}), "no attribute name"),
        (SqsMessage("x", headers={"empty": ""}), "attribute empty is ''"),
        (SqsMessage("x", attributes={"thing": object()}), "attribute thing is <object"),
        (SqsMessage("x" * 1_048_576), "AWS takes 1048576"),
        (SqsMessage("x", delay=901), "not within 0 and 900"),
    ],
)
def test_what_sqs_would_refuse_is_not_sent(world: World, message: SqsMessage, reason: str) -> None:
    with world.publisher() as publisher, pytest.raises(PublishFailed, match=reason):
        publisher.publish(
            message.payload, message.headers, attributes=message.attributes, delay=message.delay
        )


def test_a_fifo_message_with_a_delay_is_refused(fifo: World) -> None:
    with fifo.publisher() as publisher, pytest.raises(PublishFailed, match="FIFO queue cannot be delayed"):
        publisher.publish("x", delay=1)


def test_a_missing_queue_is_named(world: World) -> None:
    with world.publisher(create=False) as publisher, pytest.raises(PublishFailed, match=world.queue):
        publisher.publish("x")


def test_each_call_is_one_operation_and_measured_with_its_success(world: World) -> None:
    with capture() as captured, world.publisher() as publisher:
        publisher.publish("x")
        with pytest.raises(PublishFailed):
            publisher.publish("x", delay=-1)
    assert [(each.kind, each.name, each.outcome) for each in captured.operations] == [
        ("producer", f"sqs-publisher {world.queue}", "true"),
        ("producer", f"sqs-publisher {world.queue}", "false"),
    ]
    (histogram,) = METRICS
    assert (histogram.name, histogram.labels) == ("client_sqs_publish_duration_seconds", ("queue", "success"))


def test_nothing_is_sent_after_the_deadline(world: World) -> None:
    with world.publisher() as publisher, deadline(0.0), pytest.raises(DeadlineExceeded):
        publisher.publish("x")


def test_a_deadline_bounds_the_wait_for_a_server_that_is_silent(
    sqs: SqsServer, proxy: Callable[[Server], Proxy]
) -> None:
    through = proxy(sqs)
    through.hole()
    with World(through.url).publisher(timeout=30.0) as publisher:
        began = time.monotonic()
        with deadline(0.5), pytest.raises(PublishFailed):
            publisher.publish("x")
        assert time.monotonic() - began < 15


def test_a_connection_that_breaks_is_replaced(sqs: SqsServer, proxy: Callable[[Server], Proxy]) -> None:
    through = proxy(sqs)
    world = World(through.url)
    with world.publisher() as publisher:
        publisher.publish(1)
        through.cut()
        publisher.publish(2)
    assert sorted(message.decode() for message in world.read(2)) == [1, 2]


def test_threads_share_a_publisher(world: World) -> None:
    with world.publisher() as publisher:
        threads = [threading.Thread(target=publisher.publish, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(message.decode() for message in world.read(6)) == list(range(6))


def test_a_closed_publisher_says_so(world: World) -> None:
    publisher = world.publisher()
    publisher.close()
    publisher.close()
    with pytest.raises(PublishFailed, match="closed"):
        publisher.publish("x")


def test_settings_are_checked_when_it_is_made() -> None:
    with pytest.raises(ConfigError, match="queue is empty"):
        SqsPublisher("")
    with pytest.raises(ConfigError, match="endpoint_url 'localhost' is no URL"):
        SqsPublisher("orders", endpoint_url="localhost")
    with pytest.raises(ConfigError, match="timeout"):
        SqsPublisher("orders", timeout=0)
