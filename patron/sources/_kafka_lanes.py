"""The partitions that a subscription has: what it gave out of them, what is settled, what waits. No driver, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from patron.consumer.source import Message, Stats

__all__ = ["Lane", "Lanes", "Partition"]


class Partition(NamedTuple):
    """A partition of a topic; equal to a plain tuple, as it stands in `Message.lane`."""

    topic: str
    partition: int


class Lane:
    """
    One assigned partition.

    *delivered* is the offset after the last message that was given out, *settled* the one after the
    last that was acknowledged. *end* is where the partition ended when it was assigned, None while
    that is not known. *timestamp* (seconds) is that of the last message given out. *held* (monotonic
    seconds) is until when nothing may be given out.
    """

    __slots__ = ("delivered", "deliveries", "end", "held", "partition", "settled", "timestamp")

    def __init__(self, partition: Partition, start: int) -> None:
        self.partition = partition
        self.delivered = start
        self.settled = start
        self.end: int | None = None
        self.held = 0.0
        self.timestamp: float | None = None
        # Of the messages that were given back: how often each was given out.
        self.deliveries: dict[int, int] = {}

    def gave(self, message: Message) -> None:
        """*message* is the last one that was given out."""
        assert message.position is not None
        self.delivered = message.position + 1
        self.timestamp = message.timestamp

    def count(self, offset: int) -> int:
        """How often the message at *offset* is given out with this time."""
        return self.deliveries.get(offset, 0) + 1

    def settle(self, offset: int) -> None:
        """Everything before *offset* is acknowledged."""
        self.settled = max(self.settled, offset)
        if self.deliveries:
            self.deliveries = {at: count for at, count in self.deliveries.items() if at >= offset}

    def give_back(self, messages: Iterable[Message], until: float) -> int:
        """*messages* come again, not before *until*; returns the offset to go back to."""
        for message in messages:
            assert message.position is not None
            self.deliveries[message.position] = message.deliveries
            self.delivered = min(self.delivered, message.position)
        self.held = until
        return self.delivered

    def waiting(self, position: int, until: int | None) -> int | None:
        """
        How many offsets below *until* are not settled; *position* is where the driver reads next.

        Offsets without a message (compacted, markers of transactions) at the end are passed over once
        all that was given out is settled.
        """
        if until is None:
            return None
        return max(0, until - (self.settled if self.settled < self.delivered else position))


class Lanes:
    """The assigned partitions of a subscription. Only its owner thread uses it."""

    def __init__(self) -> None:
        self._lanes: dict[tuple[str, int], Lane] = {}

    def __getitem__(self, key: tuple[str, int]) -> Lane:
        return self._lanes[key]

    def __contains__(self, key: object) -> bool:
        return key in self._lanes

    def __len__(self) -> int:
        return len(self._lanes)

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    def assign(self, partition: Partition, start: int) -> Lane:
        """*partition* is ours from now on, and is read from *start*."""
        lane = self._lanes[partition] = Lane(partition, start)
        return lane

    def revoke(self, partitions: Iterable[tuple[str, int]]) -> frozenset[tuple[str, int]]:
        """Forget *partitions*; returns those that were ours."""
        return frozenset(key for key in partitions if self._lanes.pop(key, None) is not None)

    def furthest(self, messages: Sequence[Message]) -> tuple[dict[tuple[str, int], Message], list[Message]]:
        """The last of *messages* in each partition: what to commit; and those of partitions that are not ours."""
        last: dict[tuple[str, int], Message] = {}
        stale = []
        lanes = self._lanes
        for message in messages:
            lane = message.lane
            if lane not in lanes:
                stale.append(message)
            elif lane not in last or (last[lane].position or 0) < (message.position or 0):
                last[lane] = message
        return last, stale

    def grouped(
        self, messages: Sequence[Message]
    ) -> tuple[dict[tuple[str, int], list[Message]], list[Message]]:
        """*messages* by partition, and those of partitions that are not ours."""
        ours: dict[tuple[str, int], list[Message]] = {}
        stale = []
        for message in messages:
            if message.lane in self._lanes:
                ours.setdefault(message.lane, []).append(message)
            else:
                stale.append(message)
        return ours, stale

    def stats(
        self,
        position: Callable[[Partition], int | None],
        highwater: Callable[[Partition], int | None],
        now: float,
    ) -> tuple[Stats, Mapping[Partition, int]]:
        """
        The backlog, and by partition how far the driver has to read.

        *position* and *highwater* tell what the driver knows; *now* is in seconds since the epoch.
        """
        lag: int | None = 0
        backlog: int | None = 0
        ages: list[float] = []
        by_partition: dict[Partition, int] = {}
        for lane in self._lanes.values():
            at, end = position(lane.partition), highwater(lane.partition)
            behind = None if at is None or end is None else max(0, end - at)
            lag = None if lag is None or behind is None else lag + behind
            left = None if at is None else lane.waiting(at, lane.end)
            backlog = None if backlog is None or left is None else backlog + left
            if behind is not None:
                by_partition[lane.partition] = behind
                if behind and lane.timestamp is not None:
                    ages.append(max(0.0, now - lane.timestamp))
        return Stats(len(self._lanes), lag, max(ages, default=None), backlog), by_partition
