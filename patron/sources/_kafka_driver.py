"""What a driver of the Kafka source provides; its module is imported when it is first needed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from patron.consumer.source import Publisher, Subscription

if TYPE_CHECKING:
    from patron.sources.kafka import KafkaSource

__all__ = ["Driver", "driver"]

_MODULES = {
    "kafka-python": "patron.sources._kafka_python",
    "confluent": "patron.sources._kafka_confluent",
}


class Driver(Protocol):
    """The functions of a driver's module; each does what the method of `KafkaSource` says."""

    def subscription(self, source: KafkaSource) -> Subscription:
        """Join the group."""
        ...

    def publisher(self, source: KafkaSource) -> Publisher:
        """Publish to any topic."""
        ...

    def prepare(self, source: KafkaSource, topics: Sequence[str]) -> None:
        """Check that *topics* exist, or make them."""
        ...

    def letters(self, source: KafkaSource, topic: str) -> Subscription:
        """Read dead letters."""
        ...


def driver(name: str) -> Driver:
    """
    The module of the driver called *name*.

    Raises:
        MissingExtra: the driver is not installed.
    """
    return cast(Driver, import_module(_MODULES[name]))
