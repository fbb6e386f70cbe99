"""Publishing to Kafka, confirmed by all replicas in sync: for dead letters."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from patron.correlation import message_headers
from patron.errors import ConnectionLost, PublishFailed, SourceError
from patron.sources._kafka_library import Client, errors, producer, translation
from patron.sources._kafka_messages import encode_headers, encode_key
from patron.sources._kafka_topics import check_or_make

if TYPE_CHECKING:
    from patron.sources.kafka import KafkaSource

__all__ = ["KafkaPublisher"]

_CLOSING = 2.0


class KafkaPublisher:
    """
    Publishes to any topic of the cluster; connects at its first call.

    Messages with one key go to one partition, the same as the Java client chooses (murmur2).
    """

    def __init__(self, source: KafkaSource) -> None:
        self._source = source
        # Guards the two below; the driver's producer may be shared by threads.
        self._lock = threading.Lock()
        self._producer: Client | None = None
        self._known: set[str] = set()

    def publish(
        self,
        topic: str,
        body: bytes,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay: float = 0.0,
    ) -> str:
        """
        Publish, and return ``partition:offset`` once all replicas in sync have it, within ``delivery_timeout``.

        Raises:
            PublishFailed: it may not be there. Kafka cannot delay a message, so *delay* must be 0.
        """
        if delay > 0:
            raise PublishFailed(f"Kafka cannot delay a message for {delay} s: its topics are read in order")
        wait = self._source.delivery_timeout
        try:
            sent = self._open(topic).send(
                topic, body, key=encode_key(key), headers=encode_headers(message_headers(headers))
            )
            record = sent.get(timeout=wait + 1.0)
        except (errors.KafkaError, ValueError, TypeError) as error:
            raise PublishFailed(f"cannot publish to {topic}: {_said(error)}") from error
        return f"{record.partition}:{record.offset}"

    def close(self) -> None:
        """Close. May be called twice."""
        with self._lock:
            client, self._producer = self._producer, None
        if client is not None:
            with contextlib.suppress(errors.KafkaError):
                client.close(timeout=_CLOSING)

    def _open(self, topic: str) -> Client:
        with self._lock:
            if self._source.create and topic not in self._known:
                self._make(topic)
            if self._producer is None:
                try:
                    self._producer = producer(self._source)
                except ConnectionLost as error:
                    raise PublishFailed(f"cannot publish to {topic}: {error}") from error
            return self._producer

    def _make(self, topic: str) -> None:
        try:
            check_or_make(self._source, [topic])
        except SourceError as error:
            raise PublishFailed(f"cannot publish to {topic}: {error}") from error
        self._known.add(topic)


def _said(error: Exception) -> str:
    return str(translation(error, "refused")) if isinstance(error, errors.BrokerResponseError) else str(error)
