"""Committing offsets: aside while messages are processed, and waited for when partitions are given up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from time import monotonic
from typing import Any

from patron.consumer.source import Message
from patron.errors import NotASource, SourceError, Stale
from patron.observe import log
from patron.sources._kafka_library import (
    Client,
    MemberState,
    OffsetAndMetadata,
    TopicPartition,
    errors,
    translation,
)

__all__ = ["Commits", "after"]

_EVERY = 0.05
"""Seconds between two commits: each costs the driver two switches of threads, however many offsets it has."""

_PATIENCE = 0.1
"""After so many seconds an answer is waited for: what a crash would repeat must not grow without bounds."""

_COMMITTING = 5.0
"""How long a commit may take that is waited for, in seconds."""

_LOST = 60.0
"""After so many seconds an answer that did not come is one that never will."""

Key = tuple[str, int]


class Commits:
    """
    The commits of one member of a group; whoever owns the consumer calls.

    What is committed goes out soon, together with what came meanwhile, one commit at a time, so that none
    overtakes a later one. The answer is seen at a later poll; what was refused goes out again with the next.
    In the middle of a cooperative rebalance, which may last until the slowest member has given up its
    partitions, no commit is accepted, though the partitions that stay are read on: it is kept for then.
    """

    def __init__(self, consumer: Client) -> None:
        self.refused: NotASource | None = None
        self._consumer = consumer
        self._kept: dict[Key, Any] = {}
        self._sent: dict[Key, Any] = {}
        self._number = 0
        self._sent_at: float | None = None
        self._due = 0.0
        self._failing = False

    @property
    def waiting(self) -> bool:
        """Whether something is not known to be committed."""
        return bool(self._kept or self._sent)

    @property
    def joining(self) -> bool:
        """Whether the group is being rebalanced, as far as this member knows."""
        return bool(self._consumer.group_metadata().state == MemberState.REBALANCING)

    @property
    def member(self) -> bool:
        """Whether the group has shared its partitions out, and this member knows its share."""
        return bool(self._consumer.group_metadata().state == MemberState.STABLE)

    def commit(self, offsets: Mapping[Key, Any]) -> None:
        """
        Commit *offsets* soon; wait for that when the last commit failed or is not answered.

        Raises:
            Stale: we are no member any more. SourceError: it failed again, try again.
        """
        if self._consumer.group_metadata().state == MemberState.UNJOINED:
            raise Stale("cannot commit: the group goes on without us")
        self._kept.update(offsets)
        slow = self._sent_at is not None and monotonic() - self._sent_at > _PATIENCE
        if not (slow or self._failing):
            self.flow()
        elif (error := self.settle()) is not None:
            raise error

    def flow(self) -> None:
        """Send what is due, without waiting for the answer."""
        now = monotonic()
        if self._sent_at is not None and now - self._sent_at > _LOST:
            self._failed(errors.KafkaTimeoutError("no answer"))
        if not self._kept or self._sent_at is not None or now < self._due or self.joining:
            return
        self._sent, self._kept = self._kept, {}
        self._sent_at, self._due = now, now + _EVERY
        self._number += 1
        number = self._number

        def answered(_: object, answer: object) -> None:
            if number == self._number and self._sent_at is not None:
                self._answered(answer)

        try:
            self._consumer.commit_async(_driver_side(self._sent), answered)
        except errors.KafkaError as error:
            self._failed(error)

    def settle(self, timeout: float = _COMMITTING) -> SourceError | None:
        """Commit everything now, and wait for it; what fails is kept, unless it is no longer ours. Returns why."""
        if not self.waiting or self.joining:
            return None
        # One connection is answered in order, so what is on its way does not come after this.
        self._sent = {**self._sent, **self._kept}
        self._kept = {}
        self._number += 1
        try:
            self._consumer.commit(_driver_side(self._sent), timeout_ms=timeout * 1000)
        except errors.KafkaError as error:
            return self._failed(error)
        self._answered(None)
        return None

    def drop(self, partitions: Iterable[Key]) -> None:
        """*partitions* are no longer ours: forget what was kept of them."""
        for key in partitions:
            self._kept.pop(key, None)
            self._sent.pop(key, None)

    def _answered(self, answer: object) -> None:
        if isinstance(answer, BaseException):
            self._failed(answer)
        else:
            self._sent, self._sent_at, self._failing = {}, None, False

    def _failed(self, error: BaseException) -> SourceError:
        sent, self._sent, self._sent_at = self._sent, {}, None
        ours = translation(error, "cannot commit")
        if isinstance(ours, Stale):
            log.warn("commit refused, messages come again", partitions=len(sent), error=str(ours))
            return ours
        self._kept = {**sent, **self._kept}
        self._due = monotonic() + 2 * _EVERY
        self._failing = True
        if isinstance(ours, NotASource):
            self.refused = ours
        log.debug("commit failed, it is tried again", partitions=len(sent), error=str(ours))
        return ours if isinstance(ours, SourceError) else SourceError(str(ours))


def after(message: Message) -> Any:
    """What to commit when *message* is done, with the leader's epoch, by which a truncated log is noticed."""
    assert message.position is not None
    epoch = getattr(message.raw, "leader_epoch", None)
    return OffsetAndMetadata(message.position + 1, "", -1 if epoch is None else epoch)


def _driver_side(offsets: Mapping[Key, Any]) -> dict[Any, Any]:
    return {TopicPartition(*key): offset for key, offset in offsets.items()}
