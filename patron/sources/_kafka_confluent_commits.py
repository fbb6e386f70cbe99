"""Committing offsets over confluent-kafka without waiting for the broker's answer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from patron.consumer.source import Message
from patron.errors import NotASource, SourceError, Stale
from patron.observe import log
from patron.sources._kafka_codes import GONE
from patron.sources._kafka_confluent_library import (
    Client,
    KafkaError,
    KafkaException,
    TopicPartition,
    translation,
)
from patron.sources._kafka_lanes import Lane, Partition

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Commits"]

_EVERY = 0.05
"""The least time between two commits, in seconds; what comes meanwhile goes together."""

_SLOW = 0.5
"""Without an answer for so long nothing more is noted: what a crash would repeat must not grow without bounds."""

_PATIENCE = 3.0
"""How long commits may fail before `Commits.note` refuses more, in seconds."""


class Commits:
    """
    What is to be committed of the lanes of one subscription; its owner thread calls, unless said otherwise.

    One commit is under way at a time, so that a lower offset never arrives after a higher one. Its answer
    comes while the owner polls. What failed goes with the next one, as long as the lane is ours.
    """

    def __init__(self, ours: Callable[[Lane], bool]) -> None:
        self._ours = ours
        self._pending: dict[Lane, TopicPartition] = {}
        self._sent: dict[Lane, TopicPartition] | None = None
        self._sent_at = 0.0
        self._not_before = 0.0
        self._failing: tuple[float, SourceError] | None = None

    def note(self, client: Client, messages: Mapping[Lane, Message]) -> None:
        """
        Commit soon that *messages* and all before them in their lanes are done.

        Raises:
            NotASource: this member may not commit, and never may. SourceError: commits fail, or are not
            answered, for a while already, and nothing was noted.
        """
        if self._failing is not None:
            since, error = self._failing
            # What failed may have been lost with its lanes: then only a new commit can show that all is well.
            tried = bool(self._pending or self._sent)
            if isinstance(error, NotASource) or (tried and monotonic() - since > _PATIENCE):
                raise error
        if self._sent and monotonic() - self._sent_at > _SLOW and any(map(self._ours, self._sent)):
            raise SourceError("the broker does not answer a commit")
        for lane, message in messages.items():
            self._pending[lane] = _after(message)
        self.go_on(client)

    def due(self) -> float | None:
        """Seconds until `go_on` should be called; None: nothing waits."""
        if not self._pending:
            return None
        return _EVERY if self._sent is not None else max(0.0, self._not_before - monotonic())

    def go_on(self, client: Client) -> None:
        """
        Send what waits, if it is time.

        Raises:
            NotASource: as `note`.
        """
        if self._failing is not None and isinstance(self._failing[1], NotASource):
            raise self._failing[1]
        if not self._pending or self._sent is not None:
            return
        now = monotonic()
        if now < self._not_before:
            return
        self._not_before = now + _EVERY
        self._sent, self._pending = self._pending, {}
        self._sent_at = now
        try:
            client.commit(offsets=list(self._sent.values()), asynchronous=True)
        except KafkaException as error:
            self.answered(error.args[0], [])

    def answered(self, error: KafkaError | None, partitions: Iterable[Any]) -> None:
        """What the library calls, within a poll, when the commit under way has succeeded or failed."""
        sent, self._sent = self._sent, None
        if sent is None:
            return
        refused = {(each.topic, each.partition): each.error for each in partitions if each.error is not None}
        failed = list(sent) if error is not None else [lane for lane in sent if lane.partition in refused]
        if not failed:
            self._failing = None
            return
        reason = _refused(error if error is not None else refused[failed[0].partition])
        self._fail(reason)
        for lane in failed:
            if self._ours(lane):
                self._pending.setdefault(lane, sent[lane])

    def forget(self, lanes: Iterable[Lane]) -> None:
        """*lanes* are no longer ours, or read from elsewhere."""
        for lane in lanes:
            self._pending.pop(lane, None)

    def flush(self, client: Client, lanes: Collection[Lane]) -> None:
        """
        Commit what is not known to be committed of *lanes*, and wait for the answer.

        For a callback of the library, which serves no other before it returns. A broker that does not answer
        may take it the session timeout; but one has just asked for the lanes.
        """
        # What is under way goes once more, for its answer cannot be waited for.
        known = {**(self._sent or {}), **self._pending}
        offsets = [known[lane] for lane in lanes if lane in known and self._ours(lane)]
        if not offsets:
            return
        self.forget(lanes)
        try:
            _commit(client, offsets)
        except SourceError as error:
            log.warn("commit failed, messages come again", partitions=len(offsets), error=str(error))

    @property
    def waiting(self) -> bool:
        """Whether something is not known to be committed."""
        return bool(self._pending or self._sent)

    def hurry(self) -> None:
        """Send what waits at the next `go_on`."""
        self._not_before = 0.0

    def _fail(self, error: SourceError) -> None:
        since = monotonic() if self._failing is None else self._failing[0]
        self._failing = since, error
        log.debug("commit failed, it is tried again", error=str(error))


def _commit(client: Client, offsets: list[TopicPartition]) -> None:
    try:
        done = client.commit(offsets=offsets, asynchronous=False)
    except KafkaException as error:
        raise _refused(error.args[0]) from error
    for each in done or ():
        if each.error is not None:
            raise _refused(each.error)


def _refused(error: KafkaError) -> SourceError:
    """
    Why a commit failed.

    In a cooperative rebalance the group may be a generation ahead of the library while the partition
    stays ours: then the same commit succeeds a moment later. If the group really goes on without
    us, the library notices and calls back, and the partition is lost.
    """
    if error.code() in GONE:
        return SourceError(f"cannot commit while the group is being rebalanced: {error.str()}")
    found = translation(error, "cannot commit")
    return SourceError(str(found)) if isinstance(found, Stale) else found


def _after(message: Message) -> TopicPartition:
    """What to commit when *message* is done, with the leader's epoch, by which a truncated log is noticed."""
    assert message.position is not None
    assert isinstance(message.lane, Partition)
    epoch = message.raw.leader_epoch()
    offset = message.position + 1
    if epoch is None or epoch < 0:
        return TopicPartition(*message.lane, offset)
    return TopicPartition(*message.lane, offset, "", epoch)
