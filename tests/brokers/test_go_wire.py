"""Patron for Go and this one understand each other: what it sends was recorded, and what ours sends is like it."""

from __future__ import annotations

import contextlib
import re
import socket
import uuid
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import boto3
import kafka as kafka_driver
import pika
import pytest
from brokers.go_wire import AMQP, HTTP, KAFKA, SNS, SQS, Delivery, Head, Letter, Record
from brokers.kafka_server import KafkaServer
from brokers.moto_process import SqsServer
from brokers.rabbitmq_server import RabbitMQServer
from kafka.admin import KafkaAdminClient, NewTopic

from patron import Service, correlation
from patron.clients import AmqpPublisher, KafkaProducer, SnsPublisher, SqsPublisher
from patron.consumer import Consumer, Message
from patron.http import get
from patron.observe import capture, current_operation, operation
from patron.sources.amqp import AmqpSource
from patron.sources.kafka import KafkaSource
from patron.sources.sqs import SqsSource
from patron.testing import Running, driven, until

pytestmark = pytest.mark.broker

Recorded = Record | Delivery | Letter | Head

CARRIED = {"X-Correlation-Id", "uber-trace-id"}
INCOMING = {"X-Correlation-Id": "order-17", "uber-trace-id": "00000000000000ab:00000000000000cd:0:1"}
TRACE = re.compile(r"[0-9a-f]{16}:[0-9a-f]{16}:[0-9a-f]{16}:[0-9a-f]")


def consumed(source: Any, count: int) -> list[tuple[Message, Mapping[str, str]]]:
    """The messages of *source*, each with the headers that something sent while it is processed would carry."""
    seen: list[tuple[Message, Mapping[str, str]]] = []

    def process(message: Message) -> None:
        seen.append((message, correlation.outgoing()))

    with driven(Consumer("from-go", source, process, dead_letters="none", on_exhausted="skip")):
        until(lambda: len(seen) >= count, 30)
    return seen


def continues(sent: Recorded, carried: Mapping[str, str]) -> None:
    """What goes on has the correlation id and the trace of *sent*, and its span as the parent."""
    identifier = carried["X-Correlation-Id"]
    assert identifier == sent.correlation if sent.correlation else uuid.UUID(identifier)
    trace, _, parent, flags = carried["uber-trace-id"].split(":")
    assert (trace, parent, flags) == (sent.trace, sent.span, "1")


def body_of(message: Message) -> Any:
    """JSON as a value; what has another content type as it is."""
    json = message.content_type in (None, "application/json")
    return message.decode() if json else message.body


# Kafka


def new_topic(server: KafkaServer) -> str:
    name = f"go-{uuid.uuid4().hex[:12]}"
    admin = KafkaAdminClient(bootstrap_servers=server.url)
    admin.create_topics([NewTopic(name=name, num_partitions=1, replication_factor=1)])
    admin.wait_for_topics([name])
    admin.close()
    return name


@pytest.mark.parametrize("driver", ["kafka-python", "confluent"])
def test_records_that_go_sends_are_understood(real_kafka: KafkaServer, driver: Any) -> None:
    topic = new_topic(real_kafka)
    with contextlib.closing(kafka_driver.KafkaProducer(bootstrap_servers=real_kafka.url)) as producer:
        for sent in KAFKA:
            producer.send(topic, sent.body, sent.key, headers=list(sent.headers))
        producer.flush()
    source = KafkaSource(topic, f"group-{topic}", brokers=real_kafka.url, driver=driver)
    received = consumed(source, len(KAFKA))
    for sent, (message, carried) in zip(KAFKA, received, strict=True):
        continues(sent, carried)
        assert message.body == sent.body
        assert message.key == (sent.key.decode() if sent.key else None)
        assert message.headers == {name: value.decode() for name, value in sent.headers}
        assert message.content_type == message.headers.get("Content-Type")
        assert body_of(message)


