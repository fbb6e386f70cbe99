"""Publishing to Kafka over kafka-python, confirmed by all replicas in sync: for dead letters."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from patron.errors import PublishFailed
from patron.sources._kafka_library import errors, producer, translation
from patron.sources._kafka_publishing import Publishing
from patron.sources._kafka_topics import check_or_make

__all__ = ["KafkaPublisher"]

_CLOSING = 2.0


class KafkaPublisher(Publishing):
    """Publishes to any topic of the cluster; connects at its first call. Threads may share it."""

    def _connect(self) -> Any:
        return producer(self._source)

    def _send(
        self, client: Any, topic: str, body: bytes, key: bytes | None, headers: list[tuple[str, bytes]]
    ) -> str:
        try:
            sent = client.send(topic, body, key=key, headers=headers)
            record = sent.get(timeout=self._source.delivery_timeout + 1.0)
        except (errors.KafkaError, ValueError, TypeError) as error:
            raise PublishFailed(f"cannot publish to {topic}: {_said(error)}") from error
        return f"{record.partition}:{record.offset}"

    def _check_or_make(self, topics: Sequence[str]) -> None:
        check_or_make(self._source, topics)

    def _drop(self, client: Any) -> None:
        with contextlib.suppress(errors.KafkaError):
            client.close(timeout=_CLOSING)


def _said(error: Exception) -> str:
    return str(translation(error, "refused")) if isinstance(error, errors.BrokerResponseError) else str(error)
