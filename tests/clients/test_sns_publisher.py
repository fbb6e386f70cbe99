"""The publisher to SNS, against moto's server, and what a queue gets of it."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from brokers.moto_process import SqsServer

from patron import correlation
from patron.clients.sns import METRICS, SnsPublisher
from patron.consumer.source import Message
from patron.errors import ConfigError, PublishFailed
from patron.observe import capture
from patron.sources.sqs import SqsSource

pytestmark = pytest.mark.broker


class World:
    """A topic, and a queue that is subscribed to it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = f"patron-{uuid.uuid4().hex[:12]}"
        self.sns = boto3.client("sns", endpoint_url=url)
        self.sqs = boto3.client("sqs", endpoint_url=url)
        self.topic = self.sns.create_topic(Name=self.name)["TopicArn"]

    def subscribe(self, *, raw: bool) -> None:
        url = self.sqs.create_queue(QueueName=self.name)["QueueUrl"]
        arn = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"][
            "QueueArn"
        ]
        attributes = {"RawMessageDelivery": "true"} if raw else {}
        self.sns.subscribe(TopicArn=self.topic, Protocol="sqs", Endpoint=arn, Attributes=attributes)

    def publisher(self, **options: Any) -> SnsPublisher:
        return SnsPublisher(self.topic, endpoint_url=self.url, **options)

    def read(self, **options: Any) -> Message:
        subscription = SqsSource(self.name, endpoint_url=self.url, wait=0.05, **options).open()
        try:
            end = time.monotonic() + 10
            while not (received := subscription.poll(1, 0.1)):
                assert time.monotonic() < end
            subscription.ack(received)
            return received[0]
        finally:
            subscription.close()


@pytest.fixture
def world(sqs: SqsServer) -> Iterator[World]:
    made = World(sqs.url)
    yield made
    made.sns.close()
    made.sqs.close()


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "in the envelope"])
def test_a_queue_gets_body_headers_and_correlation_of_what_a_topic_sends(world: World, raw: bool) -> None:
    world.subscribe(raw=raw)
    with world.publisher() as publisher, correlation.use("order-17"):
        publisher.publish({"order": 1}, {"x-mine": "☃"}, attributes={"weight": 2})
    message = world.read(unwrap_sns=not raw)
    assert message.decode() == {"order": 1}
    about = {name: message.headers[name] for name in ("Content-Type", "X-Correlation-Id", "x-mine", "weight")}
    assert about == {
        "Content-Type": "application/json",
        "X-Correlation-Id": "order-17",
        "x-mine": "☃",
        "weight": "2",
    }


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "in the envelope"])
def test_bytes_go_through_a_topic_as_they_are(world: World, raw: bool) -> None:
    world.subscribe(raw=raw)
    with world.publisher() as publisher:
        publisher.publish(bytes(range(256)), content_type="application/octet-stream")
    assert world.read(unwrap_sns=True).body == bytes(range(256))


def test_an_envelope_that_nobody_unwraps_is_the_body(world: World) -> None:
    world.subscribe(raw=False)
    with world.publisher() as publisher:
        publisher.publish("x", subject="news")
    envelope = world.read().decode()
    assert (envelope["Type"], envelope["Subject"], json.loads(envelope["Message"])) == (
        "Notification",
        "news",
        "x",
    )


def test_a_list_is_a_string_array_for_filters(world: World) -> None:
    world.subscribe(raw=False)
    with world.publisher() as publisher:
        publisher.publish("x", attributes={"kinds": ["a", 1, True, None]})
    attribute = world.read().decode()["MessageAttributes"]["kinds"]
    assert (attribute["Type"], json.loads(attribute["Value"])) == ("String.Array", ["a", 1, True, None])


def test_a_list_of_something_else_is_refused(world: World) -> None:
    with world.publisher() as publisher, pytest.raises(PublishFailed, match=r"kinds has \[1\] in its list"):
        publisher.publish("x", attributes={"kinds": [[1]]})


def test_a_phone_number_stands_nowhere(world: World) -> None:
    number = "+4930123456"
    with capture() as captured, SnsPublisher(endpoint_url=world.url) as publisher:
        publisher.publish("hello", phone_number=number)
        with pytest.raises(PublishFailed) as raised:
            publisher.publish("hello", phone_number="no-number-17")
    assert [each.name for each in captured.operations] == ["sns-publisher phone-number"] * 2
    assert "17" not in str(raised.value)
    assert number not in repr(captured.operations)


def test_a_message_has_one_destination(world: World) -> None:
    with SnsPublisher(endpoint_url=world.url) as publisher, pytest.raises(ConfigError, match="there is none"):
        publisher.publish("x")
    with world.publisher() as publisher, pytest.raises(ConfigError, match="TopicArn and PhoneNumber"):
        publisher.publish("x", topic_arn=world.topic, phone_number="+49301")


def test_what_sns_would_refuse_is_not_sent(world: World) -> None:
    with world.publisher() as publisher:
        with pytest.raises(PublishFailed, match="11 attributes and AWS takes 10"):
            publisher.publish("x", {f"h{number}": "v" for number in range(8)})
        with pytest.raises(PublishFailed, match="AWS takes 262144"):
            publisher.publish("x" * 262_144)


def test_a_topic_that_is_not_there_is_named(world: World) -> None:
    missing = world.topic + "-gone"
    with capture() as captured, world.publisher() as publisher:
        with pytest.raises(PublishFailed, match=missing):
            publisher.publish("x", topic_arn=missing)
        publisher.publish("x")
    assert [(each.name, each.outcome) for each in captured.operations] == [
        (f"sns-publisher topic-arn:{missing}", "false"),
        (f"sns-publisher topic-arn:{world.topic}", "true"),
    ]
    assert METRICS[0].labels == ("topic", "success")


def test_settings_are_checked_when_it_is_made() -> None:
    with pytest.raises(ConfigError, match="no ARN"):
        SnsPublisher("orders")
