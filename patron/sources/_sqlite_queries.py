"""
The statements of the SQLite source.

What runs for every batch is one statement with one row as its answer (see `Database.execute`), so
lists go in and out as JSON. A lane is free for an owner when no lease on it belongs to anybody else;
a lease that waits to come again has owner 0 and belongs to nobody, so it holds its lane for all.
"""

# ruff: noqa: S608 - what is joined are constants of this file

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Glance"]


@dataclass(frozen=True, slots=True)
class Glance:
    """
    What the queue looks like now.

    *fresh*: messages after the cursor, as id, key, whether it is leased, whether its lane is not
    free. *free*: which of the lanes asked for are. *returned*, *delayed*: whether there are any that
    are due. *next_due*: when the next of them will be.
    """

    fresh: list[tuple[int, str | None, int, int]]
    free: list[str]
    returned: int
    delayed: int
    next_due: float | None


GLANCE = """
SELECT json_array(
  json((SELECT json_group_array(json_array(id, key, leased, blocked)) FROM (
    SELECT m.id, m.key, EXISTS (SELECT 1 FROM patron_leases l WHERE l.id = m.id) AS leased,
      m.key IS NOT NULL AND EXISTS (SELECT 1 FROM patron_leases l
        WHERE l.topic = :topic AND l.key = m.key AND l.owner <> :owner) AS blocked
    FROM patron_messages m WHERE m.topic = :topic AND m.id > :cursor ORDER BY m.id LIMIT :window))),
  json((SELECT json_group_array(value) FROM json_each(:lanes) WHERE NOT EXISTS (
    SELECT 1 FROM patron_leases l WHERE l.topic = :topic AND l.key = value AND l.owner <> :owner))),
  EXISTS (SELECT 1 FROM patron_leases WHERE topic = :topic AND owner = 0 AND due <= :now),
  EXISTS (SELECT 1 FROM patron_delayed WHERE topic = :topic AND due <= :now),
  (SELECT min(due) FROM (
    SELECT min(due) AS due FROM patron_leases WHERE topic = :topic AND owner = 0 AND due > :now
    UNION ALL SELECT min(due) FROM patron_delayed WHERE topic = :topic AND due > :now))
)"""

# All of a lane or nothing of it: every row of a lane meets the same condition.
LEASE = """
INSERT INTO patron_leases (id, topic, key, owner, deliveries, due)
SELECT m.id, m.topic, m.key, :owner, 1, 0.0 FROM json_each(:ids) j JOIN patron_messages m ON m.id = j.value
WHERE NOT EXISTS (SELECT 1 FROM patron_leases l WHERE l.id = m.id)
  AND (m.key IS NULL OR NOT EXISTS (
    SELECT 1 FROM patron_leases l WHERE l.topic = m.topic AND l.key = m.key AND l.owner <> :owner))"""

UNTAKEN = """
SELECT json_group_array(m.id) FROM json_each(:ids) j JOIN patron_messages m ON m.id = j.value
WHERE NOT EXISTS (SELECT 1 FROM patron_leases l WHERE l.id = m.id)"""

LANE = """
SELECT json_group_array(id) FROM (SELECT id FROM patron_messages
WHERE topic = :topic AND id > :after AND id <= :cursor AND key = :key ORDER BY id LIMIT :count)"""

# Not while another owner has the lane. Within a lane due never falls from one returned message to the
# next (GIVE_BACK sees to it), so the order of due is the order of the lane, wherever the limit cuts.
TAKE_RETURNED = """
UPDATE patron_leases SET owner = :owner, deliveries = deliveries + 1 WHERE id IN (
  SELECT l.id FROM patron_leases l WHERE l.topic = :topic AND l.owner = 0 AND l.due <= :now
  AND (l.key IS NULL OR NOT EXISTS (SELECT 1 FROM patron_leases p
    WHERE p.topic = l.topic AND p.key = l.key AND p.owner NOT IN (0, :owner)))
  ORDER BY l.due, l.id LIMIT :limit)"""

OWN = "SELECT json_group_array(json_array(id, key)) FROM patron_leases WHERE owner = :owner"

# group_concat joins the bytes as they are: the casts only change their type. No row comes when the
# bodies together are larger than :most, which would be too much for one piece.
IN_ONE_PIECE = """
SELECT json_group_array(json_array(m.id, m.key, json(m.headers), m.published, m.name, l.deliveries,
  length(m.body))), CAST(group_concat(CAST(m.body AS TEXT), '') AS BLOB)
FROM json_each(CASE WHEN (SELECT total(length(b.body)) FROM json_each(:ids) i JOIN patron_messages b ON b.id = i.value)
  <= :most THEN :ids ELSE '[]' END) j
JOIN patron_leases l ON l.id = j.value AND l.owner = :owner JOIN patron_messages m ON m.id = l.id"""

ONE_BY_ONE = """
SELECT m.id, m.key, m.headers, m.published, m.name, l.deliveries, m.body
FROM json_each(:ids) j JOIN patron_leases l ON l.id = j.value AND l.owner = :owner
JOIN patron_messages m ON m.id = l.id ORDER BY m.id"""

# A trigger deletes the leases.
SETTLE = "DELETE FROM patron_messages WHERE id IN (SELECT value FROM json_each(?))"

_DUE_BEFORE = """
coalesce((SELECT max(p.due) FROM patron_leases p WHERE p.topic = patron_leases.topic
  AND p.key = patron_leases.key AND p.owner = 0 AND p.id < patron_leases.id), 0.0)"""

GIVE_BACK = f"""
UPDATE patron_leases SET owner = 0, deliveries = given.deliveries, due = max(:due, {_DUE_BEFORE})
FROM (SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS deliveries FROM json_each(:given)) given
WHERE patron_leases.id = given.id AND owner = :owner"""

# What was returned earlier and comes later in the lane waits as long.
HOLD_BACK = f"""
UPDATE patron_leases SET due = {_DUE_BEFORE} WHERE owner = 0 AND topic = :topic
AND key IN (SELECT value FROM json_each(:lanes)) AND due < {_DUE_BEFORE}"""

GIVE_BACK_ALL = f"UPDATE patron_leases SET owner = 0, due = {_DUE_BEFORE} WHERE owner = ?"

MATURE = """
INSERT INTO patron_messages (topic, key, headers, body, published, name)
SELECT topic, key, headers, body, published, 'd' || id FROM patron_delayed
WHERE topic = :topic AND due <= :now ORDER BY due, id LIMIT 500"""

MATURED = """
DELETE FROM patron_delayed WHERE id IN (
  SELECT id FROM patron_delayed WHERE topic = :topic AND due <= :now ORDER BY due, id LIMIT 500)"""

REGISTER = "INSERT INTO patron_owners (topic, pid, opened) VALUES (?, ?, ?)"
UNREGISTER = "DELETE FROM patron_owners WHERE id = ?"
OWNERS = "SELECT id FROM patron_owners"

STATS = """
SELECT (SELECT count(*) FROM patron_messages WHERE topic = :topic)
     - (SELECT count(*) FROM patron_leases WHERE topic = :topic AND owner <> 0),
  (SELECT published FROM patron_messages m WHERE topic = :topic
   AND NOT EXISTS (SELECT 1 FROM patron_leases l WHERE l.id = m.id AND l.owner <> 0) ORDER BY id LIMIT 1)"""
