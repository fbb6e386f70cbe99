"""The brokers that other tests use do what those rely on."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from brokers.kafka_server import Kafka, KafkaServer, Tansu
from brokers.moto_process import Moto, SqsServer
from brokers.processes import Server, Unavailable
from brokers.rabbitmq_server import RabbitMQ, RabbitMQServer
from brokers.tcp_proxy import Proxy

from patron.testing import until

pytestmark = pytest.mark.broker

Through = Callable[[Server], Proxy]


class Echo(Server):
    """Sends back the first piece of what it gets on each connection."""

    name = "echo"

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        super().__init__(self.listener.getsockname()[1])

    def url_at(self, port: int) -> str:
        return f"{self.host}:{port}"

    def answer(self) -> socket.socket:
        connection, _ = self.listener.accept()
        connection.sendall(connection.recv(100))
        return connection


@pytest.fixture
def echo():
    server = Echo()
    yield server
    server.listener.close()


def said(client: socket.socket) -> bytes:
    try:
        return client.recv(100)
    except ConnectionResetError:
        return b""


def test_a_proxy_forwards_until_it_is_cut_and_serves_again(echo: Echo, proxy: Through) -> None:
    through = proxy(echo)
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", through.port), timeout=5) as client:
            client.sendall(b"hello")
            with echo.answer():
                assert said(client) == b"hello"
                assert through.connections == 1
                through.cut()
                assert said(client) == b""
        until(lambda: through.connections == 0)


def test_a_proxy_that_refuses_ends_every_connection(echo: Echo, proxy: Through) -> None:
    through = proxy(echo)
    through.refuse()
    with socket.create_connection(("127.0.0.1", through.port), timeout=5) as client:
        assert said(client) == b""
    through.accept()
    with socket.create_connection(("127.0.0.1", through.port), timeout=5) as client:
        client.sendall(b"hello")
        with echo.answer():
            assert said(client) == b"hello"


def test_a_hole_is_silent_until_it_heals(echo: Echo, proxy: Through) -> None:
    through = proxy(echo)
    with socket.create_connection(("127.0.0.1", through.port), timeout=0.2) as client:
        until(lambda: through.connections == 1)
        through.hole()
        client.sendall(b"hello")
        with pytest.raises(TimeoutError):
            client.recv(100)
        through.heal()
        client.settimeout(5)
        assert said(client) == b""


def kafka_round(url: str) -> None:
    """Make a topic, publish and read."""
    from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer

    topic = f"t{uuid4().hex}"
    admin = KafkaAdminClient(bootstrap_servers=url)
    admin.create_topics({topic: {"num_partitions": 2, "replication_factor": 1}})
    admin.close()
    producer = KafkaProducer(bootstrap_servers=url)
    producer.send(topic, b"hello").get(20)
    producer.close()
    # The stand-in takes half a session for the first assignment.
    group = {"group_id": topic, "auto_offset_reset": "earliest", "session_timeout_ms": 6000}
    consumer = KafkaConsumer(topic, bootstrap_servers=url, heartbeat_interval_ms=1000, **group)
    try:
        assert [r.value for records in read(consumer) for r in records] == [b"hello"]
    finally:
        consumer.close()


def read(consumer):
    return until(lambda: list(consumer.poll(timeout_ms=200).values()), timeout=20)


def test_kafka_takes_messages_and_gives_them(kafka: KafkaServer) -> None:
    kafka_round(kafka.url)


def test_the_stand_in_takes_messages_and_gives_them(tmp_path: Path) -> None:
    try:
        server = Tansu(tmp_path)
    except Unavailable as reason:
        pytest.skip(str(reason))
    try:
        server.start()
        assert not server.real
        kafka_round(server.url)
    finally:
        server.close()


def test_kafka_is_reached_through_a_proxy_only_where_the_proxy_is(
    real_kafka: KafkaServer, proxy: Through
) -> None:
    through = proxy(real_kafka)
    kafka_round(through.url)
    assert str(real_kafka.port) not in through.url


def test_a_killed_kafka_comes_back_with_its_data(own_kafka: Kafka) -> None:
    from kafka import KafkaAdminClient

    admin = KafkaAdminClient(bootstrap_servers=own_kafka.url)
    admin.create_topics({"kept": {"num_partitions": 1, "replication_factor": 1}})
    admin.close()
    own_kafka.restart()
    admin = KafkaAdminClient(bootstrap_servers=own_kafka.url)
    assert "kept" in admin.list_topics()
    admin.close()


def declared(url: str, **arguments) -> int:
    """How many messages the durable queue "kept" has."""
    import pika

    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    count = channel.queue_declare("kept", durable=True, **arguments).method.message_count
    if not arguments:
        channel.confirm_delivery()
        channel.basic_publish("", "kept", b"hello", pika.BasicProperties(delivery_mode=2))
    connection.close()
    return count


def test_a_killed_rabbitmq_comes_back_with_its_data(own_rabbitmq: RabbitMQ) -> None:
    declared(own_rabbitmq.url)
    own_rabbitmq.restart()
    assert declared(own_rabbitmq.url, passive=True) == 1


def test_rabbitmq_is_reached_through_a_proxy(rabbitmq: RabbitMQServer, proxy: Through) -> None:
    import pika

    through = proxy(rabbitmq)
    connection = pika.BlockingConnection(pika.URLParameters(through.url))
    through.cut()
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        connection.channel()


def test_sqs_answers(sqs: SqsServer) -> None:
    import boto3

    client = boto3.client("sqs", endpoint_url=sqs.url)
    url = client.create_queue(QueueName=f"t{uuid4().hex}")["QueueUrl"]
    client.send_message(QueueUrl=url, MessageBody="hello")
    assert [m["Body"] for m in client.receive_message(QueueUrl=url)["Messages"]] == ["hello"]
    client.close()


def test_what_cannot_be_had_is_skipped_and_fails_when_it_is_required(monkeypatch, tmp_path: Path) -> None:
    from brokers.fixtures import _run

    class Absent(Moto):
        def __init__(self, folder: Path) -> None:
            raise Unavailable("not on this machine")

    monkeypatch.delenv("PATRON_TEST_REQUIRE", raising=False)
    with pytest.raises(pytest.skip.Exception, match="not on this machine"):
        next(_run(Absent, tmp_path))
    monkeypatch.setenv("PATRON_TEST_REQUIRE", "kafka, sqs")
    with pytest.raises(pytest.fail.Exception, match="lists sqs"):
        next(_run(Absent, tmp_path))
