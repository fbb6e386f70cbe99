"""How a topic of the memory broker is read: as a queue with leases, or as a log with positions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from time import monotonic
from typing import Any, Protocol

from patron.consumer.source import Message, Revoked, Stats
from patron.errors import SourceError, Stale
from patron.sources._memory_broker import MemoryBroker
from patron.sources._memory_partitions import Queue, Record

__all__ = ["LogSubscription", "QueueSubscription"]


class Reading(Protocol):
    """What a subscription must know of its `MemorySource`."""

    @property
    def topic(self) -> str: ...
    @property
    def positional(self) -> bool: ...
    @property
    def partitions(self) -> int: ...
    @property
    def lease(self) -> float: ...


class _Subscription:
    """What queue and log have in common: waiting, waking, losing the connection. Owned by the thread that polls."""

    def __init__(self, source: Reading, broker: MemoryBroker) -> None:
        self.lost = False
        self._source = source
        self._broker = broker
        self._topic = broker.topic(source.topic, source.partitions)
        self._closed = False
        self._woken = False
        self._revoked: set[int] = set()
        self._asked: set[int] = set()
        self.revoking: Callable[[frozenset[Hashable]], None] | None = None
        with self._topic.changed:
            self._topic.read_as(source.positional)
            self._topic.members.append(self)

    def poll(self, limit: int, timeout: float) -> Sequence[Message | Revoked]:
        until = monotonic() + timeout
        while True:
            if self._asked:
                self._give_up()
            with self._topic.changed:
                self._check()
                received = self._receive(limit)
                left = until - monotonic()
                if received or self._woken or left <= 0:
                    self._woken = False
                    return received
                if not self._asked:
                    self._topic.changed.wait(self._patience(left) if limit else left)

    def wake(self) -> None:
        with self._topic.changed:
            self._woken = True
            self._topic.changed.notify_all()

    def close(self) -> None:
        with self._topic.changed:
            if not self._closed:
                self._closed = True
                self._topic.members.remove(self)
                self._leave()
                self._topic.changed.notify_all()

    def ask_for(self, lanes: Collection[int]) -> None:
        """The broker wants *lanes* back; called with the topic's lock held."""
        self._asked |= set(lanes)

    def _give_up(self) -> None:
        # Without the lock, for it may take long, and processors publish.
        if self.revoking is not None:
            self.revoking(frozenset(self._asked))
        with self._topic.changed:
            self.take_away(self._asked)
            self._asked = set()
            if self._source.positional:
                self._topic.assign()
            self._topic.changed.notify_all()

    def take_away(self, lanes: Collection[int]) -> None:
        """The broker takes *lanes* away; called with the topic's lock held."""
        raise NotImplementedError

    def _receive(self, limit: int) -> list[Message | Revoked]:
        received: list[Message | Revoked] = []
        if self._revoked:
            received.append(Revoked(frozenset(self._revoked)))
            self._revoked = set()
        if limit > 0:
            received.extend(self._fetch(limit))
        return received

    def _check(self) -> None:
        if self._closed:
            raise SourceError("this subscription is closed: open another")
        self._broker.check(self.lost)

    def _patience(self, left: float) -> float:
        """Until the next delayed message may come; a fake clock is looked at often."""
        due = self._next_due()
        return left if due is None else max(0.001, min(left, 0.02, due - self._broker.clock()))

    def _message(self, record: Record, lane: int | None, generation: int) -> Message:
        record.deliveries += 1
        return Message(
            record.body,
            self._topic.name,
            record.id,
            record.headers,
            record.key,
            lane,
            record.position,
            record.deliveries,
            0,
            record.timestamp,
            generation,
            record,
            None,
            record.problem,
        )

    def _fetch(self, limit: int) -> list[Message]:
        raise NotImplementedError

    def _next_due(self) -> float | None:
        raise NotImplementedError

    def _leave(self) -> None:
        raise NotImplementedError


