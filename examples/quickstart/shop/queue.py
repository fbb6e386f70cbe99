"""
Where orders wait until they are processed: in the shop's own file, or in the broker that ``SOURCE`` names.

``KAFKA_URL``, ``AMQP_URL``, or ``AWS_ENDPOINT_URL`` and the usual AWS variables say where the broker is.
Whatever is missing there is made. Each kind keeps the order of a customer's orders.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Literal

from patron import MemorySource, SqliteSource
from patron.consumer import Source

__all__ = ["Kind", "source"]

Kind = Literal["sqlite", "memory", "kafka", "amqp", "sqs"]


def source(kind: Kind, topic: str, path: str) -> Source:
    """The source of the orders; *path* is the shop's database."""
    return SqliteSource(path, topic) if kind == "sqlite" else _BROKERS[kind](topic)


def _memory(topic: str) -> Source:
    """Lost with the process, and each worker has its own: to play with."""
    return MemorySource(topic)


def _kafka(topic: str) -> Source:
    from patron.sources.kafka import KafkaSource

    # A worker that was killed gives up its partitions after the session time-out.
    return KafkaSource(
        topic,
        group=f"shop.{topic}",
        brokers=_variable("KAFKA_URL", "localhost:9092").removeprefix("kafka://"),
        create=True,
        partitions=8,
        session_timeout=10.0,
        delivery_timeout=5.0,
    )


def _amqp(topic: str) -> Source:
    from patron.sources.amqp import AmqpSource

    # A queue of RabbitMQ is read in order by one process at a time; another takes over when that dies.
    url = _variable("AMQP_URL", "amqp://guest:guest@localhost:5672/")
    return AmqpSource(topic, url=url, create=True, single_active=True)


def _sqs(topic: str) -> Source:
    from patron.sources.sqs import SqsSource

    # What a worker had that was killed comes again when its lease ends.
    return SqsSource(f"{topic}.fifo", create=True, lease=10.0)


_BROKERS: Mapping[str, Callable[[str], Source]] = {
    "memory": _memory,
    "kafka": _kafka,
    "amqp": _amqp,
    "sqs": _sqs,
}


def _variable(name: str, default: str) -> str:
    return os.environ.get(name) or default
