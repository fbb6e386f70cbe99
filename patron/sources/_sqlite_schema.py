"""What a queue file holds, how it is made, and how it is told from another program's file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patron.errors import ConfigError, NotASource

__all__ = ["SCHEMA", "Contents", "create", "look", "refuse"]

APPLICATION_ID = int.from_bytes(b"Ptrn", "big")  # what file(1) shows; https://sqlite.org/src/file/magic.txt
VERSION = 1
Execute = Callable[..., list[Any]]

# The version stands in a table and not in user_version, which is left to the user's own tables.
#
# patron_messages  in order of publishing. AUTOINCREMENT, because a subscription remembers how far it
#                  has read: an id must not come twice. Its index follows (topic, id), so that both
#                  ends of a large backlog stay hot; by key, every insert would touch a page of its own.
# patron_leases    one row for each message that was given out and not settled: by a living
#                  subscription (owner), or waiting to come again (owner 0, not before due).
# patron_delayed   what was published with a delay; it enters patron_messages when it is due.
# patron_owners    the open subscriptions; each holds the lock of its id while its process lives.
#
# The trigger makes settling one statement, and a message that is deleted by hand leaves no lease.
SCHEMA = (
    "CREATE TABLE patron_meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "CREATE TABLE patron_messages (id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, key TEXT,"
    " headers TEXT NOT NULL, body BLOB NOT NULL, published REAL NOT NULL, name TEXT)",
    "CREATE INDEX patron_messages_order ON patron_messages (topic, id, key)",
    "CREATE TABLE patron_leases (id INTEGER PRIMARY KEY, topic TEXT NOT NULL, key TEXT,"
    " owner INTEGER NOT NULL, deliveries INTEGER NOT NULL, due REAL NOT NULL)",
    "CREATE INDEX patron_leases_lane ON patron_leases (topic, key) WHERE key IS NOT NULL",
    "CREATE INDEX patron_leases_due ON patron_leases (topic, due, id) WHERE owner = 0",
    "CREATE TABLE patron_delayed (id INTEGER PRIMARY KEY AUTOINCREMENT, due REAL NOT NULL,"
    " topic TEXT NOT NULL, key TEXT, headers TEXT NOT NULL, body BLOB NOT NULL, published REAL NOT NULL)",
    "CREATE INDEX patron_delayed_due ON patron_delayed (topic, due)",
    "CREATE TABLE patron_owners (id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL,"
    " pid INTEGER NOT NULL, opened REAL NOT NULL)",
    "CREATE TRIGGER patron_messages_settled AFTER DELETE ON patron_messages"
    " BEGIN DELETE FROM patron_leases WHERE id = old.id; END",
    f"INSERT INTO patron_meta (name, value) VALUES ('schema', {VERSION}), ('checkpoints', 0)",  # noqa: S608
)


@dataclass(frozen=True, slots=True)
class Contents:
    """What was found in a SQLite file: our schema version or None, its application id, its own tables."""

    version: int | None
    application: int
    tables: tuple[str, ...]
    encoding: str

    @property
    def ours(self) -> bool:
        return self.version is not None

    @property
    def empty(self) -> bool:
        return not self.ours and not self.tables and self.application in (0, APPLICATION_ID)


def look(execute: Execute) -> Contents:
    """What the file holds; reads only."""
    names = [row[0] for row in execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid")]
    tables = tuple(name for name in names if not name.startswith(("sqlite_", "patron_")))
    version = None
    if "patron_meta" in names:
        version = int(execute("SELECT value FROM patron_meta WHERE name = 'schema'")[0][0])
    application = int(execute("PRAGMA application_id")[0][0])
    return Contents(version, application, tables, str(execute("PRAGMA encoding")[0][0]))


def refuse(path: Path, found: Contents, *, adopt: bool) -> None:
    """
    Raise when the file is not ours to write to.

    Raises:
        NotASource: it belongs to another program.
        ConfigError: it was written by a newer Patron.
    """
    if found.version is not None and found.version > VERSION:
        raise ConfigError(
            f"{path} has queue schema {found.version}, this Patron knows {VERSION}: "
            "upgrade Patron, or use another file"
        )
    if not (found.ours or found.empty or adopt):
        raise NotASource(
            f"{path} is a SQLite file of another program ({_describe(found)}): choose another path, "
            "or set 'adopt: true' to keep the queue beside those tables"
        )
    if found.encoding != "UTF-8":
        raise NotASource(f"{path} is a SQLite file in {found.encoding}: the queue needs one in UTF-8")


def create(execute: Execute, found: Contents) -> None:
    """Make the tables, inside a transaction of the caller."""
    for statement in SCHEMA:
        execute(statement)
    if found.empty:
        execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _describe(found: Contents) -> str:
    shown = ", ".join(found.tables[:5]) + (", ..." if len(found.tables) > 5 else "")
    tables = f"tables {shown}" if shown else "no tables"
    return f"application id {found.application:#x}, {tables}" if found.application else tables
