"""What publishing to Kafka has in common, whichever driver does it: for dead letters."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from patron.correlation import message_headers
from patron.errors import PublishFailed, SourceError
from patron.sources._kafka_messages import encode_headers, encode_key

if TYPE_CHECKING:
    from patron.sources.kafka import KafkaSource

__all__ = ["Publishing"]


class Publishing(ABC):
    """
    Publishes to any topic of the cluster; connects at its first call. Threads may share it.

    Messages with one key go to one partition, the same as the Java client chooses (murmur2).
    A driver says how to connect, to send, and to make topics.
    """

    def __init__(self, source: KafkaSource) -> None:
        self._source = source
        # Guards the two below; the drivers' producers may be shared by threads.
        self._lock = threading.Lock()
        self._client: Any = None
        self._known: set[str] = set()

    @abstractmethod
    def _connect(self) -> Any:
        """A connected producer. Raises `ConnectionLost`."""

    @abstractmethod
    def _send(
        self, client: Any, topic: str, body: bytes, key: bytes | None, headers: list[tuple[str, bytes]]
    ) -> str:
        """Publish, and return ``partition:offset`` once it is confirmed. Raises `PublishFailed`."""

    @abstractmethod
    def _check_or_make(self, topics: Sequence[str]) -> None:
        """Check that *topics* are there, or make them, as the source says. Raises `SourceError`."""

    @abstractmethod
    def _drop(self, client: Any) -> None:
        """Close *client* within moments."""

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
        try:
            encoded = encode_key(key), encode_headers(message_headers(headers))
        except (ValueError, TypeError) as error:
            raise PublishFailed(f"cannot publish to {topic}: {error}") from error
        return self._send(client, topic, body, *encoded)

    def close(self) -> None:
        """Close. May be called twice."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            self._drop(client)

    def _open(self, topic: str) -> Any:
        with self._lock:
            try:
                if topic not in self._known:
                    # Without it a topic that is missing would be waited for, for delivery_timeout seconds each time.
                    self._check_or_make([topic])
                    self._known.add(topic)
                if self._client is None:
                    self._client = self._connect()
            except SourceError as error:
                raise PublishFailed(f"cannot publish to {topic}: {error}") from error
            return self._client
