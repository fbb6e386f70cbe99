"""RabbitMQ under the suite that every source inherits, with both types of queues."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from brokers.rabbitmq_server import RabbitMQServer

from patron.consumer.consumer import Consumer
from patron.consumer.source import Message, Source, Subscription
from patron.sources.amqp import AmqpSource
from patron.testing.contract import SourceContract
from patron.testing.driving import driven


class TestQuorum(SourceContract):
    orders_keys = False

    url: str

    @pytest.fixture(autouse=True)
    def _queues(self, _world: None, rabbitmq: RabbitMQServer) -> Iterator[None]:
        self.url = rabbitmq.url
        # Both here: two that make one quorum queue at the same moment may crash a channel of RabbitMQ (541).
        self.source().prepare([f"{self.topic}.dlq"])
        yield
        connection = self.source()._connect()
        for queue in (self.topic, f"{self.topic}.dlq"):
            connection.channel().call("queue_delete", queue=queue)
        connection.close()

    def source(self) -> AmqpSource:
        return AmqpSource(self.topic, self.url, create=True)

    def dead_letters(self, topic: str) -> Source:
        return dataclasses.replace(self.source(), queue=topic)

    def crash(self, subscription: Subscription) -> None:
        subscription._connection.abort()  # the socket closes without a word

    # The broker is shared, so dead letters have a queue of this test alone.

    def consumer(
        self, processor: Callable[..., Any], source: Source | None = None, **settings: Any
    ) -> Consumer:
        settings.setdefault("dead_letters", f"{self.topic}.dlq")
        return super().consumer(processor, source, **settings)

    def read_dead_letters(self, count: int, topic: str = "") -> list[Message]:
        return super().read_dead_letters(count, topic or f"{self.topic}.dlq")

    def test_what_never_started_counts_no_delivery(self) -> None:
        pytest.skip("RabbitMQ counts every time that it gave a message out")

    def test_what_was_given_out_too_often_is_not_processed(self) -> None:
        tries: list[int] = []
        self.publish(b"1")
        with self.opened() as subscription:
            for _ in range(2):
                subscription.nack(self.receive(subscription, 1))
        with driven(self.consumer(lambda message: tries.append(1), max_deliveries=2)):
            (letter,) = self.read_dead_letters(1)
        assert tries == []
        # The fourth: it was pushed to the subscription that was closed then.
        assert letter.headers["x-patron-reason"].startswith(("delivered 3 times", "delivered 4 times"))
        assert self.all_settled()

    def test_what_did_not_start_is_given_back_at_a_stop(self) -> None:
        self.counts_deliveries = False  # likewise
        super().test_what_did_not_start_is_given_back_at_a_stop()


class TestClassic(TestQuorum):
    counts_deliveries = False

    def source(self) -> AmqpSource:
        return dataclasses.replace(super().source(), queue_type="classic")

    def test_what_was_given_out_too_often_is_not_processed(self) -> None:
        pytest.skip("a classic queue tells only that a message was given out before")
