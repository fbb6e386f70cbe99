"""Fills topics and queues with numbered messages of 1 KiB, and tells what became of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

SIZE = 1024
KEYS = 256
CORRELATION = "5f0c2ad4-7c6c-4a39-9f5e-3b0f6f6f8a11"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
TYPE = "application/json"


def body(number: int) -> str:
    """A JSON object of 1 KiB; see measured.NUMBER for where its number stands."""
    head = f'{{"id": "{number:08}", "pad": "'
    return f'{head}{"x" * (SIZE - len(head) - 2)}"}}'


class Kafka:
    """Topics of which each consumer group reads everything."""

    system = "kafka"

    def __init__(self, url: str) -> None:
        self.url = url
        self._filled: set[str] = set()

    def version(self) -> str:
        """Of the broker, as far as the protocol tells it."""
        from kafka import KafkaAdminClient

        admin = KafkaAdminClient(bootstrap_servers=self.url)
        try:
            broker = admin.describe_cluster()["brokers"][0]
            return (
                "Kafka "
                + str(admin.get_broker_version_data(broker.get("broker_id", 0))).strip("<>").split()[-1]
            )
        finally:
            admin.close()

    def fill(self, case: dict[str, Any]) -> None:
        """Name a topic with so many messages, made when it is not there, and a new group."""
        topic = f"bench-{case['count']}-{case['partitions']}-{id(self)}"
        if topic not in self._filled:
            self._create(topic, case["partitions"])
            self._produce(topic, case["partitions"], case["count"])
            self._filled.add(topic)
        case |= {"url": self.url, "topic": topic, "group": f"bench-{uuid.uuid4()}"}

    def _create(self, topic: str, partitions: int) -> None:
        from confluent_kafka.admin import AdminClient, NewTopic

        admin = AdminClient({"bootstrap.servers": self.url})
        for future in admin.create_topics(
            [NewTopic(topic, partitions, 1), NewTopic("bench.dlq", 1, 1)]
        ).values():
            _unless_exists(future)

    def _produce(self, topic: str, partitions: int, count: int) -> None:
        from confluent_kafka import Producer

        producer = Producer({"bootstrap.servers": self.url, "linger.ms": 20, "acks": "all"})
        headers = {"X-Correlation-Id": CORRELATION, "traceparent": TRACE, "Content-Type": TYPE}
        for number in range(count):
            producer.produce(
                topic,
                body(number).encode(),
                f"c{number % KEYS}",
                number % partitions,
                headers=list(headers.items()),
            )
            if number % 1000 == 0:
                producer.poll(0)
        assert producer.flush(60) == 0, "not all messages were produced"

    def left(self, case: dict[str, Any]) -> int:
        """How many messages of the topic the group has not committed."""
        from confluent_kafka import Consumer, TopicPartition

        reader = Consumer({"bootstrap.servers": self.url, "group.id": case["group"]})
        try:
            parts = [TopicPartition(case["topic"], number) for number in range(case["partitions"])]
            committed = reader.committed(parts, timeout=10)
        finally:
            reader.close()
        return int(case["count"] - sum(max(0, part.offset) for part in committed))

    def empty(self, case: dict[str, Any]) -> None:
        """The topic stays, for the next group."""

    def close(self) -> None:
        """Remove the topics."""
        from confluent_kafka.admin import AdminClient

        if self._filled:
            admin = AdminClient({"bootstrap.servers": self.url})
            for future in admin.delete_topics([*self._filled]).values():
                future.result()


def _unless_exists(future: Any) -> None:
    try:
        future.result()
    except Exception as error:
        if "TOPIC_ALREADY_EXISTS" not in str(error):
            raise


class RabbitMQ:
    """A queue for each measurement."""

    system = "rabbitmq"

    def __init__(self, url: str) -> None:
        self.url = url

    def version(self) -> str:
        """Of the broker."""
        import pika

        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        try:
            version = connection._impl.server_properties["version"]
        finally:
            connection.close()
        name = version if isinstance(version, str) else version.decode()
        return f"RabbitMQ {name} (classic queue, persistent messages)"

    def fill(self, case: dict[str, Any]) -> None:
        """Name a new queue, with so many messages in it."""
        queue = f"bench-{uuid.uuid4()}"
        case |= {"url": self.url, "topic": queue}
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"{queue}.XQ"}
        with self._channel() as channel:
            channel.queue_declare(
                queue, durable=True, arguments=arguments if "dramatiq" in case["load"] else None
            )
            channel.queue_declare("bench.dlq", durable=True)
            self._publish(channel, queue, case)
            while self._count(channel, queue) < case["count"]:
                time.sleep(0.01)

    def _publish(self, channel: Any, queue: str, case: dict[str, Any]) -> None:
        import pika

        headers = {"X-Correlation-Id": CORRELATION, "traceparent": TRACE}
        properties = pika.BasicProperties(content_type=TYPE, headers=headers, delivery_mode=2)
        for number in range(case["count"]):
            text = body(number)
            if "dramatiq" in case["load"]:
                text = _for_dramatiq(queue, text)
            channel.basic_publish("", queue, text.encode(), properties)

    def left(self, case: dict[str, Any]) -> int:
        """How many messages the queue still has; the consumer's connection is closed."""
        with self._channel() as channel:
            return self._count(channel, case["topic"])

    def _count(self, channel: Any, queue: str) -> int:
        return int(channel.queue_declare(queue, passive=True).method.message_count)

    def empty(self, case: dict[str, Any]) -> None:
        """Remove the queue, and those that dramatiq made beside it."""
        with self._channel() as channel:
            for suffix in ("", ".DQ", ".XQ") if "dramatiq" in case["load"] else ("",):
                channel.queue_delete(case["topic"] + suffix)

    def close(self) -> None:
        """Nothing is left."""

    def _channel(self) -> Any:
        import pika

        return _Channel(pika.BlockingConnection(pika.URLParameters(self.url)))


