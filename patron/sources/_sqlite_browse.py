"""Looking at a queue file without consuming: dead letters, counts, and deleting by hand."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from patron.consumer.source import Message
from patron.sources._sqlite_file import Database, FileSettings

__all__ = ["browse", "opened", "remove", "topics"]

_BROWSE = """
SELECT m.id, m.key, m.headers, m.published, m.name, m.body, coalesce(l.deliveries, 0)
FROM patron_messages m LEFT JOIN patron_leases l ON l.id = m.id
WHERE m.topic = ? AND m.id > ? ORDER BY m.id LIMIT ?"""

_REMOVABLE = """
SELECT count(*) FROM json_each(?) j JOIN patron_messages m ON m.id = j.value
WHERE NOT EXISTS (SELECT 1 FROM patron_leases l WHERE l.id = m.id AND l.owner <> 0)"""

_REMOVE = """
DELETE FROM patron_messages WHERE id IN (SELECT value FROM json_each(?))
AND NOT EXISTS (SELECT 1 FROM patron_leases l WHERE l.id = patron_messages.id AND l.owner <> 0)"""


@contextlib.contextmanager
def opened(settings: FileSettings) -> Iterator[Database]:
    """The file, open for as long as the block lasts."""
    database = Database(settings)
    try:
        yield database
    finally:
        database.close()


def browse(database: Database, topic: str, limit: int, after: int) -> list[Message]:
    """At most *limit* messages of *topic* after the id *after*; deliveries is 0 when never given out."""
    return [
        Message(
            body=body,
            topic=topic,
            id=name or str(id_),
            headers=json.loads(headers),
            key=key,
            lane=key,
            deliveries=deliveries,
            timestamp=published,
            raw=id_,
        )
        for id_, key, headers, published, name, body, deliveries in database.execute(
            _BROWSE, topic, after, limit
        )
    ]


def remove(database: Database, ids: str) -> int:
    """Delete the messages of the JSON list *ids* that nobody is processing, and count them."""
    with database.transaction():
        count = int(database.execute(_REMOVABLE, ids)[0][0])
        database.execute(_REMOVE, ids)
    return count


def topics(database: Database) -> dict[str, int]:
    """Topic → number of messages."""
    return dict(database.execute("SELECT topic, count(*) FROM patron_messages GROUP BY topic ORDER BY topic"))