@pytest.mark.parametrize("driver", ["kafka-python", "confluent"])
def test_our_records_have_the_headers_of_those_of_go(kafka: KafkaServer, driver: Any) -> None:
    topic = new_topic(kafka)
    with operation("server", "http", "/", INCOMING), KafkaProducer(kafka.url, driver=driver) as producer:
        producer.send(topic, {"Firstname": "Ann", "Lastname": "Lee"}, key="key-1")
    reader = kafka_driver.KafkaConsumer(topic, bootstrap_servers=kafka.url, auto_offset_reset="earliest")
    with contextlib.closing(reader):
        ours = next(reader)
    gos = next(sent for sent in KAFKA if sent.key == b"key-1")
    assert (ours.key, ours.value) == (gos.key, gos.body)
    assert {name for name, _ in ours.headers} == {name for name, _ in gos.headers}
    headers = {name: value.decode() for name, value in ours.headers}
    assert (headers["Content-Type"], headers["X-Correlation-Id"]) == ("application/json", "order-17")
    assert TRACE.fullmatch(headers["uber-trace-id"])
    assert all(TRACE.fullmatch(dict(sent.headers)["uber-trace-id"].decode()) for sent in KAFKA)


# RabbitMQ


@pytest.fixture
def queue(rabbitmq: RabbitMQServer) -> Iterator[tuple[str, Any]]:
    """The name of a queue and a channel, of the bare driver."""
    name = f"go-{uuid.uuid4().hex[:12]}"
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq.url))
    channel = connection.channel()
    channel.queue_declare(name)
    yield name, channel
    channel.queue_delete(name)
    connection.close()


def test_deliveries_that_go_sends_are_understood(rabbitmq: RabbitMQServer, queue: tuple[str, Any]) -> None:
    name, channel = queue
    for sent in AMQP:
        properties = pika.BasicProperties()
        properties.decode(sent.properties)
        channel.basic_publish("", name, sent.body, properties)
    received = consumed(AmqpSource(name, url=rabbitmq.url), len(AMQP))
    for sent, (message, carried) in zip(AMQP, received, strict=True):
        continues(sent, carried)
        assert (message.body, message.content_type) == (sent.body, sent.content_type)
        assert body_of(message)
    headers = received[-1][0].headers  # those of other types are text
    assert {"n": "5", "big": "1099511627776", "yes": "true", "text": "t"}.items() <= headers.items()


def test_our_deliveries_have_the_headers_of_those_of_go(
    rabbitmq: RabbitMQServer, queue: tuple[str, Any]
) -> None:
    name, channel = queue
    with operation("server", "http", "/", INCOMING), AmqpPublisher(rabbitmq.url) as publisher:
        publisher.publish("", name, {"Firstname": "Ann", "Lastname": "Lee"})
    _, ours, body = channel.basic_get(name, auto_ack=True)
    sent = AMQP[0]
    gos = pika.BasicProperties()
    gos.decode(sent.properties)
    assert (body, ours.content_type) == (sent.body, gos.content_type)
    assert ours.headers.keys() == gos.headers.keys() == CARRIED
    assert {type(value) for value in ours.headers.values()} == {
        str
    }  # longstr, S, is the only type of text here
    assert ours.headers["X-Correlation-Id"] == "order-17"
    assert TRACE.fullmatch(ours.headers["uber-trace-id"])


# SQS and SNS


@pytest.fixture
def letters(sqs: SqsServer) -> Iterator[tuple[str, Any]]:
    """The URL of a queue, and a client."""
    client = boto3.client("sqs", endpoint_url=sqs.url)
    yield client.create_queue(QueueName=f"go-{uuid.uuid4().hex[:12]}")["QueueUrl"], client
    client.close()


def typed(kind: str, value: str | bytes) -> dict[str, Any]:
    return {"DataType": kind, "BinaryValue" if isinstance(value, bytes) else "StringValue": value}


