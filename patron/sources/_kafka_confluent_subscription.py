"""A member of a consumer group: fetching, committing and rebalancing over confluent-kafka."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from operator import methodcaller
from time import monotonic
from typing import TYPE_CHECKING, Any

from patron.consumer.source import Message, Revoked, Stats
from patron.errors import ConnectionLost, SourceError, Stale
from patron.observe import log
from patron.slots import worker_slot
from patron.sources._kafka_confluent_commits import Commits
from patron.sources._kafka_confluent_library import (
    MOVING,
    Client,
    Health,
    KafkaError,
    KafkaException,
    TopicPartition,
    consumer,
    reach,
    translated,
    translation,
)
from patron.sources._kafka_confluent_message import message_of, unreadable
from patron.sources._kafka_confluent_start import places_to_begin, starting_points
from patron.sources._kafka_confluent_topics import check_or_make
from patron.sources._kafka_confluent_turns import Given, Turns
from patron.sources._kafka_lanes import Lane, Lanes, Partition
from patron.sources._kafka_metrics import OffsetGauges

if TYPE_CHECKING:
    from patron.sources.kafka import KafkaSource

__all__ = ["ConfluentSubscription"]

_ASSIGNORS = {"cooperative": "cooperative-sticky", "eager": "range,roundrobin"}
_CLOSING = 2.0
"""How long the last commit may take before the group is left, in seconds, beside two heartbeats."""

_LEAVING = 5.0
"""How long to wait for the library to leave the group when it has commits without an answer, in seconds."""

# Where the offset to read from is not there; librdkafka says which it was only in words.
_NOWHERE = frozenset(
    {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION}
)
# Of one record or batch, which librdkafka then leaves out.
_UNREADABLE = frozenset(
    {KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION, KafkaError._NOT_IMPLEMENTED, KafkaError.INVALID_MSG}
)


class ConfluentSubscription:
    """
    One member of a consumer group.

    Its thread is the one that opened it; librdkafka's own threads fetch ahead and send heartbeats, and
    it calls back only in `poll`. What it has fetched of a partition vanishes when that is paused or
    sought, so nothing stale slips in after a nack.
    """

    revoking: Callable[[frozenset[Hashable]], None] | None = None

    def __init__(self, source: KafkaSource) -> None:
        self._source = source
        self._tombstones = source.tombstones
        self._lanes = Lanes()
        self._places: dict[Any, Lane] = {}
        self._alone = len(source.topics) == 1
        self._generation = 0
        self._since: dict[Hashable, int] = {}  # partition to the generation in which it came
        self._gauges = OffsetGauges(source.group)
        self._ends: dict[Partition, int] = {}
        self._changes: list[Message | Revoked] = []
        self._turns = Turns(
            self._lanes, methodcaller("partition") if self._alone else _of, self._places.get, self._waits
        )
        self._closing = False
        self._joined = False
        self._commits = Commits(self._has)
        self._health = Health(source)
        self._consumer = self._join()

    def _join(self) -> Client:
        source = self._source
        instance = source.group_instance_id
        # Two live members must never share one.
        static = {} if instance is None else {"group.instance.id": f"{instance}-{worker_slot.get()}"}
        client = consumer(
            source,
            source.group,
            self._health,
            **{
                "partition.assignment.strategy": _ASSIGNORS[source.assignment],
                "on_commit": self._commits.answered,
                **static,
            },
        )
        try:
            reach(client, source, self._health)
            if source.create:
                check_or_make(source, source.topics)
            client.subscribe(
                list(source.topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
            )
        except BaseException:
            client.close()
            raise
        return client

    def poll(self, limit: int, timeout: float) -> Sequence[Message | Revoked]:
        """At most *limit* messages, waiting at most *timeout* seconds for the first; 0 only keeps the membership."""
        until = monotonic() + timeout
        while True:
            left = max(0.0, until - monotonic())
            due = self._commits.due()
            received = self._once(limit, left if due is None else min(left, due))
            if received or monotonic() >= until:
                return received

    def ack(self, messages: Sequence[Message]) -> None:
        """Commit soon the offset after the last of *messages* in each partition."""
        last, stale = self._lanes.furthest(messages)
        for lane in [lane for lane, message in last.items() if self._outdated(message)]:
            stale += [message for message in messages if message.lane == lane]
            del last[lane]
        if last:
            self._commits.note(self._consumer, {self._lanes[lane]: last[lane] for lane in last})
            for lane, message in last.items():
                assert message.position is not None
                self._lanes[lane].settle(message.position + 1)
        if stale:
            raise Stale("these partitions are no longer ours", messages=stale)

    def nack(self, messages: Sequence[Message], delay: float = 0.0) -> None:
        """Go back to the first of *messages* in each partition, which then waits *delay* seconds."""
        ours, stale = self._lanes.grouped(messages)
        until = monotonic() + delay if delay > 0 else 0.0
        for key, given in ours.items():
            if self._outdated(given[0]):
                stale += given
                continue
            lane = self._lanes[key]
            if not self._turns.back(self._consumer, lane, lane.give_back(given, until), until):
                self._begin_again(lane)
        if stale:
            raise Stale("these partitions are no longer ours", messages=stale)

    def extend(self, messages: Sequence[Message]) -> None:
        """There are no leases; the library sends heartbeats by itself."""

    def stats(self) -> Stats:
        """The backlog, as the library knows it from its last fetches."""
        stats, behind = self._lanes.stats(self._position, self._highwater, time.time())
        self._gauges.set(behind)
        # A member too many has a share of no partition at all.
        return replace(stats, joined=self._joined)

    def close(self) -> None:
        """
        Commit what is left and leave the group; what was not acknowledged comes again, to whoever gets the partitions.

        Takes at most seven seconds and two heartbeats: while the group is being rebalanced no commit is answered.
        """
        if self._closing:
            return
        with contextlib.suppress(SourceError):
            self._commit_the_rest()
        self._closing = True
        self._gauges.set({})
        if self._commits.waiting:
            # The library waits for the answer as well, which may take minutes when no broker is there.
            leaving = threading.Thread(target=self._leave, name="patron-kafka-leave", daemon=True)
            leaving.start()
            leaving.join(_LEAVING)
        else:
            self._leave()

    def _leave(self) -> None:
        with contextlib.suppress(KafkaException, RuntimeError):
            self._consumer.close()

    def _commit_the_rest(self) -> None:
        until = monotonic() + _CLOSING + 2 * self._source.heartbeat_interval
        self._commits.hurry()
        while self._commits.waiting and monotonic() < until:
            self._once(0, 0.02)
            self._commits.hurry()

    # Fetching

    def _once(self, limit: int, timeout: float) -> list[Message | Revoked]:
        received: list[Message | Revoked] = []
        alive = self._fetch(limit, timeout) if limit else self._turns.keep_alive(self._consumer, timeout)
        if self._changes:
            received += self._changes
            self._changes.clear()
        given = self._turns.take(limit)
        if given:
            self._receive(given, received)
        self._commits.go_on(self._consumer)
        self._health.watch(self._consumer, alive)
        return received

    def _fetch(self, limit: int, timeout: float) -> bool:
        """Read ahead, waiting at most *timeout* seconds when there is nothing to give; whether something came."""
        turns, client = self._turns, self._consumer
        came = turns.read(client, limit)
        if not (turns.count or self._changes) and turns.wait(client, timeout):
            came = True
            turns.read(client, limit)
        return came

    def _receive(self, given: Given, received: list[Message | Revoked]) -> None:
        generation, tombstones = self._generation, self._tombstones
        last: dict[Lane, Message] = {}
        nowhere: dict[Lane, str] = {}
        for lane, records in given:
            for record in records:
                if record.error() is not None:
                    if record.error().code() not in _NOWHERE:
                        self._event(record, lane, received)
                    elif lane is not None:
                        nowhere[lane] = record.error().str()
                elif lane is not None:
                    offset = record.offset()
                    count = lane.count(offset) if lane.deliveries else 1
                    message = message_of(record, lane.partition, offset, generation, count, tombstones)
                    last[lane] = message
                    received.append(message)
        for lane, message in last.items():
            lane.gave(message)
        # Only now every lane knows how far it is: an eager member begins again with all of them.
        for lane, why in nowhere.items():
            self._changes.append(self._restart(lane, why))

    def _event(self, record: Any, lane: Lane | None, received: list[Message | Revoked]) -> None:
        error = record.error()
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            if lane is not None:
                self._ends[lane.partition] = record.offset()
        elif code in _UNREADABLE and lane is not None:
            received.append(unreadable(record, lane, self._generation, error.str()))
        elif code == KafkaError._MAX_POLL_EXCEEDED:
            log.warn("consumer left its group", group=self._source.group, why=error.str())
        elif code not in MOVING:
            raise translation(error, "cannot fetch")

    def _has(self, lane: Lane) -> bool:
        """Whether *lane* is ours still, and was not given up in between."""
        return lane.partition in self._lanes and self._lanes[lane.partition] is lane

    def _outdated(self, message: Message) -> bool:
        """Whether *message* is from before its partition, which is ours now, was away."""
        return message.generation < self._since[message.lane]

    # Partitions come and go, called by the library from within poll

    def _assigned(self, client: Client, partitions: list[TopicPartition]) -> None:
        if self._closing:
            return
        fresh = [Partition(each.topic, each.partition) for each in partitions]
        try:
            starts, ends = places_to_begin(client, self._source, fresh)
            given = [TopicPartition(*at, starts[at]) for at in fresh]
            self._take(client, given)
        except (KafkaException, SourceError) as error:
            # Without a start there is nothing to read from: over again, with a new connection.
            raise ConnectionLost(f"cannot begin with the partitions that came: {error}") from error
        self._joined = True
        self._generation += 1
        for at in fresh:
            lane = self._lanes.assign(at, starts[at])
            lane.end = ends.get(at)
            self._places[at.partition if self._alone else at] = lane
            self._since[at] = self._generation
        self._turns.assigned(client, [self._lanes[at] for at in fresh])
        log.info("partitions assigned", group=self._source.group, partitions=len(self._lanes), new=len(fresh))

    def _take(self, client: Client, given: list[TopicPartition]) -> None:
        if self._source.assignment == "cooperative":
            client.incremental_assign(given)
        else:
            client.assign(given)

    def _give(self, client: Client, partitions: list[TopicPartition]) -> None:
        if self._source.assignment == "cooperative":
            client.incremental_unassign(partitions)
        else:
            client.unassign()

    def _revoked(self, client: Client, partitions: list[TopicPartition]) -> None:
        self._gone(client, partitions, orderly=True)

    def _lost(self, client: Client, partitions: list[TopicPartition]) -> None:
        self._gone(client, partitions, orderly=False)

    def _gone(self, client: Client, partitions: list[TopicPartition], *, orderly: bool) -> None:
        """Let the engine settle what it can, forget *partitions*, and let the library give them up."""
        named = [Partition(each.topic, each.partition) for each in partitions]
        gone = frozenset(at for at in named if at in self._lanes)
        if gone and orderly and self.revoking is not None and not self._closing:
            self.revoking(gone)
        lanes = [self._lanes[at] for at in gone]
        if orderly and not self._closing:
            self._commits.flush(client, lanes)
        self._commits.forget(lanes)
        self._turns.forget(lanes)
        self._joined = orderly
        self._lanes.revoke(gone)
        for at in gone:
            self._places.pop(at.partition if self._alone else at, None)
            self._ends.pop(at, None)
        if gone:
            self._changes.append(Revoked(gone))
        self._give(client, partitions)

    # Where reading cannot go on

    def _restart(self, lane: Lane, why: str) -> Revoked:
        """Read *lane* from where the settings say, as if it had just been assigned."""
        at = lane.partition
        with translated("cannot look up offsets"):
            offset = starting_points(self._consumer, self._source, [at])[at]
        log.warn(
            "reading goes on where start says", topic=at.topic, partition=at.partition, why=why, now=offset
        )
        self._commits.forget([lane])
        self._turns.forget([lane])
        fresh = self._lanes.assign(at, offset)
        fresh.end = lane.end
        self._places[at.partition if self._alone else at] = fresh
        self._begin_again(fresh)
        return Revoked(frozenset([at]))

    def _begin_again(self, lane: Lane) -> None:
        """Let the library, which has given up on the partition of *lane*, read it from where *lane* says."""
        # It takes one partition away from an eager member only together with the others.
        cooperative = self._source.assignment == "cooperative"
        again = [lane] if cooperative else list(self._lanes)
        places = [TopicPartition(*each.partition, each.delivered) for each in again]
        with translated("cannot read on"):
            if cooperative:
                self._consumer.incremental_unassign(places)
            self._take(self._consumer, places)
        self._turns.assigned(self._consumer, again)

    # Statistics

    def _waits(self, lane: Lane) -> bool:
        """Whether the broker has more of *lane* than was given out, as far as the library knows."""
        end = self._highwater(lane.partition)
        return end is not None and self._position(lane.partition) < end

    def _position(self, partition: Partition) -> int:
        # Markers and gaps at the end of a partition hold no message that would tell of them.
        return max(self._lanes[partition].delivered, self._ends.get(partition, 0))

    def _highwater(self, partition: Partition) -> int | None:
        try:
            end: int = self._consumer.get_watermark_offsets(TopicPartition(*partition), cached=True)[1]
        except KafkaException:
            return None
        return end if end >= 0 else self._lanes[partition].end


def _of(record: Any) -> tuple[str, int]:
    return record.topic(), record.partition()