class Sqs:
    """Servers of canned answers, one for each number of messages; each measurement has a queue of its own there."""

    system = "sqs"

    def __init__(self) -> None:
        self._servers: dict[int, tuple[subprocess.Popen[str], str]] = {}
        # Nobody looks at them, but boto3 wants to have some.
        os.environ |= {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "eu-west-1",
        }

    def version(self) -> str:
        """There is none."""
        return "canned answers for SQS"

    def fill(self, case: dict[str, Any]) -> None:
        """Name a queue, which the server knows from the first request on."""
        count = case["count"]
        if count not in self._servers:
            command = [sys.executable, str(Path(__file__).with_name("canned_sqs.py")), str(count)]
            server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert server.stdout is not None
            self._servers[count] = (server, server.stdout.readline().strip())
        case |= {"url": self._servers[count][1], "topic": f"bench-{uuid.uuid4()}"}

    def left(self, case: dict[str, Any]) -> int:
        """How many messages were not deleted."""
        from boto3.session import Session

        client = Session().client("sqs", endpoint_url=case["url"])
        url = client.get_queue_url(QueueName=case["topic"])["QueueUrl"]
        numbers = client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        return sum(int(number) for name, number in numbers.items() if name.startswith("ApproximateNumber"))

    def empty(self, case: dict[str, Any]) -> None:
        """There is nothing to remove."""

    def close(self) -> None:
        """Stop the servers."""
        for server, _ in self._servers.values():
            server.kill()
            server.wait()
            assert server.stdout is not None
            server.stdout.close()


class _Channel:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __enter__(self) -> Any:
        return self._connection.channel()

    def __exit__(self, *error: object) -> None:
        self._connection.close()


def _for_dramatiq(queue: str, text: str) -> str:
    message = {
        "queue_name": queue,
        "actor_name": "bench",
        "args": [text],
        "kwargs": {},
        "options": {},
        "message_id": str(uuid.uuid4()),
        "message_timestamp": int(time.time() * 1000),
    }
    return json.dumps(message)