@pytest.mark.parametrize("recorded", [SQS, SNS], ids=["sqs", "sns"])
def test_letters_that_go_sends_are_understood(
    sqs: SqsServer, letters: tuple[str, Any], recorded: tuple[Letter, ...]
) -> None:
    url, client = letters
    for sent in recorded:
        attributes = {name: typed(kind, value) for name, kind, value in sent.attributes}
        client.send_message(QueueUrl=url, MessageBody=sent.body, MessageAttributes=attributes)
    received = consumed(SqsSource(url, endpoint_url=sqs.url, wait=0.1), len(recorded))
    by_trace = {message.headers["uber-trace-id"].split(":")[0]: (message, on) for message, on in received}
    for sent in recorded:
        message, carried = by_trace[sent.trace]
        continues(sent, carried)
        assert (message.body.decode(), bool(body_of(message))) == (sent.body, True)
        for name, _, value in sent.attributes:
            assert message.headers[name] == (value if isinstance(value, str) else "AP8=")


def test_our_letters_have_the_attributes_of_those_of_go(sqs: SqsServer, letters: tuple[str, Any]) -> None:
    url, client = letters
    topics = boto3.client("sns", endpoint_url=sqs.url)
    arn = topics.create_topic(Name="from-python")["TopicArn"]
    queue_arn = client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"][
        "QueueArn"
    ]
    topics.subscribe(
        TopicArn=arn, Protocol="sqs", Endpoint=queue_arn, Attributes={"RawMessageDelivery": "true"}
    )
    topics.close()
    with (
        operation("server", "http", "/", INCOMING),
        contextlib.closing(SqsPublisher(url, endpoint_url=sqs.url)) as to_queue,
        contextlib.closing(SnsPublisher(arn, endpoint_url=sqs.url)) as to_topic,
    ):
        to_queue.publish({"v": 1})
        to_topic.publish({"v": 2})
    found: list[Any] = []

    def both() -> bool:
        answer = client.receive_message(QueueUrl=url, MessageAttributeNames=["All"], MaxNumberOfMessages=10)
        found.extend(answer.get("Messages", []))
        return len(found) == 2

    until(both, 15)
    for message in found:
        attributes = message["MessageAttributes"]
        assert attributes.keys() == {*CARRIED, "Content-Type"}
        assert {attribute["DataType"] for attribute in attributes.values()} == {"String"}
        assert attributes["X-Correlation-Id"]["StringValue"] == "order-17"
        assert TRACE.fullmatch(attributes["uber-trace-id"]["StringValue"])
    assert {kind for sent in (*SQS, *SNS) for name, kind, _ in sent.attributes if name in CARRIED} == {
        "String"
    }


# HTTP


@pytest.mark.parametrize("sent", HTTP, ids=[f"{sent.version} {sent.sender}" for sent in HTTP])
def test_requests_that_go_sends_are_understood(sent: Head) -> None:
    found: list[Mapping[str, str]] = []

    def orders(request: Any) -> None:
        here = current_operation()
        assert here is not None
        found.append({"parent": f"{here.context.parent_id:016x}", **correlation.outgoing()})

    with capture(), Running(Service("shop", routes=[get("/orders", orders)])) as running:
        address = urlsplit(running.url)
        with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
            connection.sendall(sent.head)
            answer = connection.recv(65536)
    (carried,) = found
    assert carried["parent"] == sent.span
    continues(sent, carried)
    assert b"X-Correlation-Id: go-http\r\n" in answer
    baggage = re.findall(rb"Uberctx-Tenant: (.*)\r\n", sent.head)
    assert [carried[name].encode() for name in carried if name == "uberctx-tenant"] == baggage


def test_what_goes_out_with_a_request_has_the_names_of_those_of_go() -> None:
    with operation("server", "http", "/", INCOMING):
        ours = correlation.outgoing()
    gos = {line.partition(b":")[0].decode().lower() for line in HTTP[1].head.splitlines()}
    assert {name.lower() for name in ours} == {name.lower() for name in CARRIED} <= gos
    assert TRACE.fullmatch(ours["uber-trace-id"])
