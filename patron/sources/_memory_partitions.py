"""What one partition of a topic in the process holds: messages that are leased (a queue), or that stay (a log)."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Mapping
from heapq import heappop, heappush
from typing import Any

__all__ = ["Log", "Queue", "Record"]


class Record:
    """A message as the broker keeps it; *lease* grows with every lease, *expires* is on the broker's clock."""

    __slots__ = (
        "body", "deliveries", "due", "expires", "headers", "holder", "id", "key", "lease", "partition", "position",
        "problem", "queue", "timestamp",
    )  # fmt: skip

    def __init__(
        self,
        body: bytes,
        key: str | None,
        headers: Mapping[str, str],
        timestamp: float,
        partition: int,
        position: int,
    ) -> None:
        self.body = body
        self.key = key
        self.headers = headers
        self.timestamp = timestamp
        self.partition = partition
        self.position = position
        self.id = f"{partition}@{position}"
        self.problem: str | None = None
        self.deliveries = 0
        self.due = 0.0
        self.lease = 0
        self.expires = 0.0
        self.holder: Any = None
        self.queue: Queue | None = None

    def clone(self) -> Record:
        """The same message once more."""
        twin = Record(self.body, self.key, self.headers, self.timestamp, self.partition, self.position)
        twin.problem = self.problem
        twin.deliveries = self.deliveries
        return twin


class Queue:
    """
    Leased messages of one partition, or of all without a key.

    An ordered queue belongs to one *holder* as long as that one has something of it, and waits for
    its first message; an unordered one lets a delayed message stand aside. Every queue that is not
    empty stands in *turn*, the line of those that may be next; who takes it out there puts it back
    with `lined_up`.
    """

    def __init__(self, ordered: bool, turn: deque[Queue]) -> None:
        self.ordered = ordered
        self._turn = turn
        self._in_line = False
        self.waiting: deque[Record] = deque()
        self.aside: list[tuple[float, int, Record]] = []
        self.holder: Any = None
        self.held = 0

    def __len__(self) -> int:
        return len(self.waiting) + len(self.aside)

    def lined_up(self) -> None:
        """It was taken out of the line: to the end of that with it, unless it is empty."""
        self._in_line = False
        if len(self):
            self._line_up()

    def _line_up(self) -> None:
        if not self._in_line:
            self._in_line = True
            self._turn.append(self)

    def add(self, record: Record) -> None:
        """*record* is the newest."""
        self.waiting.append(record)
        self._line_up()

    def take(self, holder: Any, limit: int, now: float) -> list[Record]:
        """At most *limit* messages that *holder* may have now."""
        while self.aside and self.aside[0][0] <= now:
            self._insert(heappop(self.aside)[2])
        if self.ordered and self.holder not in (None, holder):
            return []
        taken: list[Record] = []
        while self.waiting and len(taken) < limit and self.waiting[0].due <= now:
            taken.append(self.waiting.popleft())
        if taken and self.ordered:
            self.holder = holder
        self.held += len(taken)
        return taken

    def done(self) -> None:
        """One of the taken messages is settled or back."""
        self.held -= 1
        if not self.held:
            self.holder = None

    def put_back(self, record: Record, due: float) -> None:
        """*record* waits again, in its old place, not before *due*."""
        record.due = due
        if self.ordered or not due:
            self._insert(record)
        else:
            heappush(self.aside, (due, id(record), record))
        self._line_up()

    def next_due(self) -> float | None:
        """When a delayed message may be taken; None when none is delayed."""
        if self.aside:
            return self.aside[0][0]
        return self.waiting[0].due or None if self.waiting else None

    def _insert(self, record: Record) -> None:
        """By position; what comes back is nearly always the first."""
        waiting = self.waiting
        if waiting and waiting[0].position < record.position:
            waiting.insert(bisect_left(waiting, record.position, key=lambda other: other.position), record)
        else:
            waiting.appendleft(record)


class Log:
    """One partition of a log: the records from *base* on, and what is committed."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.base = 0
        self.committed = 0

    @property
    def end(self) -> int:
        """The position after the last."""
        return self.base + len(self.records)

    def commit(self, position: int) -> None:
        """Everything before *position* is settled; what is settled is forgotten, from time to time."""
        self.committed = max(self.committed, position)
        if self.committed - self.base > 1000 + len(self.records) // 2:
            del self.records[: self.committed - self.base]
            self.base = self.committed
