"""A topic of a queue file as `patron dlq` reads it: looked at without leases, deleted on demand."""

from __future__ import annotations

import json
from collections.abc import Sequence

from patron.consumer.source import Message, Stats
from patron.errors import Stale
from patron.sources import _sqlite_browse as browsing
from patron.sources._sqlite_file import Database, FileSettings

__all__ = ["SqliteLetters"]

_COUNT = "SELECT count(*) FROM patron_messages WHERE topic = ?"
_LEFT = "SELECT m.id FROM json_each(?) j JOIN patron_messages m ON m.id = j.value"


class SqliteLetters:
    """
    A subscription that takes nothing: `poll` goes through the topic once, `ack` deletes, in any order.

    A file that is not there has no letters, and is not made.
    """

    def __init__(self, settings: FileSettings, topic: str) -> None:
        self._topic = topic
        self._database = Database(settings) if settings.path.exists() else None
        self._after = 0

    def poll(self, limit: int, timeout: float) -> Sequence[Message]:
        """The next letters; it never waits."""
        if self._database is None or limit == 0:
            return []
        found = browsing.browse(self._database, self._topic, limit, self._after)
        if found:
            self._after = found[-1].raw
        return found

    def ack(self, messages: Sequence[Message]) -> None:
        """
        Delete *messages*, if they are still there.

        Raises:
            Stale: for those that a consumer of this topic is processing.
        """
        if self._database is None:
            return
        ids = json.dumps([message.raw for message in messages])
        if browsing.remove(self._database, ids) < len(messages):
            left = {id_ for (id_,) in self._database.execute(_LEFT, ids)}
            if busy := [message for message in messages if message.raw in left]:
                raise Stale(f"{len(busy)} messages of {self._topic} are being processed", messages=busy)

    def nack(self, messages: Sequence[Message], delay: float = 0.0) -> None:
        """They were never taken."""

    def extend(self, messages: Sequence[Message]) -> None:
        """There are no leases."""

    def stats(self) -> Stats:
        """How many letters there are, those that `poll` has passed included."""
        count = 0 if self._database is None else self._database.execute(_COUNT, self._topic)[0][0]
        return Stats(assigned=1, lag=count)

    def close(self) -> None:
        """Close the file. May be called twice."""
        database, self._database = self._database, None
        if database is not None:
            database.close()
