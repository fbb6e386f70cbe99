"""The entries, in a file of SQLite."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator

__all__ = ["Book", "open_book"]

KEPT_DAYS = 30


class Book:
    """The open book; any thread may use it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()  # guards the connection
        self._do("CREATE TABLE IF NOT EXISTS entries (text TEXT, at TEXT DEFAULT CURRENT_TIMESTAMP)")

    def add(self, text: str) -> int:
        """Write an entry; returns its number."""
        return self._do("INSERT INTO entries (text) VALUES (?)", text).lastrowid or 0

    def entries(self) -> list[str]:
        """All of them, in order."""
        return [text for (text,) in self._do("SELECT text FROM entries ORDER BY rowid")]

    def _do(self, statement: str, *values: object) -> sqlite3.Cursor:
        with self._lock, self._connection:
            return self._connection.execute(statement, values)

    # Patron hands over the resource of the parameter's name.

    @staticmethod
    def count_of(book: Book) -> int:
        """How many entries there are; raises when the file cannot be read, and then it is not ready."""
        return len(book.entries())

    @staticmethod
    def forget_old(book: Book) -> None:
        """Remove what is older than a month."""
        book._do("DELETE FROM entries WHERE at < datetime('now', ?)", f"-{KEPT_DAYS} days")


def open_book(path: str) -> Iterator[Book]:
    """A resource: what stands before ``yield`` opens it, what stands behind closes it."""
    connection = sqlite3.connect(path, check_same_thread=False)
    try:
        yield Book(connection)
    finally:
        connection.close()
