"""
Reading ahead a little of each partition, and giving that out by turns.

librdkafka gives out all that a fetch brought of one partition, thousands of messages, before the next. With
order within partitions most workers would have nothing to do meanwhile, while the engine is full.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice
from time import monotonic
from typing import Any

from patron.sources._kafka_confluent_library import (
    Client,
    KafkaError,
    KafkaException,
    TopicPartition,
    translation,
)
from patron.sources._kafka_lanes import Lane, Lanes

__all__ = ["Given", "Turns"]

Given = list[tuple[Lane | None, list[Any]]]
"""Records of the library, errors among them, by lane; None: of no lane that is ours."""

_AHEAD = 256
"""How many records are read at once for later."""

_MOST = 8 * 1024 * 1024
"""How much is kept of all partitions together, in bytes."""

_RECORD = 512
"""What a record takes beside its value, in bytes."""

_SLOW = 0.25
"""What lasts so long, in seconds, is not processed quickly."""

_LOOK_EVERY = 0.05
"""How often to ask which partitions wait, in seconds."""

_STILL = 1.0
"""What lasts so long can wait for the next fetch, which may come half a second late."""


class _Shelf:
    """
    What was read of one partition and not given out yet.

    *since* (monotonic seconds) is a moment after which not all was given out that was here then: how much
    that is tells *left*.
    """

    __slots__ = ("bytes", "left", "records", "since")

    def __init__(self) -> None:
        self.records: list[Any] = []
        self.bytes = 0
        self.left = 0
        self.since = 0.0

    def put(self, records: list[Any]) -> None:
        self.records += records
        self.bytes += _bytes(records)
        if not self.left:
            self._mark()

    def take(self, count: int) -> list[Any]:
        all_ = self.records
        given, self.records = all_[:count], all_[count:]
        # About: to look at each again would cost as much as all the rest here.
        self.bytes = self.bytes * len(self.records) // len(all_)
        self.left -= len(given)
        if self.left <= 0:
            self._mark()
        return given

    def _mark(self) -> None:
        self.left = len(self.records)
        self.since = monotonic()


class Turns:
    """
    What was read and not given out, whose turn it is, and which partitions are paused; its owner's thread calls.

    A pause throws away what the library has fetched of the partition, so one is paused only while it has
    plenty here, is not processed quickly, and another one has nothing; and until half of that is given out.

    Args:
        lanes: the partitions that are ours.
        key: what tells the partition of a record.
        lane_of: the one with that key, if it is ours.
        waits: whether the broker has more of a lane than was read.
    """

    def __init__(
        self,
        lanes: Lanes,
        key: Callable[[Any], Any],
        lane_of: Callable[[Any], Lane | None],
        waits: Callable[[Lane], bool],
    ) -> None:
        self._lanes = lanes
        self._key = key
        self._lane_of = lane_of
        self._waits = waits
        self._shelves: dict[Lane, _Shelf] = {}  # in the order of their turns
        self._strays: list[Any] = []
        self._full: set[Lane] = set()
        self._late: dict[Lane, float] = {}
        self._look_at = 0.0

    @property
    def count(self) -> int:
        """How many records were read and not given out."""
        return sum(len(shelf.records) for shelf in self._shelves.values()) + len(self._strays)

    # Reading

    def read(self, client: Client, limit: int) -> bool:
        """Read what is there, so that *limit* can be given out; returns whether there was anything."""
        self._go_on(client)
        self._make_way(client)
        # At least one, for the library calls back only then.
        missing = max(1, limit - self.count)
        return self._put(client.consume(missing + (_AHEAD if self._room() else 0), 0))

    def wait(self, client: Client, timeout: float) -> bool:
        """Wait at most *timeout* seconds for a record; consume() would wait for as many as it may bring."""
        record = client.poll(timeout)
        return record is not None and self._put([record])

    def keep_alive(self, client: Client, timeout: float) -> bool:
        """
        Let the library call back while nothing may be given out; it brings a record with that, if it has one.

        Without room what there is plenty of makes way, whether another partition is known to wait or not: the
        library does not ask for more of any while it has much of one.
        """
        share, before = self._share(), monotonic() - _STILL
        self._pause(
            client,
            [
                lane
                for lane in self._plenty()
                if self._shelves[lane].since < before or self._shelves[lane].bytes >= 2 * share
            ],
        )
        return self.wait(client, timeout)

    def take(self, limit: int) -> Given:
        """At most *limit* records, as much of each partition as of the others."""
        given: Given = [(None, self._strays)] if self._strays else []
        self._strays = []
        while limit > 0 and self._shelves:
            share = max(1, limit // len(self._shelves))
            for lane, shelf in list(islice(self._shelves.items(), limit)):
                records = shelf.take(share)
                given.append((lane, records))
                limit -= len(records)
                del self._shelves[lane]
                if shelf.records:
                    self._shelves[lane] = shelf
        return given

    def _put(self, records: list[Any]) -> bool:
        for key, group in groupby(records, self._key):
            lane = self._lane_of(key)
            if lane is None:
                self._strays += group
            elif lane in self._shelves:
                self._shelves[lane].put(list(group))
            else:
                shelf = self._shelves[lane] = _Shelf()
                shelf.put(list(group))
        return bool(records)

    # Making room

    def _share(self) -> float:
        return _MOST / max(1, len(self._lanes))

    def _plenty(self) -> Iterator[Lane]:
        """The partitions that are not paused and of which there is as much as can be kept."""
        share = self._share()
        return (
            lane for lane, shelf in self._shelves.items() if shelf.bytes >= share and lane not in self._full
        )

    def _room(self) -> bool:
        """Whether to read for later: a partition has nothing, and none is in its way."""
        return (
            len(self._shelves) < len(self._lanes)
            and not any(self._plenty())
            and sum(shelf.bytes for shelf in self._shelves.values()) < _MOST
        )

    def _make_way(self, client: Client) -> None:
        """Pause what keeps the library from giving out a partition that has nothing here."""
        now = monotonic()
        if now < self._look_at:
            return
        plenty = [lane for lane in self._plenty() if self._shelves[lane].since < now - _SLOW]
        if not plenty:
            return
        if any(lane not in self._shelves and self._waits(lane) for lane in self._lanes):
            self._pause(client, plenty)
        else:
            self._look_at = now + _LOOK_EVERY

    def _pause(self, client: Client, lanes: list[Lane]) -> None:
        if lanes:
            client.pause(_partitions(lanes))
            self._full.update(lanes)

    def _go_on(self, client: Client) -> None:
        """Let go on what has given out half, and what has waited for its time."""
        if not (self._full or self._late):
            return
        half = self._share() / 2
        going = [lane for lane in self._full if lane not in self._shelves or self._shelves[lane].bytes < half]
        self._full.difference_update(going)
        now = monotonic()
        for lane in [lane for lane, until in self._late.items() if until <= now]:
            del self._late[lane]
            going.append(lane)
        self._resume(client, going)

    def _resume(self, client: Client, lanes: Iterable[Lane]) -> None:
        going = [lane for lane in lanes if lane not in self._late]
        if going:
            client.resume(_partitions(going))

    # Going elsewhere

    def back(self, client: Client, lane: Lane, offset: int, until: float) -> bool:
        """
        Read *lane* again from *offset* on, but not before *until*, in monotonic seconds.

        Returns False when the library has given up on it, perhaps with an error that was read and not given out:
        it must be assigned again.

        Raises:
            SourceError: the library refuses; nothing of the lane is kept in any case.
        """
        self._shelves.pop(lane, None)
        if lane in self._full:
            self._full.discard(lane)
            self._resume(client, [lane])
        if until:
            self._late[lane] = until
        try:
            client.seek(TopicPartition(*lane.partition, offset))
        except KafkaException as error:
            if error.args[0].code() == KafkaError._STATE:
                return False
            raise translation(error.args[0], "cannot go back") from error
        if until:
            client.pause(_partitions([lane]))
        return True

    def forget(self, lanes: Iterable[Lane]) -> None:
        """Nothing of *lanes* is given out any more; they are assigned anew, if at all."""
        for lane in lanes:
            self._shelves.pop(lane, None)
            self._full.discard(lane)
            self._late.pop(lane, None)

    def assigned(self, client: Client, lanes: Iterable[Lane]) -> None:
        """*lanes* are read anew; the library remembers a pause beyond the end of an assignment."""
        given = list(lanes)
        for lane in given:
            self._shelves.pop(lane, None)
        self._full.difference_update(given)
        self._resume(client, given)
        if late := [lane for lane in given if lane in self._late]:
            client.pause(_partitions(late))


def _bytes(records: list[Any]) -> int:
    return _RECORD * len(records) + sum(map(len, records))


def _partitions(lanes: Iterable[Lane]) -> list[TopicPartition]:
    return [TopicPartition(*lane.partition) for lane in lanes]
