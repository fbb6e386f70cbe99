"""Dead letters in a Kafka topic over confluent-kafka, which are handled in any order."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from patron.consumer.source import Message, Stats
from patron.errors import NotASource, SourceError, Stale
from patron.sources import _kafka_handled as handling
from patron.sources._kafka_codes import MISSING_TOPIC
from patron.sources._kafka_confluent_library import (
    END,
    MOVING,
    Health,
    KafkaError,
    KafkaException,
    TopicPartition,
    consumer,
    patiently,
    reach,
    translated,
)
from patron.sources._kafka_confluent_message import message_of
from patron.sources._kafka_confluent_start import OLDEST, offsets_at
from patron.sources._kafka_handled import Shelf
from patron.sources._kafka_lanes import Partition

if TYPE_CHECKING:
    from patron.sources.kafka import KafkaSource

__all__ = ["ConfluentLetters"]

_WAIT = 10.0
"""Seconds that a question to the broker may take."""


class ConfluentLetters:
    """
    Every letter of a topic that was not handled; a member of no group, its thread is the one that opened it.

    Raises:
        NotASource: there is no such topic. ConnectionLost: no broker answered.
    """

    def __init__(self, source: KafkaSource, topic: str) -> None:
        self._topic = topic
        self._shelves: dict[Partition, Shelf] = {}
        self._returned: list[Message] = []
        health = Health(source)
        self._consumer = consumer(source, f"patron.dlq.{topic}", health)
        try:
            reach(self._consumer, source, health)
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
        until = monotonic() + timeout
        with translated(f"cannot read {self._topic}"):
            while True:
                first = self._consumer.poll(max(0.0, until - monotonic()))
                records = [] if first is None else [first, *self._consumer.consume(limit - 1, 0)]
                found = list(self._new(records))
                if found or monotonic() >= until:
                    return found

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
        """Close; what was not handled is there the next time. May be called twice."""
        with contextlib.suppress(KafkaException, RuntimeError):
            self._consumer.close()

    def _open(self) -> None:
        about = self._consumer.list_topics(self._topic, timeout=_WAIT).topics[self._topic]
        if about.error is not None and about.error.code() == MISSING_TOPIC:
            raise NotASource(f"no topic {self._topic} in Kafka")
        partitions = [Partition(self._topic, number) for number in sorted(about.partitions)]
        first, end = (offsets_at(self._consumer, partitions, moment, _WAIT) for moment in (OLDEST, END))
        for at in partitions:
            base, handled = self._committed(at)
            self._shelves[at] = Shelf(max(base, first[at]), handled, end[at])
        self._consumer.assign([TopicPartition(*at, shelf.base) for at, shelf in self._shelves.items()])

    def _committed(self, at: Partition) -> tuple[int, set[int]]:
        asked = [TopicPartition(*at)]
        found = patiently(lambda: self._consumer.committed(asked, timeout=_WAIT), _WAIT)[0]
        if found.offset < 0:
            return 0, set()
        return found.offset, handling.decode(found.offset, found.metadata)

    def _new(self, records: Sequence[Any]) -> Iterator[Message]:
        for record in records:
            partition = Partition(record.topic(), record.partition())
            error = record.error()
            if error is None:
                shelf = self._shelves[partition]
                shelf.next = record.offset() + 1
                if record.offset() not in shelf.handled:
                    shelf.shown.add(record.offset())
                    yield message_of(record, partition, record.offset(), 0, 1, True)
            elif error.code() != KafkaError._PARTITION_EOF and error.code() not in MOVING:
                raise KafkaException(error)

    def _handle(self, partition: Partition, offsets: set[int]) -> None:
        shelf = self._shelves[partition]
        with translated("cannot note what was handled"):
            shelf.merge(*self._committed(partition))
            base, handled = shelf.handle(offsets)
            metadata = handling.encode(base, handled)
            if len(metadata) > handling.LONGEST:
                raise SourceError(
                    f"too many letters of {partition.topic} were handled out of order: handle older ones first, "
                    f"from offset {base} of partition {partition.partition} on"
                )
            noted = [TopicPartition(*partition, base, metadata)]
            patiently(lambda: self._consumer.commit(offsets=noted, asynchronous=False), _WAIT)
        shelf.base, shelf.handled = base, handled
        shelf.shown -= offsets
