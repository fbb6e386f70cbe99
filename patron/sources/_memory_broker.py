"""
The broker inside the process: topics with partitions, leases or positions, and faults on demand.

A topic is a *queue* (messages are leased, and gone when settled) or a *log* (messages have positions
in partitions, and a commit settles everything before it); the first who reads it decides.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count
from typing import Any

from patron.errors import ConnectionLost, NotASource, PublishFailed, SourceError
from patron.sources._memory_partitions import Log, Queue, Record

__all__ = ["MemoryBroker", "Topic"]

DEFAULT_PARTITIONS = 4


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
