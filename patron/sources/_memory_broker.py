"""
The broker inside the process: topics with partitions, leases or positions, and faults on demand.

A topic is a *queue* (messages are leased, and gone when settled) or a *log* (messages have positions
in partitions, and a commit settles everything before it); the first who reads it decides.
"""

from __future__ import annotations

import threading
import time
import zlib
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from heapq import heappop, heappush
from itertools import count
from typing import Any

from patron.errors import ConnectionLost, NotASource, PublishFailed, SourceError

__all__ = ["Log", "MemoryBroker", "Queue", "Record", "Topic"]

DEFAULT_PARTITIONS = 4


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


class Topic:
    """
    One topic.

    *lock* guards everything in it, its condition tells readers that something changed.
    """

    def __init__(self, name: str, broker: MemoryBroker) -> None:
        self.name = name
        self.broker = broker
        self.changed = threading.Condition()
        self.positional: bool | None = None
        # The queues that are not empty; the first one is next.
        self.turn: deque[Queue] = deque()
        self.loose = Queue(ordered=False, turn=self.turn)
        self.queues: list[Queue] = []
        self.logs: list[Log] = []
        self.members: list[Any] = []
        # Leased records, in the order in which their leases end.
        self.leased: dict[Record, None] = {}
        self._positions = count()
        self._turn = count()
        self.grow(DEFAULT_PARTITIONS)

    def grow(self, partitions: int) -> None:
        """Have at least *partitions* partitions."""
        while len(self.queues) < partitions:
            self.queues.append(Queue(ordered=True, turn=self.turn))
            self.logs.append(Log())

    def read_as(self, positional: bool) -> None:
        """
        Let it be a log or a queue from now on.

        Raises:
            NotASource: it is read as the other already.
        """
        if self.positional not in (None, positional):
            kinds = {True: "a log", False: "a queue"}
            raise NotASource(
                f"memory topic {self.name!r} is read as {kinds[not positional]}, so not as {kinds[positional]}"
            )
        if positional and self.positional is None:
            waiting = list(self._unsettled())
            for queue in self.all_queues():
                queue.waiting.clear()
                queue.aside.clear()
            self.positional = True
            for record in waiting:
                moved = self._append(record.body, record.key, record.headers, record.timestamp, record.due)
                moved.problem = record.problem
        self.positional = positional

    def publish(
        self,
        body: bytes,
        key: str | None,
        headers: Mapping[str, str],
        timestamp: float,
        due: float,
        problem: str | None = None,
    ) -> str:
        """Keep a message; returns its id."""
        with self.changed:
            record = self._append(body, key, headers, timestamp, due)
            record.problem = problem
            self.changed.notify_all()
            return record.id

    def waiting(self) -> int:
        """How many messages wait, delayed ones too."""
        with self.changed:
            if self.positional:
                return sum(log.end - log.committed for log in self.logs)
            return sum(len(queue) for queue in self.all_queues())

    def unsettled(self) -> int:
        """How many messages are not settled, leased ones too."""
        return self.waiting() + len(self.leased)

    def records(self) -> list[Record]:
        """Every message that is not settled, in the order of publishing where that is known."""
        with self.changed:
            return list(self._unsettled())

    def all_queues(self) -> list[Queue]:
        """The queue of the messages without a key, then the ones of the partitions."""
        return [self.loose, *self.queues]

    def requeue(self, records: Iterable[Record], due: float = 0.0) -> None:
        """Leased *records* wait again; the lease they had is of no use any more."""
        for record in sorted(records, key=lambda record: record.position, reverse=True):
            del self.leased[record]
            record.holder = None
            record.lease += 1
            assert record.queue is not None
            record.queue.done()
            record.queue.put_back(record, due)

    def expire(self, now: float) -> None:
        """Take back what was leased for too long."""
        late = []
        for record in self.leased:
            if record.expires > now:
                break
            late.append(record)
        if late:
            self.requeue(late)

    def assign(self) -> None:
        """Share the partitions of a log evenly among those who read it."""
        shares: dict[int, set[int]] = {id(member): set() for member in self.members}
        for partition in range(len(self.logs)):
            if self.members:
                shares[id(self.members[partition % len(self.members)])].add(partition)
        for member in self.members:
            member.assigned_now(shares[id(member)])
        self.changed.notify_all()

    def _append(
        self, body: bytes, key: str | None, headers: Mapping[str, str], timestamp: float, due: float = 0.0
    ) -> Record:
        if self.positional:
            partition = next(self._turn) % len(self.logs) if key is None else self._partition(key)
            log = self.logs[partition]
            record = Record(body, key, headers, timestamp, partition, log.end)
            record.due = due
            log.records.append(record)
            return record
        partition = -1 if key is None else self._partition(key)
        record = Record(body, key, headers, timestamp, partition, next(self._positions))
        record.queue = self.loose if key is None else self.queues[partition]
        record.due = due
        if due:
            record.queue.put_back(record, due)
        else:
            record.queue.add(record)
        return record

    def _partition(self, key: str) -> int:
        # Not hash(): that differs from process to process, and tests want the same lanes every time.
        return zlib.crc32(key.encode()) % len(self.queues)

    def _unsettled(self) -> Iterator[Record]:
        if self.positional:
            for log in self.logs:
                yield from log.records[log.committed - log.base :]
            return
        queued = [record for queue in self.all_queues() for record in queue.waiting]
        aside = [entry[2] for queue in self.all_queues() for entry in queue.aside]
        yield from sorted([*queued, *aside, *self.leased], key=lambda record: record.position)


