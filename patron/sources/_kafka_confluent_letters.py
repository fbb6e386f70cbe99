"""Dead letters in a Kafka topic, over confluent-kafka."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from patron.consumer.source import Message
from patron.errors import NotASource
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
from patron.sources._kafka_drawer import Drawer
from patron.sources._kafka_lanes import Partition

if TYPE_CHECKING:
    from patron.sources.kafka import KafkaSource

__all__ = ["ConfluentLetters"]

_WAIT = 10.0
"""Seconds that a question to the broker may take."""


class ConfluentLetters(Drawer):
    """
    Every letter of a topic that was not handled.

    Raises:
        NotASource: there is no such topic. ConnectionLost: no broker answered.
    """

    _translating = staticmethod(translated)

    def __init__(self, source: KafkaSource, topic: str) -> None:
        super().__init__(topic)
        health = Health(source)
        self._consumer = consumer(source, f"patron.dlq.{topic}", health)
        try:
            reach(self._consumer, source, health)
            with translated(f"cannot read {topic}"):
                self._open()
        except BaseException:
            self.close()
            raise

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
        bases = [(at, self._shelve(at, first[at], end[at]).base) for at in partitions]
        self._consumer.assign([TopicPartition(*at, base) for at, base in bases])

    def _read(self, limit: int, timeout: float) -> list[Message]:
        until = monotonic() + timeout
        while True:
            first = self._consumer.poll(max(0.0, until - monotonic()))
            records = [] if first is None else [first, *self._consumer.consume(limit - 1, 0)]
            found = list(self._new(records))
            if found or monotonic() >= until:
                return found

    def _new(self, records: Sequence[Any]) -> Iterator[Message]:
        for record in records:
            partition = Partition(record.topic(), record.partition())
            error = record.error()
            if error is None:
                if self._shows(partition, record.offset()):
                    yield message_of(record, partition, record.offset(), 0, 1, True)
            elif error.code() != KafkaError._PARTITION_EOF and error.code() not in MOVING:
                raise KafkaException(error)

    def _committed(self, at: Partition) -> tuple[int, set[int]]:
        asked = [TopicPartition(*at)]
        found = patiently(lambda: self._consumer.committed(asked, timeout=_WAIT), _WAIT)[0]
        if found.offset < 0:
            return 0, set()
        return found.offset, handling.decode(found.offset, found.metadata)

    def _note(self, at: Partition, base: int, metadata: str) -> None:
        noted = [TopicPartition(*at, base, metadata)]
        patiently(lambda: self._consumer.commit(offsets=noted, asynchronous=False), _WAIT)
