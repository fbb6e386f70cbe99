"""The Kafka producer's faster driver: confluent-kafka, on librdkafka."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from patron.clients._kafka_delivery import Done, Record, RecordMetadata
from patron.errors import ConfigError, MissingExtra, PublishFailed
from patron.kafka import explained

__all__ = ["ConfluentDriver"]

try:
    import confluent_kafka
except ImportError as error:
    raise MissingExtra("confluent-kafka", "confluent") from error

# librdkafka's own lines go where the application sends those of this logger.
_log = logging.getLogger("patron.librdkafka")


class ConfluentDriver:
    """One `confluent_kafka.Producer`, and the thread in which it calls back."""

    def __init__(self, config: Mapping[str, Any], timeout: float) -> None:
        """Connect within *timeout* seconds. Raises PublishFailed when there is no broker, ConfigError."""
        self._said = ""
        try:
            self._producer = confluent_kafka.Producer({"error_cb": self._hear, **config}, logger=_log)
        except confluent_kafka.KafkaException as error:
            raise ConfigError(f"librdkafka refuses the producer's settings: {error.args[0].str()}") from error
        self._stop = threading.Event()
        self._reach(timeout, config["bootstrap.servers"].split(","))
        self._thread = threading.Thread(target=self._call_back, name="patron-kafka-producer", daemon=True)
        self._thread.start()

    def _reach(self, timeout: float, servers: Sequence[str]) -> None:
        try:
            self._producer.list_topics("", timeout)
        except confluent_kafka.KafkaException as error:
            self._producer.poll(0)  # lets it tell why
            why = explained(self._said or error.args[0].str(), servers)
            raise PublishFailed(f"no Kafka broker answered within {timeout:.3g} s: {why}") from error

    def _hear(self, error: Any) -> None:
        """What librdkafka says of its connections."""
        if error.code() != confluent_kafka.KafkaError._ALL_BROKERS_DOWN:
            self._said = error.str()

    def append(self, record: Record, done: Done, timeout: float) -> None:
        """See `Driver.append`."""
        topic, value, key, headers, partition, timestamp = record
        until = time.monotonic() + timeout
        while True:
            try:
                self._producer.produce(
                    topic,
                    value=value,
                    key=key,
                    partition=-1 if partition is None else partition,
                    on_delivery=lambda error, message: done(_outcome(topic, error, message)),
                    timestamp=timestamp or 0,
                    headers=list(headers),
                )
                return
            except BufferError as error:  # librdkafka's own queue is full
                if time.monotonic() >= until:
                    raise PublishFailed(f"message to topic {topic!r} not sent: {error}") from error
                self._stop.wait(0.01)
            except (confluent_kafka.KafkaException, TypeError, ValueError) as error:
                raise PublishFailed(f"message to topic {topic!r} not sent: {error}") from error

    def _call_back(self) -> None:
        while not self._stop.is_set():
            self._producer.poll(0.1)

    def flush(self, timeout: float) -> None:
        """See `Driver.flush`."""
        self._producer.flush(timeout)

    def close(self, timeout: float) -> None:
        """See `Driver.close`."""
        if self._producer.flush(timeout):
            self._producer.purge()
            self._producer.flush(1.0)  # calls back for what was purged
        self._stop.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)


def _outcome(topic: str, error: Any, message: Any) -> RecordMetadata | PublishFailed:
    if error is not None:
        return PublishFailed(f"message to topic {topic!r} not confirmed: {error.name()}: {error.str()}")
    kind, milliseconds = message.timestamp()
    offset = message.offset()
    return RecordMetadata(
        message.topic(),
        message.partition(),
        None if offset is None or offset < 0 else offset,
        None if kind == confluent_kafka.TIMESTAMP_NOT_AVAILABLE else milliseconds / 1000,
    )
