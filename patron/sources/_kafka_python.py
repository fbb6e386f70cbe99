"""The driver kafka-python: the functions of `patron.sources._kafka_driver.Driver`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from patron.consumer.source import Publisher, Subscription
from patron.sources._kafka_letters import KafkaLetters
from patron.sources._kafka_publisher import KafkaPublisher
from patron.sources._kafka_subscription import KafkaSubscription
from patron.sources._kafka_topics import check_or_make

if TYPE_CHECKING:
    from patron.sources.kafka import KafkaSource

__all__ = ["letters", "prepare", "publisher", "subscription"]


def subscription(source: KafkaSource) -> Subscription:
    """Join the group."""
    return KafkaSubscription(source)


def publisher(source: KafkaSource) -> Publisher:
    """Publish to any topic."""
    return KafkaPublisher(source)


def prepare(source: KafkaSource, topics: Sequence[str]) -> None:
    """Check that *topics* exist, or make them."""
    check_or_make(source, topics)


def letters(source: KafkaSource, topic: str) -> Subscription:
    """Read dead letters."""
    return KafkaLetters(source, topic)
