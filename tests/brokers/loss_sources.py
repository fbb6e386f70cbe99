"""The sources whose losses are counted: how bare drivers fill them, break them, and look at what is left."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from brokers.kafka_server import Kafka
from brokers.loss_subject import LANES, TOPIC, Restarted, Subject, body
from brokers.moto_process import VARIABLES, ExactMoto
from brokers.rabbitmq_server import RabbitMQ
from brokers.tcp_proxy import Proxy


class Sqlite(Subject):
    name = "sqlite"

    def source(self) -> dict[str, Any]:
        return {
            "type": "sqlite",
            "path": str(self.folder / "queue.db"),
            "topic": TOPIC,
            "synchronous": "normal",
        }

    def slow(self, scale: float) -> dict[str, Any]:
        return self.source()

    def publish(self, first: int, count: int, lanes: int = LANES) -> None:
        from patron.sources.sqlite import Outgoing, SqliteSource

        publisher = SqliteSource(self.folder / "queue.db", TOPIC).publisher()
        for number in range(first, first + count):
            publisher.publish_many(
                [Outgoing(TOPIC, body(lane, number), key=str(lane)) for lane in range(lanes)]
            )
        publisher.close()

    def interrupt(self) -> str:
        with sqlite3.connect(self.folder / "queue.db", timeout=30) as other:
            other.execute("BEGIN IMMEDIATE")
            time.sleep(1.0)
        other.close()
        return "the file locked for 1 s"

    def _topics(self) -> Mapping[str, int]:
        from patron.sources.sqlite import SqliteSource

        return SqliteSource(self.folder / "queue.db", TOPIC).topics()

    def backlog(self) -> int:
        return self._topics().get(TOPIC, 0)

    def dead(self) -> int:
        return self._topics().get("losses.dlq", 0)


class KafkaPython(Restarted):
    name = "kafka"
    positional = True
    # Commits wait for each other, and then for the broker; the rest is for a busy machine.
    commit_delay = 1.0
    driver = "kafka-python"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.server = Kafka(folder / "kafka")
        self._producer: Any = None

    def start(self) -> None:
        super().start()
        from kafka import KafkaAdminClient

        admin = KafkaAdminClient(bootstrap_servers=self.server.url)
        topics = {TOPIC: LANES, "losses.dlq": 1}
        admin.create_topics(
            {topic: {"num_partitions": n, "replication_factor": 1} for topic, n in topics.items()}
        )
        admin.close()

    def source(self) -> dict[str, Any]:
        return {
            "type": "kafka",
            "topic": TOPIC,
            "group": "losses",
            "brokers": self.server.url,
            "driver": self.driver,
            # A killed member is noticed after that; the default is for networks.
            "session_timeout": 6.0,
            "heartbeat_interval": 1.0,
        }

    def slow(self, scale: float) -> dict[str, Any]:
        session = max(1.0, 10 * scale)
        longest = max(session, 30 * scale)
        beats = {"session_timeout": session, "heartbeat_interval": session / 4}
        return {**self.source(), **beats, "max_poll_interval": longest}

    def publish(self, first: int, count: int, lanes: int = LANES) -> None:
        from confluent_kafka import Producer

        failed: list[Any] = []
        if self._producer is None:
            settings = {"bootstrap.servers": self.server.url, "enable.idempotence": True, "log_level": 0}
            self._producer = Producer(settings)
        producer = self._producer
        for number in range(first, first + count):
            for lane in range(lanes):
                while True:
                    try:
                        producer.produce(
                            TOPIC,
                            body(lane, number),
                            partition=lane,
                            on_delivery=lambda error, _: failed.append(error) if error else None,
                        )
                        break
                    except BufferError:
                        producer.poll(0.1)
            producer.poll(0)
        assert producer.flush(60) == 0
        assert not failed, failed[:3]

    def _offsets(self) -> tuple[int, int]:
        """The messages of the topic, and those that the group has committed."""
        from kafka import KafkaConsumer, TopicPartition

        consumer = KafkaConsumer(
            bootstrap_servers=self.server.url, group_id="losses", enable_auto_commit=False
        )
        partitions = [TopicPartition(TOPIC, lane) for lane in range(LANES)]
        try:
            ends = sum(consumer.end_offsets(partitions).values())
            return ends, sum(consumer.committed(each) or 0 for each in partitions)
        finally:
            consumer.close()

    def backlog(self) -> int:
        ends, committed = self._offsets()
        return ends - committed

    def dead(self) -> int:
        from kafka import KafkaConsumer, TopicPartition

        consumer = KafkaConsumer(bootstrap_servers=self.server.url)
        try:
            return sum(consumer.end_offsets([TopicPartition("losses.dlq", 0)]).values())
        finally:
            consumer.close()


class KafkaConfluent(KafkaPython):
    name = "confluent"
    driver = "confluent"


class Rabbit(Restarted):
    """
    Order by key and a single active consumer: RabbitMQ has no lanes.

    It gives back what was not acknowledged in its old order, before anything else.
    """

    name = "amqp"
    consumer: ClassVar[Mapping[str, Any]] = {"order": "key"}
    arguments: ClassVar[Mapping[str, Any]] = {"x-single-active-consumer": True}

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.server = RabbitMQ(folder / "rabbitmq")

    def start(self) -> None:
        super().start()
        with self._channel() as channel:
            for queue in (TOPIC, "losses.dlq"):
                arguments = {"x-queue-type": "quorum", **(self.arguments if queue == TOPIC else {})}
                channel.queue_declare(queue, durable=True, arguments=arguments)

    def _channel(self) -> Any:
        import pika

        return _Closing(pika.BlockingConnection(pika.URLParameters(self.server.url)))

    def source(self) -> dict[str, Any]:
        return {"type": "amqp", "queue": TOPIC, "url": self.server.url}

    def slow(self, scale: float) -> dict[str, Any]:
        return {**self.source(), "heartbeat": max(1, round(10 * scale))}

    def publish(self, first: int, count: int, lanes: int = LANES) -> None:
        import pika

        before = self._count(TOPIC)
        with self._channel() as channel:
            for number in range(first, first + count):
                for lane in range(lanes):
                    properties = pika.BasicProperties(delivery_mode=2, headers={"X-Patron-Key": str(lane)})
                    channel.basic_publish("", TOPIC, body(lane, number), properties)
        # Not confirms one by one, which take minutes: nobody reads yet, so the broker can be asked.
        deadline = time.monotonic() + 120
        while (there := self._count(TOPIC)) != before + count * lanes:
            assert time.monotonic() < deadline, f"RabbitMQ took {there - before} of {count * lanes} messages"
            time.sleep(0.2)

    def _count(self, queue: str) -> int:
        with self._channel() as channel:
            return int(channel.queue_declare(queue, passive=True).method.message_count)

    def backlog(self) -> int:
        """What is ready, which after the stop of all consumers is everything."""
        return self._count(TOPIC)

    def dead(self) -> int:
        return self._count("losses.dlq")


class SharedRabbit(Rabbit):
    """
    A queue that several could read, though one does.

    When RabbitMQ itself was killed, it gives new messages to the new connection until it notices that
    the old one is gone, and what that held comes later: once in each lane.
    """

    name = "shared"
    overtakes = True
    arguments: ClassVar[Mapping[str, Any]] = {}


class _Closing:
    """A channel, whose connection is closed at the end."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def __enter__(self) -> Any:
        return self.connection.channel()

    def __exit__(self, *_: object) -> None:
        self.connection.close()


