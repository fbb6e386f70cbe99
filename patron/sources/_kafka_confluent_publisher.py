"""Publishing to Kafka over confluent-kafka, confirmed by all replicas in sync: for dead letters."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from patron.correlation import message_headers
from patron.errors import ConnectionLost, PublishFailed, SourceError
from patron.sources._kafka_confluent_library import (
    Client,
    Health,
    KafkaException,
    producer,
    reach,
    translation,
)
from patron.sources._kafka_confluent_topics import check_or_make
from patron.sources._kafka_messages import encode_headers, encode_key

if TYPE_CHECKING:
    from patron.sources.kafka import KafkaSource

__all__ = ["ConfluentPublisher"]

_CLOSING = 2.0


class ConfluentPublisher:
    """
    Publishes to any topic of the cluster; connects at its first call.

    Messages with one key go to one partition, the same as the Java client chooses (murmur2).
    """

    def __init__(self, source: KafkaSource) -> None:
        self._source = source
        self._health = Health(source)
        # Guards the two below; the library's producer may be shared by threads.
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
        client = self._open(topic)
        outcome: list[tuple[Any, Any]] = []
        try:
            client.produce(
                topic,
                value=body,
                key=encode_key(key),
                headers=encode_headers(message_headers(headers)),
                on_delivery=lambda error, record: outcome.append((error, record)),
            )
        except (KafkaException, BufferError, TypeError, ValueError) as error:
            raise PublishFailed(f"cannot publish to {topic}: {error}") from error
        refused, record = self._outcome(client, topic, outcome)
        if refused is not None:
            raise PublishFailed(str(translation(refused, f"cannot publish to {topic}")))
        return f"{record.partition()}:{record.offset()}"

    def close(self) -> None:
        """Close. May be called twice."""
        with self._lock:
            client, self._producer = self._producer, None
        if client is not None:
            with contextlib.suppress(KafkaException):
                client.purge()
                client.flush(_CLOSING)

    def _outcome(self, client: Client, topic: str, outcome: list[tuple[Any, Any]]) -> tuple[Any, Any]:
        until = monotonic() + self._source.delivery_timeout + 1.0
        while not outcome and monotonic() < until:
            client.poll(0.1)
        if not outcome:
            raise PublishFailed(f"cannot publish to {topic}: no answer in time")
        return outcome[0]

    def _open(self, topic: str) -> Client:
        with self._lock:
            if self._source.create and topic not in self._known:
                self._make(topic)
            if self._producer is None:
                client = producer(self._source, self._health)
                try:
                    reach(client, self._source, self._health)
                except ConnectionLost as error:
                    raise PublishFailed(f"cannot publish to {topic}: {error}") from error
                self._producer = client
            return self._producer

    def _make(self, topic: str) -> None:
        try:
            check_or_make(self._source, [topic])
        except SourceError as error:
            raise PublishFailed(f"cannot publish to {topic}: {error}") from error
        self._known.add(topic)
