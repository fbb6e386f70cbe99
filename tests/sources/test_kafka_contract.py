"""Kafka under the suite that every source inherits, with both ways of sharing partitions out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import pytest
from brokers.forgotten import forgotten_sockets  # noqa: F401
from brokers.kafka_server import KafkaServer

from patron.consumer.consumer import Consumer
from patron.consumer.source import Message, Source, Subscription
from patron.sources.kafka import KafkaSource
from patron.testing._contract_engine import SourceWithEngine
from patron.testing._contract_suite import Suite
from patron.testing.contract import SourceContract

pytestmark = pytest.mark.broker


class OnKafka(Suite):
    counts_deliveries = False  # in memory only: another member starts at 1
    publishes_later = False  # a topic is read in order
    checks_topics = True
    patience = 20.0

    kafka: KafkaServer

    @pytest.fixture(autouse=True)
    def _broker(self, real_kafka: KafkaServer) -> None:
        self.kafka = real_kafka

    def source(self) -> KafkaSource:
        return KafkaSource(
            self.topic,
            f"group-{self.topic}",
            brokers=self.kafka.url,
            assignment="cooperative",
            create=True,
            partitions=3,
            heartbeat_interval=0.2,
            session_timeout=6.0,
            fetch_max_wait=0.1,
        )

    def dead_letters(self, topic: str) -> Source:
        return dataclasses.replace(self.source(), topic=topic, group=f"group-{topic}")

    def spoil(self) -> bool:
        from kafka import KafkaProducer

        self.source().prepare([])
        producer = KafkaProducer(bootstrap_servers=self.kafka.url)
        producer.send(self.topic, b"spoilt", headers=[("name", b"\xff")]).get(timeout=10)
        producer.close()
        return True

    def nothing_comes(self, subscription: Subscription, seconds: float | None = None) -> bool:
        """Whether nothing arrives for a while, from when there are partitions that it could come from."""
        end = time.monotonic() + self.patience
        while not subscription.stats().assigned and time.monotonic() < end:
            if subscription.poll(10, 0.05):
                return False
        return super().nothing_comes(subscription, seconds)

    # The broker is shared, so dead letters have a topic of this test alone.

    def consumer(
        self, processor: Callable[..., Any], source: Source | None = None, **settings: Any
    ) -> Consumer:
        settings.setdefault("dead_letters", f"{self.topic}.dlq")
        return super().consumer(processor, source, **settings)

    def read_dead_letters(self, count: int, topic: str = "") -> list[Message]:
        return super().read_dead_letters(count, topic or f"{self.topic}.dlq")


class TestCooperative(OnKafka, SourceContract):
    pass


class TestEager(OnKafka, SourceWithEngine):
    """With the engine only: what a message is does not depend on how partitions are shared out."""

    def source(self) -> KafkaSource:
        return dataclasses.replace(super().source(), assignment="eager")
