"""The products, the orders and their outcomes, in one SQLite file, and the orders' way into the queue."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from patron import SqliteSource, encoding
from patron.consumer import Message, Publisher, Source
from patron.consumer.letters import Letters
from patron.errors import PublishFailed
from patron.sources.sqlite import SqlitePublisher
from shop.orders import PlacedOrder, Product
from shop.queue import Kind, source

__all__ = ["Store", "open_store"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    customer TEXT NOT NULL,
    status TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS processings (
    number INTEGER PRIMARY KEY,
    order_id TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS processings_of_an_order ON processings (order_id);
CREATE TABLE IF NOT EXISTS products (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    cents INTEGER NOT NULL);
INSERT OR IGNORE INTO products (id, name, cents) VALUES
    ('A1', 'kettle', 2990), ('A2', 'teapot', 1850), ('A3', 'cup', 420), ('A4', 'spoon', 190), ('A5', 'tray', 1275)
"""

PATIENCE = 5.0  # seconds to wait for the connection to the broker, which one thread uses at a time
HEADERS = {"Content-Type": "application/json"}


class Store:
    """What is sold, the orders and what became of them. Any thread may call; each has a connection of its own."""

    def __init__(self, path: str, source: Source, dead_letters: str) -> None:
        self._source = source
        self._dead_letters = dead_letters
        self._file = source if isinstance(source, SqliteSource) else SqliteSource(path, "orders")
        self._publisher = source.publisher()
        self._publishing = threading.Lock()  # guards _publisher, where it is no SQLite publisher
        self._mine = threading.local()
        self._opening = threading.Lock()  # guards _open
        self._open: list[Any] = []
        with self._transaction(durable=True) as connection:
            for statement in SCHEMA.split(";"):
                connection.execute(statement)

    def place(self, placed: PlacedOrder) -> None:
        """
        Keep the order and publish it; when it returns, both are safe.

        In the shop's own file it is both or neither. With a broker the order is kept first, then published,
        and confirmed: what fails between the two is an order that nobody was promised.

        Raises:
            SourceError: nothing may be promised; Patron answers 503.
        """
        message = (self._source.target, encoding.encode(placed, HEADERS["Content-Type"]))
        with self._transaction(durable=True) as connection:
            row = (placed.id, placed.order.customer)
            connection.execute("INSERT INTO orders (id, customer, status) VALUES (?, ?, 'accepted')", row)
            if isinstance(self._publisher, SqlitePublisher):
                self._publisher.publish_in(connection, *message, key=placed.order.customer, headers=HEADERS)
                return
        with self._one_at_a_time() as publisher:
            publisher.publish(*message, key=placed.order.customer, headers=HEADERS)

    def mark_processed(self, order_id: str) -> None:
        """Write down that the order was processed, once for each time that it was."""
        with self._transaction() as connection:
            connection.execute("UPDATE orders SET status = 'processed' WHERE id = ?", (order_id,))
            connection.execute("INSERT INTO processings (order_id) VALUES (?)", (order_id,))

    def mark_rejected(self, order_id: str) -> None:
        """Write down that the order cannot be processed."""
        with self._transaction() as connection:
            connection.execute("UPDATE orders SET status = 'rejected' WHERE id = ?", (order_id,))

    def status(self, order_id: str) -> str | None:
        """``accepted``, ``processed`` or ``rejected``; None when there is no such order."""
        rows = list(self._connection().execute("SELECT status FROM orders WHERE id = ?", (order_id,)))
        return rows[0][0] if rows else None

    def products(self) -> list[Product]:
        """What the shop sells, by id."""
        rows = self._connection().execute("SELECT id, name, cents FROM products ORDER BY id")
        return [Product(*row) for row in rows]

    def product(self, product_id: str) -> Product | None:
        """The product with that id; None when there is no such product."""
        sql = "SELECT id, name, cents FROM products WHERE id = ?"
        rows = list(self._connection().execute(sql, (product_id,)))
        return Product(*rows[0]) if rows else None

    def dead_letters(self, limit: int) -> list[Message]:
        """The oldest dead letters; they stay where they are."""
        with Letters(self._source, self._dead_letters, patience=1.0) as letters:
            return [letter.message for letter in islice(letters, limit)]

    def close(self) -> None:
        """Close every connection; called once, when nothing uses the store any more."""
        self._publisher.close()
        with self._opening:
            for connection in self._open:
                connection.close()

    @contextmanager
    def _one_at_a_time(self) -> Iterator[Publisher]:
        """The connection to the broker, unless the broker is so slow that others have waited for long."""
        if not self._publishing.acquire(timeout=PATIENCE):
            raise PublishFailed(f"the broker has not confirmed other orders for {PATIENCE} s")
        try:
            yield self._publisher
        finally:
            self._publishing.release()

    @contextmanager
    def _transaction(self, durable: bool = False) -> Iterator[Any]:
        """
        A write transaction; one that is not *durable* by itself becomes so with the next one that is.

        An outcome need not wait for the disk where its message is acknowledged in the same file: that does wait,
        comes later in the same log, and takes along what stands before it. With a broker it has to wait itself.
        """
        connection = self._connection()
        safe = durable or self._file is not self._source
        connection.execute(f"PRAGMA synchronous = {'FULL' if safe else 'NORMAL'}")
        with self._file.transaction(connection):
            yield connection

    def _connection(self) -> Any:
        if not hasattr(self._mine, "connection"):
            self._mine.connection = self._file.connect()
            with self._opening:
                self._open.append(self._mine.connection)
        return self._mine.connection


def open_store(path: str, kind: Kind, topic: str) -> Store:
    """The resource ``store``."""
    return Store(path, source(kind, topic, path), f"{topic}.dlq")