class QueueSubscription(_Subscription):
    """Reads a topic as a queue: each message is leased, and gone when it is acknowledged."""

    def ack(self, messages: Sequence[Message]) -> None:
        def settle(records: list[Record]) -> None:
            for record in records:
                del self._topic.leased[record]
                record.holder = None
                assert record.queue is not None
                record.queue.done()

        self._settle(messages, settle)

    def nack(self, messages: Sequence[Message], delay: float = 0.0) -> None:
        due = self._broker.clock() + delay if delay > 0 else 0.0
        counts = {id(message.raw): message.deliveries for message in messages}

        def settle(records: list[Record]) -> None:
            for record in records:
                record.deliveries = counts[id(record)]
            self._topic.requeue(records, due)

        self._settle(messages, settle)

    def extend(self, messages: Sequence[Message]) -> None:
        with self._topic.changed:
            self._check()
            mine, stale = self._split(messages)
            for record in mine:
                del self._topic.leased[record]
                self._lease(record)
        _raise_stale(stale)

    def stats(self) -> Stats:
        with self._topic.changed:
            self._check()
            queues = self._topic.all_queues()
            stamps = [queue.waiting[0].timestamp for queue in queues if queue.waiting]
            age = max(0.0, self._broker.now() - min(stamps)) if stamps else None
            return Stats(len(queues), sum(map(len, queues)), age)

    def assigned_now(self, partitions: Collection[int]) -> None:
        """Queues are not assigned."""

    def take_away(self, lanes: Collection[int]) -> None:
        """The broker takes *lanes* away; what this one holds of them goes to the next."""
        self._topic.requeue([r for r in self._topic.leased if r.holder is self and r.partition in lanes])
        self._revoked |= set(lanes)

    def _fetch(self, limit: int) -> list[Message]:
        topic = self._topic
        now = self._broker.clock()
        topic.expire(now)
        if not topic.turn:
            return []
        # A fair share of each first, or one long lane would keep the workers from all the others.
        messages = self._take(limit, max(1, limit // len(topic.turn)), now)
        if messages and len(messages) < limit:
            messages += self._take(limit - len(messages), limit, now)
        return messages

    def _take(self, limit: int, share: int, now: float) -> list[Message]:
        messages: list[Message] = []
        turn = self._topic.turn
        for _ in range(len(turn)):
            queue = turn.popleft()
            for record in queue.take(self, min(share, limit - len(messages)), now):
                messages.append(self._leased(queue, record))
                if self._broker.twice():
                    twin = record.clone()
                    twin.queue = queue
                    queue.put_back(twin, 0.0)
            queue.lined_up()
            if len(messages) >= limit:
                break
        return messages

    def _leased(self, queue: Queue, record: Record) -> Message:
        record.holder = self
        record.lease += 1
        self._lease(record)
        return self._message(record, record.partition if queue.ordered else None, record.lease)

    def _lease(self, record: Record) -> None:
        record.expires = self._broker.clock() + self._source.lease
        self._topic.leased[record] = None

    def _settle(self, messages: Sequence[Message], settle: Any) -> None:
        with self._topic.changed:
            self._check()
            self._broker.fault("settle")
            mine, stale = self._split(messages)
            settle(mine)
            self._topic.changed.notify_all()
        _raise_stale(stale)

    def _split(self, messages: Sequence[Message]) -> tuple[list[Record], list[Message]]:
        mine: list[Record] = []
        stale: list[Message] = []
        for message in messages:
            record = message.raw
            if record.holder is self and record.lease == message.generation:
                mine.append(record)
            else:
                stale.append(message)
        return mine, stale

    def _next_due(self) -> float | None:
        dues = [due for queue in self._topic.turn if (due := queue.next_due()) is not None]
        leased = next(iter(self._topic.leased), None)
        if leased is not None:
            dues.append(leased.expires)
        return min(dues, default=None)

    def _leave(self) -> None:
        self._topic.requeue([record for record in self._topic.leased if record.holder is self])


class LogSubscription(_Subscription):
    """Reads its share of the partitions of a log; settling is committing."""

    def __init__(self, source: Reading, broker: MemoryBroker) -> None:
        self._next: dict[int, int] = {}
        self._not_before: dict[int, float] = {}
        self._generation: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        self._assignments = 0
        super().__init__(source, broker)
        with self._topic.changed:
            self._topic.assign()

    def ack(self, messages: Sequence[Message]) -> None:
        with self._topic.changed:
            self._check()
            self._broker.fault("settle")
            mine, stale = self._split(messages)
            for message in mine:
                self._topic.logs[message.raw.partition].commit(message.raw.position + 1)
        _raise_stale(stale)

    def nack(self, messages: Sequence[Message], delay: float = 0.0) -> None:
        with self._topic.changed:
            self._check()
            self._broker.fault("settle")
            mine, stale = self._split(messages)
            for message in mine:
                record = message.raw
                record.deliveries = message.deliveries
                self._next[record.partition] = min(self._next[record.partition], record.position)
                if delay > 0:
                    self._not_before[record.partition] = self._broker.clock() + delay
            self._topic.changed.notify_all()
        _raise_stale(stale)

    def extend(self, messages: Sequence[Message]) -> None:
        with self._topic.changed:
            self._check()
            _, stale = self._split(messages)
        _raise_stale(stale)

    def stats(self) -> Stats:
        with self._topic.changed:
            self._check()
            logs = [(self._topic.logs[partition], start) for partition, start in self._next.items()]
            waiting = [log.records[start - log.base] for log, start in logs if start < log.end]
            age = max(0.0, self._broker.now() - min(r.timestamp for r in waiting)) if waiting else None
            lag = sum(log.end - log.committed for log, _ in logs)
            return Stats(len(logs), lag, age, self._backlog())

    def _backlog(self) -> int:
        logs = self._topic.logs
        return sum(max(0, end - logs[partition].committed) for partition, end in self._ends.items())

    def assigned_now(self, partitions: Collection[int]) -> None:
        """The broker shared the partitions out; called with the topic's lock held."""
        self._assignments += 1
        for partition in [partition for partition in self._next if partition not in partitions]:
            self._drop(partition)
            self._revoked.add(partition)
        for partition in partitions:
            if partition not in self._next:
                self._next[partition] = self._topic.logs[partition].committed
                self._generation[partition] = self._assignments
                self._ends[partition] = self._topic.logs[partition].end

    def take_away(self, lanes: Collection[int]) -> None:
        """The broker takes *lanes* away; called with the topic's lock held."""
        for partition in [partition for partition in self._next if partition in lanes]:
            self._drop(partition)
            self._revoked.add(partition)

    def _drop(self, partition: int) -> None:
        del self._next[partition], self._generation[partition], self._ends[partition]
        self._not_before.pop(partition, None)

    def _fetch(self, limit: int) -> list[Message]:
        now = self._broker.clock()
        logs = self._topic.logs
        turn = [partition for partition, start in self._next.items() if start < logs[partition].end]
        if not turn:
            return []
        # A fair share of each first, or one long lane would keep the workers from all the others.
        messages = self._take(turn, limit, max(1, limit // len(turn)), now)
        if len(messages) < limit:
            messages += self._take(turn, limit - len(messages), limit, now)
        return messages

    def _take(self, partitions: Sequence[int], limit: int, share: int, now: float) -> list[Message]:
        messages: list[Message] = []
        for partition in partitions:
            records = self._ready(partition, min(share, limit - len(messages)), now)
            if records:
                generation = self._generation[partition]
                messages.extend(self._message(record, partition, generation) for record in records)
                # To the end of the line: the partition that was read last comes last.
                self._next[partition] = self._next.pop(partition) + len(records)
            if len(messages) >= limit:
                break
        return messages

    def _ready(self, partition: int, limit: int, now: float) -> list[Record]:
        if self._not_before.get(partition, 0.0) > now:
            return []
        log = self._topic.logs[partition]
        start = self._next[partition] - log.base
        records = log.records[start : start + limit]
        delayed = next((index for index, record in enumerate(records) if record.due > now), None)
        return records if delayed is None else records[:delayed]

    def _split(self, messages: Sequence[Message]) -> tuple[list[Message], list[Message]]:
        mine: list[Message] = []
        stale: list[Message] = []
        for message in messages:
            current = self._generation.get(message.raw.partition)
            (mine if current == message.generation else stale).append(message)
        return mine, stale

    def _next_due(self) -> float | None:
        dues = list(self._not_before.values())
        for partition, start in self._next.items():
            log = self._topic.logs[partition]
            if start < log.end and log.records[start - log.base].due:
                dues.append(log.records[start - log.base].due)
        now = self._broker.clock()
        return min((due for due in dues if due > now), default=None)

    def _leave(self) -> None:
        for partition in list(self._next):
            self._drop(partition)
        self._topic.assign()


def _raise_stale(stale: list[Message]) -> None:
    if stale:
        raise Stale(
            f"{len(stale)} messages, {stale[0]} the first, belong to somebody else now", messages=stale
        )
