"""A member of a consumer group: fetching, committing and rebalancing over kafka-python."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any

from patron.consumer.source import Message, Revoked, Stats
from patron.errors import ConnectionLost, SourceError, Stale
from patron.observe import log
from patron.observe.seldom import Seldom
from patron.slots import worker_slot
from patron.sources import _kafka_start as starting
from patron.sources._kafka_batches import guard
from patron.sources._kafka_changes import Changes
from patron.sources._kafka_codes import FENCED, refusal
from patron.sources._kafka_commits import Commits, after
from patron.sources._kafka_lanes import Lanes, Partition
from patron.sources._kafka_library import (
    MemberState,
    OffsetAndMetadata,
    TopicPartition,
    assignors,
    consumer,
    errors,
    translation,
)
from patron.sources._kafka_messages import message as message_of
from patron.sources._kafka_metrics import OffsetGauges
from patron.sources._kafka_positions import Positions
from patron.sources._kafka_topics import check_or_make
from patron.sources._kafka_turns import Turns

if TYPE_CHECKING:
    from patron.sources.kafka import KafkaSource

__all__ = ["KafkaSubscription"]

_SLICE = 0.1
"""The longest wait inside the driver: it gives out nothing of a partition that it got meanwhile."""

_CLOSING = 2.0
"""How long leaving the group may take, in seconds."""

_LOOK_EVERY = 1.0

_SOON = 5.0
"""After so many seconds without a broker it is told, every ten seconds."""


class KafkaSubscription:
    """
    One member of a consumer group.

    Its thread is the one that opened it. The driver has a thread of its own for its sockets and
    heartbeats; it reports partitions that come and go while the owner waits in `poll`, never otherwise.
    """

    revoking: Callable[[frozenset[Hashable]], None] | None = None

    def __init__(self, source: KafkaSource) -> None:
        if source.create:
            check_or_make(source, source.topics)
        self._source = source
        self._tombstones = source.tombstones
        self._consumer, self._network = consumer(
            source,
            source.group,
            partition_assignment_strategy=assignors(source.assignment),
            group_instance_id=_instance(source.group_instance_id),
            allow_auto_create_topics=False,
        )
        guard(self._consumer)
        self._commits = Commits(self._consumer)
        self._positions = Positions(self._consumer, source)
        self._turns = Turns(self._consumer)
        self._lanes = Lanes()
        self._generation = 0
        self._gauges = OffsetGauges(source.group)
        self._closed = False
        self._paused = True
        self._held: dict[Partition, float] = {}
        self._reached = monotonic()
        self._lines = Seldom(10.0)
        self._silent = 0
        self._look_at = 0.0
        self._changes = Changes(
            self._network, self._consumer, self._give_up, keeps_positions=source.assignment == "eager"
        )
        try:
            self._join()
        except BaseException:
            self.close()
            raise

    def poll(self, limit: int, timeout: float) -> Sequence[Message | Revoked]:
        """At most *limit* messages, waiting at most *timeout* seconds for the first; 0 only keeps the membership."""
        if self._commits.refused is not None:
            raise self._commits.refused
        until = monotonic() + timeout
        while True:
            left = max(0.0, until - monotonic())
            self._flow(limit > 0)
            received = self._once(limit, min(left, _SLICE))
            if received or monotonic() >= until:
                return received

    def ack(self, messages: Sequence[Message]) -> None:
        """Commit soon the offset after the last of *messages* in each partition."""
        last, stale = self._lanes.furthest(messages)
        if last:
            self._commits.commit({lane: after(message) for lane, message in last.items()})
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
            lane = self._lanes[key]
            self._seek(lane.partition, lane.give_back(given, until))
            if until:
                self._held[lane.partition] = until
                self._consumer.pause(_driver_side(lane.partition))
        if stale:
            raise Stale("these partitions are no longer ours", messages=stale)

    def extend(self, messages: Sequence[Message]) -> None:
        """There are no leases; the driver sends heartbeats by itself."""

    def stats(self) -> Stats:
        """The backlog, as the driver knows it from its last fetches."""
        stats, behind = self._lanes.stats(self._reached_in, self._positions.highwater, time.time())
        self._gauges.set(behind)
        # A member too many has a share of no partition at all.
        return replace(stats, joined=self._commits.member and not self._changes.fresh)

    def close(self) -> None:
        """Commit what is left and leave the group; the rest comes again, to whoever gets the partitions."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(SourceError):
            self._end_rebalance(monotonic() + _CLOSING)
        self._commits.settle(_CLOSING)
        self._changes.close()
        self._gauges.set({})
        with contextlib.suppress(errors.KafkaError):
            self._consumer.close(autocommit=False, timeout_ms=_CLOSING * 1000)

    def _end_rebalance(self, until: float) -> None:
        """Wait for the end of a rebalance with what is to be committed after it."""
        while self._commits.waiting and self._commits.joining and monotonic() < until:
            self._flow(False)
            self._once(0, _SLICE)

    def _join(self) -> None:
        """Subscribe. A leader of the group that does not know the topics yet would give nobody anything of them."""
        self._consumer.subscribe(list(self._source.topics), listener=self._changes.listener())
        self._positions.know_topics()

    def _reached_in(self, partition: Partition) -> int | None:
        return self._positions.reached(self._lanes[partition])

    # Fetching

    def _once(self, limit: int, timeout: float) -> list[Message | Revoked]:
        records: dict[Any, list[Any]] = {}
        try:
            # Not after the poll: what it returned would be lost if this failed.
            self._settle_in()
            self._go_on_joining()
            self._turns.check()
            self._take_up()
            share = self._turns.share(limit, len(self._lanes))
            records = self._consumer.poll(timeout * 1000, max_records=share)
            if records:
                self._turns.fill(records, limit, share)
        except errors.NoOffsetForPartitionError as error:
            self._begin(error.args[0])
        except errors.OffsetOutOfRangeError as error:
            self._out_of_range(error.args[0])
        except errors.LogTruncationError as error:
            self._truncated(error.divergent_offsets)
        except errors.KafkaError as error:
            self._failed(error)
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
            # A bug of the driver, or its thread is gone: what it knows is of no more use.
            raise ConnectionLost(f"kafka-python failed: {error!r}") from error
        self._commits.flow()
        self._watch()
        received: list[Message | Revoked] = list(self._changes.taken())
        for partition, found in records.items():
            self._receive(partition, found, received)
        return received

    def _go_on_joining(self) -> None:
        """
        Let the driver finish a join that a poll was too short for.

        When the number of partitions changes, kafka-python 3.0 forgets in the middle of it that it is
        joining: it neither takes what it is assigned nor sends heartbeats any more, and polls at full speed.
        """
        if self._commits.joining:
            self._consumer._coordinator.request_rejoin()

    def _take_up(self) -> None:
        """Let the next partition have its turn, also one that was put aside while it was paused."""
        self._turns.next()

    def _receive(self, partition: Any, records: list[Any], received: list[Message | Revoked]) -> None:
        lane = self._lanes[partition]
        topic, number = key = lane.partition
        generation, tombstones = self._generation, self._tombstones
        counts = lane.deliveries
        for record in records:
            offset = record.offset
            received.append(
                message_of(
                    topic,
                    number,
                    offset,
                    record.key,
                    record.value,
                    record.headers,
                    record.timestamp,
                    record,
                    key,
                    generation,
                    counts.get(offset, 0) + 1 if counts else 1,
                    tombstones,
                )
            )
        last = received[-1]
        assert isinstance(last, Message)
        lane.gave(last)

    def _flow(self, wanted: bool) -> None:
        """Pause what is ours while nothing is wanted, else let go on what does not wait for its time."""
        if not wanted:
            if not self._paused:
                self._consumer.pause(*map(_driver_side, self._partitions()))
                self._paused = True
            self._positions.look(self._partitions())
            return
        if self._held:
            now = monotonic()
            self._held = {at: until for at, until in self._held.items() if until > now and at in self._lanes}
            self._paused = True
        if self._paused:
            going = [at for at in self._partitions() if at not in self._held]
            self._consumer.resume(*map(_driver_side, going))
            self._paused = False

    def _partitions(self) -> list[Partition]:
        return [lane.partition for lane in self._lanes]

    def _failed(self, error: Any) -> None:
        """A poll failed. What the driver tries again by itself is no news, but it may have dropped records."""
        if not error.retriable and not isinstance(error, errors.RebalanceInProgressError):
            raise translation(error, "cannot fetch") from error
        for lane in self._lanes:
            self._seek(lane.partition, lane.delivered)

    def _watch(self) -> None:
        """Notice that no broker was connected for long; the driver alone would try for ever, in silence."""
        now = monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_EVERY
        if any(self._network.connected(broker.node_id) for broker in self._network.cluster.brokers()):
            self._reached = now
        else:
            self._without(now - self._reached)
        self._listen()

    def _without(self, seconds: float) -> None:
        """No broker was connected for so long."""
        if seconds > self._source.lost_after:
            raise ConnectionLost(f"no broker could be reached for {seconds:.0f} s")
        if seconds > _SOON and self._lines.due() is not None:
            log.warn("no broker can be reached", source="kafka", seconds=round(seconds))

    def _listen(self) -> None:
        """Notice that heartbeats ended because another static member has our name: the driver tells nobody."""
        coordinator = self._consumer._coordinator
        stopped = coordinator.state == MemberState.STABLE and not coordinator._heartbeat_enabled
        self._silent = self._silent + 1 if stopped else 0
        if self._silent > 1:  # once it may be a join that begins
            raise refusal(FENCED, "no member of the group any more", "fenced")

    # Committing

    def _seek(self, partition: Partition, offset: int) -> None:
        try:
            self._consumer.seek(_driver_side(partition), offset)
        except ValueError as error:
            raise Stale(f"{partition} is no longer ours") from error

    # Partitions come and go

    def _give_up(self, partitions: Iterable[tuple[str, int]], orderly: bool) -> Mapping[Partition, int]:
        """Let the engine settle what it can, then forget *partitions*; returns up to where each was settled."""
        mine = [self._lanes[at] for at in partitions if at in self._lanes]
        if mine and orderly:
            if self.revoking is not None:
                self.revoking(frozenset(lane.partition for lane in mine))
            self._commits.settle()
        settled = {lane.partition: lane.settled for lane in mine}
        self._lanes.revoke(settled)
        self._commits.drop(settled)
        return settled

    def _settle_in(self) -> None:
        """Find where the partitions that came are to be read from, and how much there was when they came."""
        fresh = self._changes.fresh
        if not fresh:
            return
        for partition, settled in fresh.items():
            if settled is not None:
                self._positions.back_to(partition, settled)
        starts = {partition: self._positions.next_of(partition) for partition in fresh}
        ends = self._positions.ends(fresh)
        for partition, start in starts.items():
            if start is not None:
                self._lanes.assign(partition, start).end = ends.get(partition)
                del fresh[partition]
        self._generation = self._consumer.group_metadata().generation_id
        self._paused = True
        log.info(
            "partitions assigned", group=self._source.group, partitions=len(self._lanes), new=len(starts)
        )

    def _begin(self, partitions: Iterable[Any]) -> None:
        """The group has committed nothing for *partitions*: start where the settings say, and commit that."""
        for at, offset in self._positions.points(list(partitions)).items():
            self._consumer.seek(at, offset)
            log.info(
                "group starts",
                group=self._source.group,
                topic=at.topic,
                partition=at.partition,
                offset=offset,
            )
            if self._source.start != starting.OLDEST:
                # Else a member that gets the partition before the first commit would start later.
                with contextlib.suppress(SourceError):
                    self._commits.commit({at: OffsetAndMetadata(offset, "", -1)})
                    self._commits.settle()

    def _out_of_range(self, offsets: dict[Any, int]) -> None:
        points = self._positions.points(list(offsets))
        for at, offset in offsets.items():
            self._restart(at, offset, points[at], "offset is out of range, reading goes on where start says")

    def _truncated(self, ends: dict[Any, Any]) -> None:
        points = self._positions.points([at for at, end in ends.items() if end is None])
        for at, end in ends.items():
            before = self._lanes[at].delivered if at in self._lanes else None
            self._restart(
                at, before, points[at] if end is None else end.offset, "log was truncated, reading goes back"
            )

    def _restart(self, at: Any, before: int | None, offset: int, event: str) -> None:
        """Read *at* from *offset* on, as if it had just been assigned."""
        log.warn(event, topic=at.topic, partition=at.partition, was=before, now=offset)
        key = Partition(*at)
        end = self._lanes[key].end if key in self._lanes else None
        self._lanes.revoke([key])
        self._changes.lost([key])
        self._consumer.seek(at, offset)
        self._lanes.assign(key, offset).end = end


def _instance(name: str | None) -> str | None:
    """The group_instance_id of this worker: two live members must never share one."""
    return None if name is None else f"{name}-{worker_slot.get()}"


def _driver_side(partition: tuple[str, int]) -> Any:
    return TopicPartition(*partition)
