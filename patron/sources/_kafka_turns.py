"""
Reading the partitions by turns, from what kafka-python has fetched.

By itself it gives out all that it fetched of one partition, up to a thousand messages, before the next.
With order within partitions most workers would have nothing to do meanwhile, while the engine is full.
"""

from __future__ import annotations

from typing import Any

from patron.sources._kafka_library import Client, errors

__all__ = ["Turns"]

_LEAST = 8
"""So many messages in a row a partition gives at least, for turns cost a little."""


class _Spent:
    """In the place of a fetch that is used up: kafka-python takes the next one that it has not looked at."""

    def __bool__(self) -> bool:
        return False

    def drain(self) -> None:
        """There is nothing in it."""


class Turns:
    """Whose turn it is; only the thread that polls calls."""

    def __init__(self, consumer: Client) -> None:
        self._fetcher = consumer._fetcher
        self._subscriptions = consumer._subscription
        self._late: BaseException | None = None

    def share(self, limit: int, partitions: int) -> int:
        """How many messages one partition may give at once."""
        return max(1, min(limit, max(_LEAST, limit // max(1, partitions))))

    def next(self) -> bool:
        """
        Let another partition have its turn; returns whether one is chosen that is not begun yet.

        What is in hand goes to the end of those that are put aside, where kafka-python puts what is paused.
        It takes up the first of them only when nothing is in hand, and by itself keeps in hand what is used up:
        a partition that was paused in the middle of a fetch would then never be read again.
        """
        fetcher = self._fetcher
        current = fetcher._next_partition_records
        if current:
            fetcher._paused_partition_records[current.topic_partition] = current
        new = any(
            not self._subscriptions.is_paused(fetch.topic_partition) for fetch in fetcher._completed_fetches
        )
        fetcher._next_partition_records = _Spent() if new else None
        return new

    def fill(self, records: dict[Any, list[Any]], limit: int, share: int) -> None:
        """Add to *records* what was fetched of further partitions, at most *limit* in all."""
        left = limit - sum(map(len, records.values()))
        while left > 0:
            begun = not self.next()
            try:
                found, _ = self._fetcher.fetched_records(min(share, left))
            except errors.KafkaError as error:
                self._late = error  # what was found so far counts as given out
                return
            for partition, more in found.items():
                records.setdefault(partition, []).extend(more)
                left -= len(more)
            if begun and not found:
                return

    def check(self) -> None:
        """Raise what went wrong when there was something to return."""
        late, self._late = self._late, None
        if late is not None:
            raise late
