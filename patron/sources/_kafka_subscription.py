"""A member of a consumer group: fetching, committing and rebalancing over kafka-python."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from patron.consumer.source import Message, Revoked, Stats
from patron.errors import ConnectionLost, NotASource, SourceError, Stale
from patron.observe import log
from patron.slots import worker_slot
from patron.sources import _kafka_start as starting
from patron.sources._kafka_batches import guard
from patron.sources._kafka_changes import Changes
from patron.sources._kafka_codes import FENCED, refusal
from patron.sources._kafka_lanes import Lane, Lanes, Partition
from patron.sources._kafka_library import (
    MemberState,
    OffsetAndMetadata,
    TopicPartition,
    assignors,
    consumer,
    errors,
    translated,
    translation,
)
from patron.sources._kafka_messages import message as message_of
from patron.sources._kafka_metrics import OffsetGauges
from patron.sources._kafka_topics import check_or_make

if TYPE_CHECKING:
    from patron.sources.kafka import KafkaSource

__all__ = ["KafkaSubscription"]

_SLICE = 0.1
"""The longest wait inside the driver: it gives out nothing of a partition that it got meanwhile."""

_CLOSING = 2.0
"""How long leaving the group may take, in seconds."""

_COMMITTING = 5.0
"""How long a commit may take before it is tried again later, in seconds."""

_LOOK_EVERY = 1.0


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
        self._lanes = Lanes()
        self._generation = 0
        self._gauges = OffsetGauges(source.group)
        self._paused = True
        self._held: dict[Partition, float] = {}
        self._reached = monotonic()
        self._silent = 0
        self._refused: NotASource | None = None
        self._look_at = 0.0
        self._changes = Changes(self._network, self._consumer, self._give_up)
        try:
            self._join()
        except BaseException:
            self.close()
            raise

    def poll(self, limit: int, timeout: float) -> Sequence[Message | Revoked]:
        """At most *limit* messages, waiting at most *timeout* seconds for the first; 0 only keeps the membership."""
        if self._refused is not None:
            raise self._refused
        until = monotonic() + timeout
        while True:
            left = max(0.0, until - monotonic())
            self._flow(limit > 0)
            received = self._once(limit, min(left, _SLICE))
            if received or monotonic() >= until:
                return received

    def ack(self, messages: Sequence[Message]) -> None:
        """Commit the offset after the last of *messages* in each partition."""
        last, stale = self._lanes.furthest(messages)
        if last:
            self._commit({lane: _after(message) for lane, message in last.items()})
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
        stats, behind = self._lanes.stats(self._position, self._highwater, time.time())
        self._gauges.set(behind)
        return stats

    def close(self) -> None:
        """Leave the group; what was not committed comes again, to whoever gets the partitions."""
        self._changes.close()
        self._gauges.set({})
        with contextlib.suppress(errors.KafkaError):
            self._consumer.close(autocommit=False, timeout_ms=_CLOSING * 1000)

    def _join(self) -> None:
        """Subscribe. A leader of the group that does not know the topics yet would give nobody anything of them."""
        topics = self._source.topics
        self._consumer.subscribe(list(topics), listener=self._changes.listener())
        firsts = [TopicPartition(topic, 0) for topic in topics]
        try:
            self._consumer.beginning_offsets(firsts, timeout_ms=self._source.connect_timeout * 1000)
        except errors.KafkaTimeoutError as error:
            raise ConnectionLost(f"no leader of {', '.join(topics)} can be reached") from error
        except errors.KafkaError as error:
            raise translation(error, "cannot join the group") from error

    # Fetching

    def _once(self, limit: int, timeout: float) -> list[Message | Revoked]:
        records: dict[Any, list[Any]] = {}
        try:
            # Not after the poll: what it returned would be lost if this failed.
            self._settle_in()
            self._finish_joining()
            records = self._consumer.poll(timeout * 1000, max_records=max(1, limit))
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
        self._watch()
        received: list[Message | Revoked] = list(self._changes.taken())
        for partition, found in records.items():
            self._receive(partition, found, received)
        return received

    def _finish_joining(self) -> None:
        """
        Let the driver finish a join that a poll was too short for.

        When the number of partitions changes, kafka-python 3.0 forgets in the middle of it that it is
        joining: it neither takes what it is assigned nor sends heartbeats any more, and polls at full speed.
        """
        if self._consumer.group_metadata().state == MemberState.REBALANCING:
            self._consumer._coordinator.request_rejoin()

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
                    lane=key,
                    generation=generation,
                    deliveries=counts.get(offset, 0) + 1 if counts else 1,
                    tombstones=tombstones,
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
        elif now - self._reached > self._source.lost_after:
            raise ConnectionLost(f"no broker could be reached for {now - self._reached:.0f} s")
        self._listen()

    def _listen(self) -> None:
        """Notice that heartbeats ended because another static member has our name: the driver tells nobody."""
        coordinator = self._consumer._coordinator
        stopped = coordinator.state == MemberState.STABLE and not coordinator._heartbeat_enabled
        self._silent = self._silent + 1 if stopped else 0
        if self._silent > 1:  # once it may be a join that begins
            raise refusal(FENCED, "no member of the group any more", "fenced")

    # Committing

    def _commit(self, offsets: dict[tuple[str, int], Any]) -> None:
        given = {TopicPartition(*key): offset for key, offset in offsets.items()}
        try:
            self._consumer.commit(given, timeout_ms=_COMMITTING * 1000)
        except errors.KafkaError as error:
            ours = translation(error, "cannot commit")
            if isinstance(ours, NotASource):
                self._refused = ours
            raise ours from error

    def _seek(self, partition: Partition, offset: int) -> None:
        try:
            self._consumer.seek(_driver_side(partition), offset)
        except ValueError as error:
            raise Stale(f"{partition} is no longer ours") from error

    # Partitions come and go

    def _give_up(self, partitions: Iterable[tuple[str, int]], orderly: bool) -> Mapping[Partition, int]:
        """Let the engine settle what it can, then forget *partitions*; returns up to where each was settled."""
        mine = [self._lanes[at] for at in partitions if at in self._lanes]
        if mine and orderly and self.revoking is not None:
            self.revoking(frozenset(lane.partition for lane in mine))
        settled = {lane.partition: lane.settled for lane in mine}
        self._lanes.revoke(settled)
        return settled

    def _settle_in(self) -> None:
        """Find where the partitions that came are to be read from, and how much there was when they came."""
        fresh = self._changes.fresh
        if not fresh:
            return
        for partition, offset in fresh.items():
            # The driver keeps its own position over an eager rebalance, which is beyond what was settled.
            if offset is not None:
                self._consumer.seek(_driver_side(partition), offset)
        starts = {partition: self._where(partition) for partition in fresh}
        ends = self._ends(list(fresh))
        for partition, start in starts.items():
            if start is not None:
                self._lanes.assign(partition, start).end = ends.get(partition)
                del fresh[partition]
        self._generation = self._consumer.group_metadata().generation_id
        self._paused = True
        log.info(
            "partitions assigned", group=self._source.group, partitions=len(self._lanes), new=len(starts)
        )

    def _where(self, partition: Partition) -> int | None:
        position = self._consumer.position(_driver_side(partition), timeout_ms=_COMMITTING * 1000)
        return None if position is None else int(position)

    def _ends(self, partitions: list[Partition]) -> dict[Partition, int]:
        try:
            found = self._consumer.end_offsets(
                list(map(_driver_side, partitions)), timeout_ms=_COMMITTING * 1000
            )
        except errors.KafkaError:
            return {}
        return {Partition(*at): offset for at, offset in found.items()}

    def _begin(self, partitions: Iterable[Any]) -> None:
        """The group has committed nothing for *partitions*: start where the settings say, and commit that."""
        for at, offset in self._points(list(partitions)).items():
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
                    self._commit({at: OffsetAndMetadata(offset, "", -1)})

    def _points(self, partitions: list[Any]) -> dict[Any, int]:
        """Where the settings say to start in *partitions* of the driver."""
        point = starting.point(self._source.start, time.time())
        timeout = self._source.request_timeout * 1000
        with translated("cannot look up offsets"):
            if point == starting.OLDEST:
                return dict(self._consumer.beginning_offsets(partitions, timeout_ms=timeout))
            ends = dict(self._consumer.end_offsets(partitions, timeout_ms=timeout))
            if point == starting.NEWEST:
                return ends
            found = self._consumer.offsets_for_times(dict.fromkeys(partitions, point), timeout_ms=timeout)
        return {at: ends[at] if found.get(at) is None else found[at].offset for at in partitions}

    def _out_of_range(self, offsets: dict[Any, int]) -> None:
        points = self._points(list(offsets))
        for at, offset in offsets.items():
            self._restart(at, offset, points[at], "offset is out of range, reading goes on where start says")

    def _truncated(self, ends: dict[Any, Any]) -> None:
        points = self._points([at for at, end in ends.items() if end is None])
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

    # Statistics

    def _position(self, partition: Partition) -> int | None:
        lane: Lane = self._lanes[partition]
        end = self._highwater(partition)
        if end is None or lane.delivered >= end:
            return lane.delivered
        try:
            position = self._consumer.position(_driver_side(partition), timeout_ms=0)
        except errors.KafkaError:
            return None
        return lane.delivered if position is None else max(lane.delivered, int(position))

    def _highwater(self, partition: Partition) -> int | None:
        try:
            end = self._consumer.highwater(_driver_side(partition))
        except errors.KafkaError:
            return None
        return None if end is None else int(end)


def _after(message: Message) -> Any:
    """What to commit when *message* is done, with the leader's epoch, by which a truncated log is noticed."""
    assert message.position is not None
    epoch = getattr(message.raw, "leader_epoch", None)
    return OffsetAndMetadata(message.position + 1, "", -1 if epoch is None else epoch)


def _instance(name: str | None) -> str | None:
    """The group_instance_id of this worker: two live members must never share one."""
    return None if name is None else f"{name}-{worker_slot.get()}"


def _driver_side(partition: tuple[str, int]) -> Any:
    return TopicPartition(*partition)
