"""Where partitions are read from and where they end, as kafka-python and the broker know it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from patron.errors import ConnectionLost
from patron.sources import _kafka_start as starting
from patron.sources._kafka_lanes import Lane, Partition
from patron.sources._kafka_library import Client, TopicPartition, errors, translated, translation

if TYPE_CHECKING:
    from patron.sources.kafka import KafkaSource

__all__ = ["Positions"]

_ASKING = 5000
"""Milliseconds that a question may take that is asked again later."""

_LOOKING = 500
"""Milliseconds that one may take which only statistics need."""

_LOOK_EVERY = 2.0
"""Seconds between two of them."""


class Positions:
    """The questions that a subscription asks; whoever owns the consumer calls."""

    def __init__(self, consumer: Client, source: KafkaSource) -> None:
        self._consumer = consumer
        self._source = source
        self._ends: dict[Partition, int] = {}
        self._look_at = 0.0

    def know_topics(self) -> None:
        """
        Wait until the driver knows the topics.

        Raises:
            ConnectionLost: it cannot find their leaders.
        """
        topics = self._source.topics
        firsts = [TopicPartition(topic, 0) for topic in topics]
        try:
            self._consumer.beginning_offsets(firsts, timeout_ms=self._source.connect_timeout * 1000)
        except errors.KafkaTimeoutError as error:
            raise ConnectionLost(f"no leader of {', '.join(topics)} can be reached") from error
        except errors.KafkaError as error:
            raise translation(error, "cannot join the group") from error

    def back_to(self, partition: Partition, settled: int) -> None:
        """
        Go back to what the group has committed, or else to *settled*.

        Over an eager rebalance the driver keeps its own position, which is beyond what was processed.
        """
        at = TopicPartition(*partition)
        committed = self._consumer.committed(at, timeout_ms=_ASKING)
        self._consumer.seek(at, settled if committed is None else committed)

    def next_of(self, partition: Partition) -> int | None:
        """The offset that is read next, once the driver found out what the group has committed."""
        position = self._consumer.position(TopicPartition(*partition), timeout_ms=_ASKING)
        return None if position is None else int(position)

    def ends(self, partitions: Iterable[Partition], timeout: int = _ASKING) -> dict[Partition, int]:
        """Where *partitions* end now; nothing when that cannot be found out."""
        asked = [TopicPartition(*partition) for partition in partitions]
        try:
            found = self._consumer.end_offsets(asked, timeout_ms=timeout)
        except errors.KafkaError:
            return {}
        return {Partition(*at): offset for at, offset in found.items()}

    def points(self, partitions: list[Any]) -> dict[Any, int]:
        """Where the settings say to start in *partitions* of the driver."""
        point = starting.point(self._source.start, time.time())
        timeout = self._source.request_timeout * 1000
        with translated("cannot look up offsets"):
            if point == starting.OLDEST:
                return dict(self._consumer.beginning_offsets(partitions, timeout_ms=timeout))
            ends = dict(self._consumer.end_offsets(partitions, timeout_ms=timeout))
            if point == starting.NEWEST:
                return ends
            found = self._consumer.offsets_for_times(dict.fromkeys(partitions, point), timeout_ms=timeout)
        return {at: ends[at] if found.get(at) is None else found[at].offset for at in partitions}

    def reached(self, lane: Lane) -> int | None:
        """Up to where *lane* was read, offsets without messages included, as far as it is known without asking."""
        end = self.highwater(lane.partition)
        if end is None or lane.delivered >= end:
            return lane.delivered
        try:
            position = self._consumer.position(TopicPartition(*lane.partition), timeout_ms=0)
        except errors.KafkaError:
            return None
        return lane.delivered if position is None else max(lane.delivered, int(position))

    def look(self, partitions: Sequence[Partition]) -> None:
        """Ask now and then where *partitions* end, while nothing is fetched that would tell it."""
        now = monotonic()
        if partitions and now >= self._look_at:
            self._look_at = now + _LOOK_EVERY
            self._ends = self.ends(partitions, _LOOKING)

    def highwater(self, partition: Partition) -> int | None:
        """Where *partition* ended at the last fetch, or when it was asked for later."""
        try:
            end = self._consumer.highwater(TopicPartition(*partition))
        except errors.KafkaError:
            return None
        return None if end is None else max(int(end), self._ends.get(partition, 0))
