"""One message in the ledger, what became of it so far, and the lane that it waits in."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Iterator

from patron.consumer.source import Message

__all__ = ["DELAYED", "DONE", "TAKEN", "WAITING", "Entry", "Lane", "Verdict", "by_lane"]

WAITING, TAKEN, DELAYED, DONE = range(4)


class Entry:
    """
    One message in the ledger, and what became of it so far.

    *live* is False once the message was taken away: whatever comes of it then is ignored. The other
    fields belong to whoever took the entry: *failures* and *first_failure* (epoch seconds) count,
    *verdict* is why it must become a dead letter, *headers* replace the message's in the next run.
    """

    # Not slots: what most entries never set costs nothing as an attribute of the class.
    state = WAITING
    live = True
    failures = 0
    first_failure: float | None = None
    headers: dict[str, str] | None = None
    verdict: Verdict | None = None

    def __init__(self, message: Message, lane: Lane, now: float) -> None:
        self.message = message
        self.lane = lane
        self.since = now


class Verdict:
    """Why a message must become a dead letter: a short reason, and the error if there was one."""

    __slots__ = ("error", "publish_failures", "reason")

    def __init__(self, reason: str, error: BaseException | None = None) -> None:
        self.reason = reason
        self.error = error
        self.publish_failures = 0


class Lane:
    """The waiting entries of one lane, and how many of it are taken, delayed or otherwise in hand."""

    __slots__ = ("held", "key", "listed", "ordered", "queue", "since")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.ordered = key is not None
        self.queue: deque[Entry] = deque()
        self.held = 0
        self.listed = False
        self.since = 0.0


def by_lane(entries: Iterable[Entry]) -> Iterator[tuple[Lane, int]]:
    """The lanes of *entries*, which mostly come in rows of one lane, with the length of each row."""
    current: Lane | None = None
    count = 0
    for entry in entries:
        lane = entry.lane
        if lane is current:
            count += 1
            continue
        if current is not None:
            yield current, count
        current, count = lane, 1
    if current is not None:
        yield current, count
