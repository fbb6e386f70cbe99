"""Dead letters in a Kafka topic, which are handled in any order: what was handled stands in the commit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from patron.consumer.source import Message, Stats
from patron.errors import NotASource, SourceError, Stale
from patron.sources import _kafka_handled as handling
from patron.sources._kafka_batches import guard
from patron.sources._kafka_handled import Shelf
from patron.sources._kafka_lanes import Partition
from patron.sources._kafka_library import OffsetAndMetadata, TopicPartition, consumer, errors, translated
from patron.sources._kafka_messages import message as message_of

if TYPE_CHECKING:
    from patron.sources.kafka import KafkaSource

__all__ = ["KafkaLetters"]

_WAIT = 10_000
"""Milliseconds that a question to the broker may take."""


class KafkaLetters:
    """
    Every letter of a topic that was not handled; a member of no group, its thread is the one that opened it.

    Raises:
        NotASource: there is no such topic. ConnectionLost: no broker answered.
    """

    def __init__(self, source: KafkaSource, topic: str) -> None:
        self._topic = topic
        self._shelves: dict[Partition, Shelf] = {}
        self._returned: list[Message] = []
        self._consumer, _ = consumer(source, f"patron.dlq.{topic}", allow_auto_create_topics=False)
        guard(self._consumer)
        try:
            with translated(f"cannot read {topic}"):
                self._open()
        except BaseException:
            self.close()
            raise

    def poll(self, limit: int, timeout: float) -> Sequence[Message]:
        """At most *limit* letters, waiting at most *timeout* seconds for the first."""
        if limit == 0:
            return []
        back, self._returned = self._returned[:limit], self._returned[limit:]
        if back:
            return back
        with translated(f"cannot read {self._topic}"):
            found = self._consumer.poll(timeout * 1000, max_records=limit)
            return list(self._new(found))

    def ack(self, messages: Sequence[Message]) -> None:
        """*messages* are handled, whatever their order."""
        offsets: dict[Partition, set[int]] = {}
        for message in messages:
            if message.lane not in self._shelves or message.position is None:
                raise Stale(f"{message} was not read here", messages=[message])
            offsets.setdefault(Partition(*message.lane), set()).add(message.position)
        for partition, handled in offsets.items():
            self._handle(partition, handled)

    def nack(self, messages: Sequence[Message], delay: float = 0.0) -> None:
        """*messages* are given out again, before the others and without a delay."""
        self._returned += messages

    def extend(self, messages: Sequence[Message]) -> None:
        """Nothing expires."""

    def stats(self) -> Stats:
        """How many letters there are, as far as offsets tell."""
        return Stats(len(self._shelves), sum(shelf.waiting() for shelf in self._shelves.values()))

    def close(self) -> None:
        """Close; what was not handled is there the next time."""
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
            base, handled = self._committed(at)
            shelf = self._shelves[Partition(*at)] = Shelf(max(base, first[at]), handled, end[at])
            self._consumer.seek(at, shelf.base)

    def _committed(self, at: Any) -> tuple[int, set[int]]:
        committed = self._consumer.committed(at, metadata=True, timeout_ms=_WAIT)
        if committed is None:
            return 0, set()
        return committed.offset, handling.decode(committed.offset, committed.metadata)

    def _new(self, found: dict[Any, list[Any]]) -> Iterator[Message]:
        for at, records in found.items():
            partition = Partition(*at)
            shelf = self._shelves[partition]
            for record in records:
                shelf.next = record.offset + 1
                if record.offset not in shelf.handled:
                    shelf.shown.add(record.offset)
                    yield _letter(record, partition)

    def _handle(self, partition: Partition, offsets: set[int]) -> None:
        shelf, at = self._shelves[partition], TopicPartition(*partition)
        with translated("cannot note what was handled"):
            shelf.merge(*self._committed(at))
            base, handled = shelf.handle(offsets)
            metadata = handling.encode(base, handled)
            if len(metadata) > handling.LONGEST:
                raise SourceError(
                    f"too many letters of {partition.topic} were handled out of order: handle older ones first, "
                    f"from offset {base} of partition {partition.partition} on"
                )
            self._consumer.commit({at: OffsetAndMetadata(base, metadata, -1)}, timeout_ms=_WAIT)
        shelf.base, shelf.handled = base, handled
        shelf.shown -= offsets


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
