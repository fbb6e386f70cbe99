"""Publishing on a queue file: durable when it returns, many threads in one commit."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from patron import correlation
from patron.errors import ConfigError, ConnectionLost, PatronError, PublishFailed, SourceError, StorageFull
from patron.sources import _sqlite_bell as bell
from patron.sources._sqlite_driver import driver
from patron.sources._sqlite_file import Database, FileSettings, lock_path
from patron.sources._sqlite_locks import Locks

__all__ = ["Outgoing", "SqlitePublisher"]

_COLUMNS = "(topic, key, headers, body, published)"
_DELAYED = "(topic, key, headers, body, published, due)"
_ROWS = 500  # of one INSERT; 5 variables each, and SQLite allows 32,766


@dataclass(slots=True)
class Outgoing:
    """A message that is to be published."""

    topic: str
    body: bytes
    key: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0

    def row(self, now: float) -> tuple[Any, ...]:
        """
        The values of `_COLUMNS`, or of `_DELAYED` when it has a delay; refuses what cannot be stored.

        Called where the message is published, since its headers carry what is being done there.
        """
        row = (_text("topic", self.topic), self.key, _headers(self.headers), bytes(self.body), now)
        if self.key is not None:
            _text("key", self.key)
        return (*row, now + self.delay) if self.delay > 0 else row


@dataclass(slots=True, eq=False)
class _Request:
    """What one thread waits for: its rows, then their ids or the error."""

    rows: Sequence[tuple[Any, ...]]
    done: bool = False
    ids: list[str] = field(default_factory=list)
    error: Exception | None = None


class SqlitePublisher:
    """
    A publisher to a queue file. Any thread may call; threads that meet share one commit.

    It opens its connection at the first call; one that is open does not survive a fork.
    """

    def __init__(self, settings: FileSettings) -> None:
        self.settings = settings
        self._waiting: list[_Request] = []  # guarded by _queue
        self._queue = threading.Lock()
        self._turn = threading.Lock()  # guards the connection and the lock file
        self._schemas: WeakKeyDictionary[Any, str] = WeakKeyDictionary()  # of the callers' connections
        self._database: Database | None = None
        self._locks: Locks | None = None
        self._closed = False
        self._pid = os.getpid()

    def publish(
        self,
        topic: str,
        body: bytes,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay: float = 0.0,
    ) -> str:
        """
        Publish, and return the id once the message is on the disk.

        Messages of one *key* are processed in the order of their commits; with a *delay* in
        seconds the message takes its place when it is due.

        Raises:
            PublishFailed: it is not there. StorageFull: it is not there, try later.
        """
        return self.publish_many([Outgoing(topic, body, key, headers or {}, delay)])[0]

    def publish_many(self, messages: Sequence[Outgoing]) -> list[str]:
        """Publish all of *messages* in one commit, or none of them; raises like `publish`."""
        now = time.time()
        request = _Request([message.row(now) for message in messages])
        self._after_fork()
        with self._queue:
            self._waiting.append(request)
        with self._turn:
            if not request.done:  # the thread before may have taken it along
                with self._queue:
                    group, self._waiting = self._waiting, []
                self._commit(group)
        if request.error is not None:
            raise request.error
        return request.ids

    def publish_in(
        self,
        connection: Any,
        topic: str,
        body: bytes,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay: float = 0.0,
    ) -> str:
        """
        Publish inside the transaction of *connection*, the caller's own to this same file.

        The message is there when the caller commits, and never was when it rolls back. The file may
        also be attached to the connection. Errors of the connection are the caller's, untranslated.

        Raises:
            ConfigError: the connection is to another file, or of another driver. Two SQLite
                libraries in one process do not see each other's locks and destroy the file
                (https://sqlite.org/howtocorrupt.html section 2.2.1), hence ``SqliteSource.connect``.
        """
        row = Outgoing(topic, body, key, headers or {}, delay).row(time.time())
        schema = self._schema_of(connection)
        cursor = connection.cursor()
        cursor.execute(_insert([row], schema), row)
        number = driver(self.settings.driver).inserted(connection, cursor)
        return _name(row, number)

    def close(self) -> None:
        """Close. May be called twice."""
        with self._turn:
            self._closed = True
            self._disconnect()

    # -- the thread whose turn it is -------------------------------------------------------------

    def _commit(self, group: Sequence[_Request]) -> None:
        """Write all requests in one commit; when that fails, each alone: one cannot spoil the others."""
        try:
            self._write(group)
        except PatronError as error:
            if len(group) == 1:
                group[0].error, group[0].done = _as_publish_error(error), True
                return
            for request in group:
                self._commit([request])
            return
        except BaseException:
            for request in group:
                request.error, request.done = PublishFailed("publishing was interrupted"), True
            raise
        bell.ring(self.settings.path)

    def _write(self, group: Sequence[_Request]) -> None:
        database, locks = self._connected()
        rows = [row for request in group for row in request.rows]
        try:
            database.require_room(sum(len(row[3]) + 200 for row in rows), locks)
            ids = database.with_room(locks, lambda: _insert_all(database, rows))
        except ConnectionLost:
            self._disconnect()
            raise
        at = 0
        for request in group:
            request.ids, request.done = ids[at : at + len(request.rows)], True
            at += len(request.rows)
        pages = 4 + sum(len(row[3]) for row in rows) / 3500 + len(rows) / 40
        # Consumers checkpoint four times as early, so that publishing waits for it only without them.
        database.wrote(pages, locks, patience=4.0)

    def _connected(self) -> tuple[Database, Locks]:
        if self._closed:
            raise PublishFailed(f"the publisher to {self.settings.path} is closed")
        if self._database is not None:
            try:
                self._database.check_identity()
            except ConnectionLost:
                self._disconnect()
                raise
        if self._database is None or self._locks is None:
            self._database = Database(self.settings)
            self._locks = Locks(lock_path(self.settings.path))
        return self._database, self._locks

    def _disconnect(self) -> None:
        database, self._database = self._database, None
        locks, self._locks = self._locks, None
        if database is not None:
            database.close()
        if locks is not None:
            locks.close()

    def _after_fork(self) -> None:
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._queue, self._turn, self._waiting = threading.Lock(), threading.Lock(), []
            self._disconnect()

    # -- the caller's connection -----------------------------------------------------------------

    def _schema_of(self, connection: Any) -> str:
        """`_schema_in`, found out once for each connection that can be remembered, as ``connect`` makes them."""
        try:
            known = self._schemas.get(connection)
        except TypeError:
            return self._schema_in(connection)
        if known is None:
            known = self._schemas[connection] = self._schema_in(connection)
        return known

    def _schema_in(self, connection: Any) -> str:
        """The name under which *connection* knows our file."""
        module = type(connection).__mro__[-2].__module__.partition(".")[0]
        if module != self.settings.driver:
            raise ConfigError(
                f"publish_in needs a connection of {self.settings.driver}, not of {module}: two SQLite "
                "libraries on one file in one process destroy it; use SqliteSource.connect(), or the setting 'driver'"
            )
        cursor = connection.cursor()
        with contextlib.suppress(AttributeError):
            cursor.row_factory = None
        ours = os.path.realpath(self.settings.path)
        for _, name, path in cursor.execute("PRAGMA database_list").fetchall():
            if path and os.path.realpath(path) == ours:
                # A checkpoint by this connection could meet the elected one.
                cursor.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
                return str(name)
        raise ConfigError(
            f"publish_in needs a connection to {self.settings.path}: open it by SqliteSource.connect()"
        )


def _insert_all(database: Database, rows: Sequence[tuple[Any, ...]]) -> list[str]:
    if len(rows) <= _ROWS and len({len(row) for row in rows}) == 1:
        return _insert_rows(database, rows)  # one statement is its own transaction
    with database.transaction():
        return (
            [name for row in rows for name in _insert_rows(database, [row])]
            if _mixed(rows)
            else _chunked(database, rows)
        )


def _mixed(rows: Sequence[tuple[Any, ...]]) -> bool:
    return len({len(row) for row in rows}) > 1


def _chunked(database: Database, rows: Sequence[tuple[Any, ...]]) -> list[str]:
    chunks = (rows[at : at + _ROWS] for at in range(0, len(rows), _ROWS))
    return [name for chunk in chunks for name in _insert_rows(database, chunk)]


def _insert_rows(database: Database, rows: Sequence[tuple[Any, ...]]) -> list[str]:
    last = database.insert(_insert(rows), *(value for row in rows for value in row))
    return [_name(rows[0], last - len(rows) + 1 + at) for at in range(len(rows))]


def _insert(rows: Sequence[tuple[Any, ...]], schema: str = "main") -> str:
    table, columns = ("patron_delayed", _DELAYED) if len(rows[0]) == 6 else ("patron_messages", _COLUMNS)
    values = "(" + ",".join("?" * len(rows[0])) + ")"
    quoted = schema.replace('"', '""')
    return f'INSERT INTO "{quoted}".{table} {columns} VALUES ' + ",".join([values] * len(rows))  # noqa: S608


def _name(row: tuple[Any, ...], number: int) -> str:
    return f"d{number}" if len(row) == 6 else str(number)


def _text(what: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise PublishFailed(f"the {what} {value!r} cannot be written in UTF-8") from error
    if "\0" in value:
        raise PublishFailed(f"the {what} {value!r} has a zero byte in it")
    return value


def _headers(headers: Mapping[str, str]) -> str:
    sent = correlation.message_headers(headers)
    return json.dumps(sent) if sent else "{}"


def _as_publish_error(error: PatronError) -> Exception:
    if isinstance(error, (PublishFailed, StorageFull)) or not isinstance(error, SourceError):
        return error
    failed = PublishFailed(str(error))
    failed.__cause__ = error
    return failed
