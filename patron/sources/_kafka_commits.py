"""Committing offsets, and keeping them for a moment while the group is being rebalanced."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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

_COMMITTING = 5.0
"""How long a commit may take before it is tried again later, in seconds."""

Key = tuple[str, int]


class Commits:
    """
    The commits of one member of a group; whoever owns the consumer calls.

    In the middle of a cooperative rebalance, which may last until the slowest member has given up its
    partitions, no commit is accepted, though the partitions that stay are read on. What is committed
    then is kept, and goes out as soon as the rebalance is over, or before a partition is given up.
    """

    def __init__(self, consumer: Client) -> None:
        self.refused: NotASource | None = None
        self._consumer = consumer
        self._kept: dict[Key, Any] = {}

    @property
    def waiting(self) -> bool:
        """Whether something is kept."""
        return bool(self._kept)

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
        Commit *offsets*, or keep them for the moment.

        Raises:
            Stale: we are no member any more. SourceError: nothing was committed, try again.
        """
        self._kept.update(offsets)
        if not self.joining:
            kept, self._kept = self._kept, {}
            self._send(kept)

    def flush(self) -> None:
        """Commit what was kept, if it can be now; what fails is kept, unless it is no longer ours."""
        if not self._kept or self.joining:
            return
        kept, self._kept = self._kept, {}
        try:
            self._send(kept)
        except Stale as error:
            log.warn("commit refused, messages come again", partitions=len(kept), error=str(error))
        except SourceError as error:
            self._kept = {**kept, **self._kept}
            log.debug("commit failed, it is tried again", partitions=len(kept), error=str(error))

    def drop(self, partitions: Iterable[Key]) -> None:
        """*partitions* are no longer ours: forget what was kept of them."""
        for key in partitions:
            self._kept.pop(key, None)

    def _send(self, offsets: Mapping[Key, Any]) -> None:
        given = {TopicPartition(*key): offset for key, offset in offsets.items()}
        try:
            self._consumer.commit(given, timeout_ms=_COMMITTING * 1000)
        except errors.KafkaError as error:
            ours = translation(error, "cannot commit")
            if isinstance(ours, NotASource):
                self.refused = ours
            raise ours from error


def after(message: Message) -> Any:
    """What to commit when *message* is done, with the leader's epoch, by which a truncated log is noticed."""
    assert message.position is not None
    epoch = getattr(message.raw, "leader_epoch", None)
    return OffsetAndMetadata(message.position + 1, "", -1 if epoch is None else epoch)
