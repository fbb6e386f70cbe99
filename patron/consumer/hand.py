"""The hand of a worker: what it has taken from the desk, what it works on, and what it has done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from patron.consumer.entry import Entry

__all__ = ["Hand"]


class Hand:
    """
    What one worker has in hand.

    Its thread takes from the left of *run* and adds to *done*; the owner may take from the right of
    *run*. Both are deques, whose ends are safe without a lock. *current* and *since* (monotonic
    seconds) tell what it works on. *pausing* is called before its thread waits for work.
    """

    __slots__ = ("current", "done", "pausing", "run", "since", "thread")

    def __init__(self) -> None:
        self.pausing: Callable[[], None] | None = None
        self.run: deque[Entry] = deque()
        self.done: deque[Entry] = deque()
        self.current: Sequence[Entry] | None = None
        self.since = 0.0
        self.thread: int | None = None
