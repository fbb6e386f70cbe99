"""What dead letters in a Kafka topic have in common, whichever driver reads them: the commit says what was handled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager

from patron.consumer.source import Message, Stats
from patron.errors import SourceError, Stale
from patron.sources import _kafka_handled as handling
from patron.sources._kafka_handled import Shelf
from patron.sources._kafka_lanes import Partition

__all__ = ["Drawer"]


class Drawer(ABC):
    """
    Every letter of a topic that was not handled; a member of no group, its thread is the one that opened it.

    A driver says how to read, and how to ask and note what was handled.
    """

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._shelves: dict[Partition, Shelf] = {}
        self._returned: list[Message] = []

    @abstractmethod
    def close(self) -> None:
        """Close; what was not handled is there the next time. May be called twice."""

    @abstractmethod
    def _translating(self, doing: str) -> AbstractContextManager[None]:
        """What raises our errors for the driver's, which happened while *doing*."""

    @abstractmethod
    def _read(self, limit: int, timeout: float) -> list[Message]:
        """At most *limit* letters that were not handled, waiting at most *timeout* seconds for the first."""

    @abstractmethod
    def _committed(self, at: Partition) -> tuple[int, set[int]]:
        """The offset up to which all were handled, and the handled ones behind it."""

    @abstractmethod
    def _note(self, at: Partition, base: int, metadata: str) -> None:
        """Commit that."""

    def poll(self, limit: int, timeout: float) -> Sequence[Message]:
        """At most *limit* letters, waiting at most *timeout* seconds for the first."""
        if limit == 0:
            return []
        back, self._returned = self._returned[:limit], self._returned[limit:]
        if back:
            return back
        with self._translating(f"cannot read {self._topic}"):
            return self._read(limit, timeout)

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

    def extend(self, messages: Sequence[Message]) -> None:  # noqa: B027 - letters have no leases, with any driver
        """Nothing expires."""

    def stats(self) -> Stats:
        """How many letters there are, as far as offsets tell."""
        return Stats(len(self._shelves), sum(shelf.waiting() for shelf in self._shelves.values()))

    def _shelve(self, at: Partition, first: int, end: int) -> Shelf:
        """The shelf of a partition that holds the offsets from *first* to *end*."""
        base, handled = self._committed(at)
        shelf = self._shelves[at] = Shelf(max(base, first), handled, end)
        return shelf

    def _shows(self, at: Partition, offset: int) -> bool:
        """Whether the letter at *offset*, which was read, is one to give out."""
        shelf = self._shelves[at]
        shelf.next = offset + 1
        if offset in shelf.handled:
            return False
        shelf.shown.add(offset)
        return True

    def _handle(self, at: Partition, offsets: set[int]) -> None:
        shelf = self._shelves[at]
        with self._translating("cannot note what was handled"):
            shelf.merge(*self._committed(at))
            base, handled = shelf.handle(offsets)
            metadata = handling.encode(base, handled)
            if len(metadata) > handling.LONGEST:
                raise SourceError(
                    f"too many letters of {at.topic} were handled out of order: handle older ones first, "
                    f"from offset {base} of partition {at.partition} on"
                )
            self._note(at, base, metadata)
        shelf.base, shelf.handled = base, handled
        shelf.shown -= offsets