class Sqs(Subject):
    """A FIFO queue. Moto keeps its messages in memory, so the connection is broken rather than the server."""

    name = "sqs"
    size = 3_000
    # What is held by a process that dies comes again when its lease has ended, and counts as delivered.
    prefetch = 40
    consumer: ClassVar[Mapping[str, Any]] = {"prefetch": 40}
    environment = VARIABLES
    # Each of moto's calls takes as long as its queue.
    backlog_limit = 96
    #: Where dead letters go: the topic losses.dlq, in a name that SQS takes.
    letters = "losses-dlq"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.server = ExactMoto(folder / "moto")

    def start(self) -> None:
        self.server.start()
        self.proxy = Proxy(self.server)
        client = self._client()
        client.create_queue(QueueName=f"{TOPIC}.fifo", Attributes={"FifoQueue": "true"})
        client.create_queue(QueueName=self.letters)

    def close(self) -> None:
        self.proxy.close()
        self.server.close()

    def _client(self) -> Any:
        import boto3

        return boto3.client(
            "sqs",
            endpoint_url=self.server.url,
            region_name=VARIABLES["AWS_DEFAULT_REGION"],
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )

    def source(self) -> dict[str, Any]:
        region = VARIABLES["AWS_DEFAULT_REGION"]
        through = {"endpoint_url": self.proxy.url, "region": region}
        return {"type": "sqs", "queue": f"{TOPIC}.fifo", **through, "lease": 5.0, "wait": 0.2}

    def slow(self, scale: float) -> dict[str, Any]:
        return {**self.source(), "lease": max(1.0, 10 * scale)}

    def publish(self, first: int, count: int, lanes: int = LANES) -> None:
        client = self._client()
        url = self._url(f"{TOPIC}.fifo")
        wanted = [(lane, n) for n in range(first, first + count) for lane in range(lanes)]
        for start in range(0, len(wanted), 10):
            entries = [
                {
                    "Id": str(index),
                    "MessageBody": body(lane, n).decode(),
                    "MessageGroupId": str(lane),
                    "MessageDeduplicationId": f"{lane}-{n}",
                }
                for index, (lane, n) in enumerate(wanted[start : start + 10])
            ]
            answer = client.send_message_batch(QueueUrl=url, Entries=entries)
            assert not answer.get("Failed"), answer["Failed"]
        client.close()

    def _url(self, queue: str) -> str:
        return str(self._client().get_queue_url(QueueName=queue)["QueueUrl"])

    def interrupt(self) -> str:
        self.proxy.refuse()
        time.sleep(2.0)
        self.proxy.accept()
        return "all connections cut, none accepted for 2 s"

    def _count(self, queue: str) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self._client().get_queue_attributes(QueueUrl=self._url(queue), AttributeNames=names)
        return sum(int(value) for value in found["Attributes"].values())

    def backlog(self) -> int:
        return self._count(f"{TOPIC}.fifo")

    def dead(self) -> int:
        return self._count(self.letters)


SUBJECTS: Mapping[str, type[Subject]] = {
    each.name: each for each in (Sqlite, KafkaPython, KafkaConfluent, Rabbit, SharedRabbit, Sqs)
}
