"""
The embedded source: a durable queue in one SQLite file, for any number of processes of one machine.

It needs no broker and no package, keeps order per key, gives a message to one process at a time, and
takes it back at once when that process dies. docs/sqlite.md tells what is promised, and how.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from patron.consumer.source import Message
from patron.errors import ConfigError
from patron.sources import _sqlite_browse as browsing
from patron.sources._sqlite_driver import SqliteVersion, sqlite_version
from patron.sources._sqlite_file import Database, FileSettings
from patron.sources._sqlite_letters import SqliteLetters
from patron.sources._sqlite_publish import Outgoing, SqlitePublisher
from patron.sources._sqlite_subscription import SqliteSubscription

__all__ = [
    "Outgoing",
    "SqlitePublisher",
    "SqliteSource",
    "SqliteSubscription",
    "SqliteVersion",
    "sqlite_version",
]


@dataclass(frozen=True)
class SqliteSource:
    """
    A topic in a queue file.

    Args:
        path: The file; it and its folder are made when they are not there.
        topic: What to read. Publishing may name any topic.
        synchronous: ``full`` waits for the disk at each publish and ack; ``normal`` does not, which
            survives ``kill -9`` but may lose the last moments in a power failure.
        driver: ``sqlite3`` of the standard library, or ``apsw`` (extra ``sqlite``) with its current
            SQLite. All connections of a process to the file must be of the same one: see `connect`.
        busy_timeout: Seconds to wait for the write lock before a call fails.
        poll_interval: Seconds after which a message from another process is noticed, at most.
        lane_limit: How many messages of one key a subscription holds at once, so that a key with a
            long backlog leaves room for the others.
        checkpoint_pages: About how many written pages (4 KiB) lie between two checkpoints.
        max_bytes: Refuse to let the file grow beyond this size, as if the disk were full.
        adopt: Keep the queue in a SQLite file that already has tables of another program.
    """

    path: Path | str
    topic: str
    synchronous: Literal["full", "normal"] = "full"
    driver: Literal["sqlite3", "apsw"] = "sqlite3"
    busy_timeout: float = 5.0
    poll_interval: float = 0.01
    lane_limit: int = 256
    checkpoint_pages: int = 2000
    max_bytes: int | None = None
    adopt: bool = False

    def __post_init__(self) -> None:
        if problems := [problem for wrong, problem in self._rules() if wrong]:
            raise ConfigError(*problems)

    def _rules(self) -> Sequence[tuple[bool, str]]:
        return (
            (Path(self.path).name == "", f"path {str(self.path)!r} names no file"),
            (str(self.path) == ":memory:", "path ':memory:' is no file: use the memory source"),
            (not self.topic, "topic is empty: name what to read"),
            (
                self.synchronous not in ("full", "normal"),
                f"synchronous {self.synchronous!r} is not full or normal",
            ),
            (self.driver not in ("sqlite3", "apsw"), f"driver {self.driver!r} is not sqlite3 or apsw"),
            (self.busy_timeout < 0, f"busy_timeout {self.busy_timeout} is below 0"),
            (self.poll_interval <= 0, f"poll_interval {self.poll_interval} is not above 0"),
            (self.lane_limit < 1, f"lane_limit {self.lane_limit} is below 1"),
            (self.checkpoint_pages < 1, f"checkpoint_pages {self.checkpoint_pages} is below 1"),
            (
                self.max_bytes is not None and self.max_bytes < 131072,
                f"max_bytes {self.max_bytes} is below 131072, which the empty tables need",
            ),
        )

    @property
    def system(self) -> str:
        return "sqlite"

    @property
    def positional(self) -> bool:
        return False

    @property
    def target(self) -> str:
        return self.topic

    def open(self) -> SqliteSubscription:
        """
        Open the file for reading *topic*, in the calling thread, which owns the subscription.

        Raises:
            NotASource: the path is a folder or a file of another program, which is left as it is.
            ConfigError: it cannot be opened or written, or a newer Patron wrote it.
            MissingExtra: the driver apsw is not installed.
        """
        return SqliteSubscription(
            self._file(), self.topic, lane_limit=self.lane_limit, poll_interval=self.poll_interval
        )

    def publisher(self) -> SqlitePublisher:
        """A publisher to any topic of the file; opens it at its first call; any thread may use it."""
        return SqlitePublisher(self._file())

    def letters(self, topic: str) -> SqliteLetters:
        """*topic* for `patron dlq`: it takes no leases, and makes no file where there is none."""
        return SqliteLetters(self._file(), topic)

    def connect(self) -> Any:
        """
        A connection of `driver` to the file for the user's own tables, and for ``publish_in``.

        It is in autocommit mode (say ``BEGIN`` and ``COMMIT``), waits for locks, and leaves
        checkpoints to Patron. The caller closes it, and keeps it to one thread at a time.
        """
        database = Database(self._file())
        database.patient_by_itself()
        return database.detach()

    @contextlib.contextmanager
    def transaction(self, connection: Any) -> Iterator[Any]:
        """
        A write transaction on *connection* (of `connect`): committed at the end, rolled back when the block raises.

        Raises:
            StorageFull: the disk is full; nothing was written. ConnectionLost: the file went away.
            SourceError: it stayed locked for longer than ``busy_timeout``. Other errors of the driver,
            such as a violated constraint, come as they are.
        """
        with Database.around(self._file(), connection).translated_transaction():
            yield connection

    def browse(self, topic: str | None = None, *, limit: int = 100, after: int = 0) -> list[Message]:
        """
        Look at the messages of *topic* (default: the source's own) without taking them, oldest first.

        For dead letters: ``source.browse("orders.dlq")``. *after* is the ``raw`` of the last message
        seen, for the next page. Any thread may call; each call opens the file anew.
        """
        with browsing.opened(self._file()) as database:
            return browsing.browse(database, topic or self.topic, limit, after)

    def remove(self, messages: Sequence[Message]) -> int:
        """Delete *messages*, as `browse` gave them; returns how many were there and not in process."""
        with browsing.opened(self._file()) as database:
            return browsing.remove(database, json.dumps([message.raw for message in messages]))

    def topics(self) -> dict[str, int]:
        """Every topic of the file and how many messages are in it, those being processed included."""
        with browsing.opened(self._file()) as database:
            return browsing.topics(database)

    def _file(self) -> FileSettings:
        return FileSettings(
            Path(self.path),
            driver=self.driver,
            synchronous=self.synchronous,
            busy_timeout=self.busy_timeout,
            checkpoint_pages=self.checkpoint_pages,
            max_bytes=self.max_bytes,
            adopt=self.adopt,
        )
