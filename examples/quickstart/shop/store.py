"""The outcomes of the orders, in the same file as the queue, so that both change in one transaction."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from patron import SqliteSource, encoding
from patron.consumer import Message
from shop.orders import PlacedOrder

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
"""


class Store:
    """The orders and what became of them. Any thread may call; each has a connection of its own."""

    def __init__(self, path: str) -> None:
        self._source = SqliteSource(path=path, topic="orders")
        self._publisher = self._source.publisher()
        self._mine = threading.local()
        self._opening = threading.Lock()  # guards _open
        self._open: list[Any] = []
        with self._transaction(durable=True) as connection:
            for statement in SCHEMA.split(";"):
                connection.execute(statement)

    def place(self, placed: PlacedOrder) -> None:
        """Keep the order and publish it, both or neither; when it returns, both are on the disk."""
        with self._transaction(durable=True) as connection:
            row = (placed.id, placed.order.customer)
            connection.execute("INSERT INTO orders (id, customer, status) VALUES (?, ?, 'accepted')", row)
            body = encoding.encode(placed, "application/json")
            headers = {"Content-Type": "application/json"}
            self._publisher.publish_in(connection, "orders", body, key=placed.order.customer, headers=headers)

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

    def dead_letters(self, limit: int) -> list[Message]:
        """The oldest dead letters."""
        return self._source.browse("orders.dlq", limit=limit)

    def close(self) -> None:
        """Close every connection; called once, when nothing uses the store any more."""
        self._publisher.close()
        with self._opening:
            for connection in self._open:
                connection.close()

    @contextmanager
    def _transaction(self, durable: bool = False) -> Iterator[Any]:
        """
        A write transaction; one that is not *durable* by itself becomes so with the next one that is.

        An outcome need not wait for the disk: the acknowledgement of its message does, comes later in
        the same log, and takes along what stands before it.
        """
        connection = self._connection()
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        with self._source.transaction(connection):
            yield connection

    def _connection(self) -> Any:
        if not hasattr(self._mine, "connection"):
            self._mine.connection = self._source.connect()
            with self._opening:
                self._open.append(self._mine.connection)
        return self._mine.connection


def open_store(path: str) -> Store:
    """The resource ``store``."""
    return Store(path)
