"""The Kafka producer's default driver: kafka-python."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from patron.clients._kafka_delivery import Done, Record, RecordMetadata
from patron.errors import ConfigError, MissingExtra, PublishFailed
from patron.kafka import Search, explained, with_remedy

__all__ = ["KafkaPythonDriver"]

try:
    import kafka
    from kafka.errors import KafkaError, KafkaTimeoutError
    from kafka.net.compat import KafkaNetClient
    from kafka.partitioner.default import DefaultPartitioner
except ImportError as error:
    raise MissingExtra("kafka-python", "kafka") from error


class KafkaPythonDriver:
    """One `kafka.KafkaProducer`, whose network thread calls back."""

    def __init__(self, config: Mapping[str, Any], timeout: float) -> None:
        """Connect within *timeout* seconds. Raises PublishFailed when there is no broker, ConfigError."""
        try:
            self._producer = _made(config, timeout)
        except KafkaError as error:
            why = with_remedy(str(error) or repr(error))
            raise PublishFailed(f"the Kafka producer could not be opened: {why}") from error
        except (ValueError, TypeError, AssertionError) as error:
            raise ConfigError(f"kafka-python refuses the producer's settings: {error}") from error

    def append(self, record: Record, done: Done, timeout: float) -> None:
        """See `Driver.append`."""
        topic, value, key, headers, partition, timestamp = record
        try:
            self._know(topic, timeout)
            future = self._producer.send(topic, value, key, headers, partition, timestamp)
        except (KafkaError, ValueError, TypeError, AssertionError) as error:
            raise _failed(topic, error) from error
        future.add_callback(lambda metadata: done(_confirmed(metadata)))
        future.add_errback(lambda error: done(_failed(topic, error)))

    def _know(self, topic: str, timeout: float) -> None:
        # send() would wait for what it does not know of the topic as long as its max_block_ms says, whatever
        # time this one message has; and the setting belongs to all threads.
        if self._producer._metadata.partitions_for_topic(topic) is None:
            try:
                self._producer._wait_on_metadata(topic, timeout * 1000)
            except KafkaTimeoutError as error:
                raise PublishFailed(
                    f"message to topic {topic!r} not sent: within {timeout:.3g} s no broker knew this topic: "
                    "is it there? A producer makes none"
                ) from error

    def flush(self, timeout: float) -> None:
        """See `Driver.flush`."""
        try:
            self._producer.flush(timeout)
        except KafkaError:
            return  # what is left is counted by the caller, and fails in its own time

    def close(self, timeout: float) -> None:
        """See `Driver.close`."""
        until = time.monotonic() + timeout
        self.flush(timeout)
        left = until - time.monotonic()
        if left <= 0:
            # close() flushes first and raises without closing when it cannot; this fails what is left.
            self._producer._sender.force_close()
        self._producer.close(max(1.0, left))


def _made(config: Mapping[str, Any], timeout: float) -> Any:
    """A producer; when it cannot be made, its network client is closed, which has a thread and sockets."""
    searches: list[Search] = []

    def kept(**configs: Any) -> Any:
        searches.append(Search(KafkaNetClient(**configs)))
        return searches[-1].client

    try:
        made = kafka.KafkaProducer(
            **config, bootstrap_timeout_ms=max(1, int(timeout * 1000)), kafka_client=kept
        )
        searches[-1].end()
    except BaseException as error:
        for search in searches:
            search.client.close()
        if isinstance(error, KafkaTimeoutError):
            why = explained("".join(search.told() for search in searches), config["bootstrap_servers"])
            raise PublishFailed(f"no Kafka broker answered within {timeout:.3g} s: {why}") from error
        raise
    return made


class Fnv1a(DefaultPartitioner):  # type: ignore[misc]
    """Keys as Go's Sarama hashes them by default: https://pkg.go.dev/github.com/IBM/sarama#NewHashPartitioner."""

    def partition(
        self,
        topic: str,
        key: Any,
        serialized_key: bytes | None,
        value: Any,
        serialized_value: Any,
        cluster: Any,
    ) -> int:
        """The partition of *serialized_key*, a random one without key."""
        if serialized_key is None:
            chosen: int = super().partition(topic, key, None, value, serialized_value, cluster)
            return chosen
        partitions = sorted(cluster.partitions_for_topic(topic))
        number: int = partitions[abs(_signed(fnv1a(serialized_key))) % len(partitions)]
        return number


def fnv1a(data: bytes) -> int:
    """FNV-1a in 32 bits, http://www.isthe.com/chongo/tech/comp/fnv/."""
    number = 0x811C9DC5
    for byte in data:
        number = (number ^ byte) * 0x01000193 & 0xFFFFFFFF
    return number


def _signed(number: int) -> int:
    return number - (1 << 32) if number >= 1 << 31 else number


def _confirmed(metadata: Any) -> RecordMetadata:
    offset = None if metadata.offset < 0 else metadata.offset
    timestamp = None if metadata.timestamp is None else metadata.timestamp / 1000
    return RecordMetadata(metadata.topic, metadata.partition, offset, timestamp)


def _failed(topic: str, error: BaseException) -> PublishFailed:
    failed = PublishFailed(f"message to topic {topic!r} not confirmed: {type(error).__name__}: {error}")
    failed.__cause__ = error
    return failed
