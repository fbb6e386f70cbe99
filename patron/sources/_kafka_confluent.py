"""The driver confluent-kafka: the functions of `patron.sources._kafka_driver.Driver`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from patron.consumer.source import Publisher, Subscription
from patron.sources._kafka_confluent_letters import ConfluentLetters
from patron.sources._kafka_confluent_publisher import ConfluentPublisher
from patron.sources._kafka_confluent_subscription import ConfluentSubscription
from patron.sources._kafka_confluent_topics import check_or_make

if TYPE_CHECKING:
    from patron.sources.kafka import KafkaSource

__all__ = ["letters", "prepare", "publisher", "subscription"]


def subscription(source: KafkaSource) -> Subscription:
    """Join the group."""
    return ConfluentSubscription(source)


def publisher(source: KafkaSource) -> Publisher:
    """Publish to any topic."""
    return ConfluentPublisher(source)


def prepare(source: KafkaSource, topics: Sequence[str]) -> None:
    """Check that *topics* exist, or make them."""
    check_or_make(source, topics)


def letters(source: KafkaSource, topic: str) -> Subscription:
    """Read dead letters."""
    return ConfluentLetters(source, topic)
