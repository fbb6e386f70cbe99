"""Publishing to Kafka over confluent-kafka, confirmed by all replicas in sync: for dead letters."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from time import monotonic
from typing import Any

from patron.errors import PublishFailed
from patron.sources._kafka_confluent_library import Health, KafkaException, producer, reach, translation
from patron.sources._kafka_confluent_topics import check_or_make
from patron.sources._kafka_publishing import Publishing

__all__ = ["ConfluentPublisher"]

_CLOSING = 2.0


class ConfluentPublisher(Publishing):
    """Publishes to any topic of the cluster; connects at its first call. Threads may share it."""

    def _connect(self) -> Any:
        health = Health(self._source)
        client = producer(self._source, health)
        reach(client, self._source, health)
        return client

    def _send(
        self, client: Any, topic: str, body: bytes, key: bytes | None, headers: list[tuple[str, bytes]]
    ) -> str:
        outcome: list[tuple[Any, Any]] = []
        try:
            client.produce(
                topic,
                value=body,
                key=key,
                headers=headers,
                on_delivery=lambda error, record: outcome.append((error, record)),
            )
        except (KafkaException, BufferError, TypeError, ValueError) as error:
            raise PublishFailed(f"cannot publish to {topic}: {error}") from error
        refused, record = self._outcome(client, topic, outcome)
        if refused is not None:
            raise PublishFailed(str(translation(refused, f"cannot publish to {topic}")))
        return f"{record.partition()}:{record.offset()}"

    def _outcome(self, client: Any, topic: str, outcome: list[tuple[Any, Any]]) -> tuple[Any, Any]:
        until = monotonic() + self._source.delivery_timeout + 1.0
        while not outcome and monotonic() < until:
            client.poll(0.1)
        if not outcome:
            raise PublishFailed(f"cannot publish to {topic}: no answer in time")
        return outcome[0]

    def _check_or_make(self, topics: Sequence[str]) -> None:
        check_or_make(self._source, topics)

    def _drop(self, client: Any) -> None:
        with contextlib.suppress(KafkaException):
            client.purge()
            client.flush(_CLOSING)
