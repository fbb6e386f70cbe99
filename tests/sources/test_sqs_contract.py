"""SQS under the suite that every source inherits: a standard queue and a FIFO queue, on moto's server."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from brokers.moto_process import SqsServer
from brokers.processes import Server
from brokers.tcp_proxy import Proxy

from patron.consumer.consumer import Consumer
from patron.consumer.source import Message, Source, Subscription
from patron.sources.sqs import SqsSource
from patron.testing.contract import SourceContract

pytestmark = pytest.mark.broker


class TestStandard(SourceContract):
    """
    The order of a standard queue is nobody's promise; a second is the shortest delay and the shortest lease.

    One receiver, since moto gives a message to each of two requests that come at the same moment.
    """

    orders_keys = False
    checks_topics = True
    patience = 30.0
    many = 60
    budget = 4.0
    wait = 0.1  # requests that do not wait at the queue; test_sqs_polling.py has those that do

    @pytest.fixture(autouse=True)
    def _server(self, sqs: SqsServer, proxy: Callable[[Server], Proxy]) -> None:
        self._through = proxy(sqs)

    def source(self) -> SqsSource:
        return SqsSource(
            self.topic, endpoint_url=self._through.url, create=True, wait=self.wait, lease=120.0, receivers=1
        )

    def dead_letters(self, topic: str) -> Source:
        return dataclasses.replace(self.source(), queue=topic)

    def consumer(
        self, processor: Callable[..., Any], source: Source | None = None, **settings: Any
    ) -> Consumer:
        # All tests share one server, so each needs dead letters of its own.
        settings.setdefault("dead_letters", f"{self.topic}.dlq")
        return super().consumer(processor, source, **settings)

    def read_dead_letters(self, count: int, topic: str | None = None) -> list[Message]:
        return super().read_dead_letters(count, topic or f"{self.topic}.dlq")

    def all_settled(self, topic: str | None = None) -> bool:
        # A message whose lease goes on shows nowhere but in the count.
        if not super().all_settled(topic):
            return False
        letters = self.source().letters(topic or self.topic)
        try:
            return letters.stats().lag == 0
        finally:
            letters.close()

    def crash(self, subscription: Subscription) -> None:
        # What a killed process had comes again when its lease ends, which we do not wait for.
        handles = list(subscription._held)
        subscription._held.clear()
        for handle in handles:
            subscription._queues.client.change_message_visibility(
                QueueUrl=subscription._url, ReceiptHandle=handle, VisibilityTimeout=0
            )
        subscription.close()

    def lose(self) -> bool:
        self._through.cut()
        return True


class TestFifo(TestStandard):
    """
    Order within a message group, of which nobody gets more while one of its messages is out.

    A message cannot be delayed when it is sent; that it can when it is given back is in test_sqs_queue.py.
    """

    orders_keys = True
    delays = False
    publishes_later = False

    @pytest.fixture(autouse=True)
    def _fifo(self, _world: None) -> None:
        self.topic += ".fifo"
