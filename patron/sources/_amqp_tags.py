"""Which delivery tags of a channel are settled, and how few frames settle the next ones."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Tags"]


class Tags:
    """
    The delivery tags that a channel gave: 1, 2, 3 ... (AMQP 0-9-1, 1.7.4.1.3).

    An acknowledgement with ``multiple`` settles every tag up to its own, so it may only be sent when all of these are
    settled already, or now. A tag that is settled twice, or was never given, makes the broker close the channel.
    """

    def __init__(self) -> None:
        self._first = 1  # the lowest that is not settled
        self._settled: set[int] = set()  # beyond it
        self._last = 0

    def __len__(self) -> int:
        """How many are given and not settled."""
        return self._last - self._first + 1 - len(self._settled)

    def give(self, tag: int) -> None:
        """The broker gave *tag*."""
        self._last = tag

    def settle(self, tags: Iterable[int]) -> tuple[int, list[int]]:
        """
        Settle *tags*; returns the one up to which one frame settles all (0: none), and those that need their own.

        What is settled already is left out.
        """
        now = {tag for tag in tags if self._first <= tag <= self._last} - self._settled
        upto, tag = 0, self._first
        while True:
            if tag in now:
                upto = tag
                now.discard(tag)
            elif tag in self._settled:
                self._settled.discard(tag)
            else:
                break
            tag += 1
        self._first = tag
        self._settled |= now
        return upto, sorted(now)