class MemoryBroker:
    """
    Topics by name, and the faults of a real broker on demand.

    Any thread may call everything. *clock* (monotonic seconds) times leases and delays, *now*
    (seconds since the epoch) stamps messages; a test passes a `patron.testing.FakeClock`.
    """

    def __init__(
        self,
        name: str = "",
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.clock = clock
        self.now = now
        self.is_down = False
        # Guards `_topics` and the counts of faults.
        self._lock = threading.Lock()
        self._topics: dict[str, Topic] = {}
        self._faults: dict[str, list[Exception]] = {}
        self._duplicates = 0

    def topic(self, name: str, partitions: int = DEFAULT_PARTITIONS) -> Topic:
        """The topic called *name*, made when it is not there, with at least *partitions* partitions."""
        with self._lock:
            topic = self._topics.get(name)
            if topic is None:
                topic = self._topics[name] = Topic(name, self)
        if len(topic.queues) < partitions:
            with topic.changed:
                topic.grow(partitions)
        return topic

    def has(self, topic: str) -> bool:
        """Whether there is a topic called *topic*."""
        with self._lock:
            return topic in self._topics

    def publish(
        self,
        topic: str,
        body: bytes,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay: float = 0.0,
        problem: str | None = None,
    ) -> str:
        """
        Keep a message; returns its id. Readers cannot read it when it has a *problem*.

        Raises:
            PublishFailed: the broker is down, or `fail_publish` asked for it.
        """
        if self.is_down:
            raise PublishFailed(f"memory broker {self.name!r} is down")
        self.fault("publish")
        due = self.clock() + delay if delay else 0.0
        return self.topic(topic).publish(body, key, dict(headers or {}), self.now(), due, problem)

    def messages(self, topic: str) -> list[Record]:
        """What is unsettled in *topic*, for tests to look at: body, key, headers, id, deliveries."""
        return self.topic(topic).records()

    # Faults

    def lose(self) -> None:
        """Every connection breaks; opening again works."""
        for topic in self._all():
            with topic.changed:
                for member in list(topic.members):
                    member.lost = True
                topic.changed.notify_all()

    def down(self) -> None:
        """Every connection breaks, and there is no other until `up`."""
        self.is_down = True
        self.lose()

    def up(self) -> None:
        """Connections work again."""
        self.is_down = False

    def fail_publish(self, times: int = 1, error: Exception | None = None) -> None:
        """The next *times* messages are refused with *error* (default `PublishFailed`), and not kept."""
        self._plan("publish", times, error or PublishFailed("refused on demand"))

    def fail_settle(self, times: int = 1, error: Exception | None = None) -> None:
        """The next *times* acks or nacks do nothing but raise *error* (default `SourceError`)."""
        self._plan("settle", times, error or SourceError("commit failed on demand"))

    def duplicate(self, times: int = 1) -> None:
        """The next *times* messages of queues are given out twice."""
        with self._lock:
            self._duplicates += times

    def expire_leases(self, topic: str) -> None:
        """What is leased of a queue is given to whoever asks next; its holders learn of it when they settle."""
        found = self.topic(topic)
        with found.changed:
            found.requeue(list(found.leased))
            found.changed.notify_all()

    def revoke(self, topic: str, lanes: Iterable[int] | None = None, *, orderly: bool = False) -> None:
        """
        Take partitions (None: all) from their readers, who are told, and share them out anew.

        *orderly*: ask the readers to give them up, as the next thing that they do when they poll.
        """
        found = self.topic(topic)
        with found.changed:
            chosen = set(range(len(found.logs))) if lanes is None else set(lanes)
            for member in found.members:
                (member.ask_for if orderly else member.take_away)(chosen)
            if found.positional and not orderly:
                found.assign()
            found.changed.notify_all()

    def fault(self, place: str) -> None:
        """Raise the fault that is planned for *place*, if any."""
        if not self._faults:
            return
        with self._lock:
            planned = self._faults.get(place)
            error = planned.pop(0) if planned else None
            if planned is not None and not planned:
                del self._faults[place]
        if error is not None:
            raise error

    def twice(self) -> bool:
        """Whether the message at hand is to be given out twice."""
        if not self._duplicates:
            return False
        with self._lock:
            self._duplicates -= 1
            return True

    def check(self, lost: bool) -> None:
        """
        Return when a connection that was *lost* or not may be used.

        Raises:
            ConnectionLost: it may not.
        """
        if lost or self.is_down:
            raise ConnectionLost(
                f"memory broker {self.name!r} {'is down' if self.is_down else 'closed the connection'}"
            )

    def _plan(self, place: str, times: int, error: Exception) -> None:
        with self._lock:
            self._faults.setdefault(place, []).extend([error] * times)

    def _all(self) -> list[Topic]:
        with self._lock:
            return list(self._topics.values())
