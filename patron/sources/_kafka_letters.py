"""Dead letters in a Kafka topic, over kafka-python."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from patron.consumer.source import Message
from patron.errors import NotASource
from patron.sources import _kafka_handled as handling
from patron.sources._kafka_batches import guard
from patron.sources._kafka_drawer import Drawer
from patron.sources._kafka_lanes import Partition
from patron.sources._kafka_library import OffsetAndMetadata, TopicPartition, consumer, errors, translated
from patron.sources._kafka_messages import message as message_of

if TYPE_CHECKING:
    from patron.sources.kafka import KafkaSource

__all__ = ["KafkaLetters"]

_WAIT = 10_000
"""Milliseconds that a question to the broker may take."""


class KafkaLetters(Drawer):
    """
    Every letter of a topic that was not handled.

    Raises:
        NotASource: there is no such topic. ConnectionLost: no broker answered.
    """

    _translating = staticmethod(translated)

    def __init__(self, source: KafkaSource, topic: str) -> None:
        super().__init__(topic)
        self._consumer, _ = consumer(source, f"patron.dlq.{topic}", allow_auto_create_topics=False)
        guard(self._consumer)
        try:
            with translated(f"cannot read {topic}"):
                self._open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close; what was not handled is there the next time. May be called twice."""
        with contextlib.suppress(errors.KafkaError):
            self._consumer.close(autocommit=False, timeout_ms=_WAIT)

    def _open(self) -> None:
        numbers = self._consumer.partitions_for_topic(self._topic)
        if not numbers:
            raise NotASource(f"no topic {self._topic} in Kafka")
        partitions = [TopicPartition(self._topic, number) for number in sorted(numbers)]
        self._consumer.assign(partitions)
        first = self._consumer.beginning_offsets(partitions, timeout_ms=_WAIT)
        end = self._consumer.end_offsets(partitions, timeout_ms=_WAIT)
        for at in partitions:
            self._consumer.seek(at, self._shelve(Partition(*at), first[at], end[at]).base)

    def _read(self, limit: int, timeout: float) -> list[Message]:
        found = self._consumer.poll(timeout * 1000, max_records=limit)
        return [
            _letter(record, Partition(*at))
            for at, records in found.items()
            for record in records
            if self._shows(Partition(*at), record.offset)
        ]

    def _committed(self, at: Partition) -> tuple[int, set[int]]:
        committed = self._consumer.committed(TopicPartition(*at), metadata=True, timeout_ms=_WAIT)
        if committed is None:
            return 0, set()
        return committed.offset, handling.decode(committed.offset, committed.metadata)

    def _note(self, at: Partition, base: int, metadata: str) -> None:
        noted = {TopicPartition(*at): OffsetAndMetadata(base, metadata, -1)}
        self._consumer.commit(noted, timeout_ms=_WAIT)


def _letter(record: Any, partition: Partition) -> Message:
    return message_of(
        record.topic,
        record.partition,
        record.offset,
        record.key,
        record.value,
        record.headers,
        record.timestamp,
        record,
        lane=partition,
        tombstones=True,
    )
