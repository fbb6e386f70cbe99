"""Consumers: one engine that reads messages from any source, and the seam that a broker fills."""

from patron.consumer.consumer import Consumer
from patron.consumer.settings import Batch, ConsumerSettings
from patron.consumer.source import Message, Publisher, Revoked, Source, Stats, Subscription
from patron.reliability.retry import RetryPolicy

__all__ = [
    "Batch",
    "Consumer",
    "ConsumerSettings",
    "Message",
    "Publisher",
    "RetryPolicy",
    "Revoked",
    "Source",
    "Stats",
    "Subscription",
]
