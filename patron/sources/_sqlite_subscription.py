"""Reading a queue file: leases by lane, given out in order, taken back from the dead."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from patron.consumer.source import Message, Stats
from patron.errors import ConnectionLost, SourceError, Stale
from patron.sources import _sqlite_queries as sql
from patron.sources._sqlite_bell import Bell
from patron.sources._sqlite_file import Database, FileSettings, lock_path
from patron.sources._sqlite_locks import FIRST_OWNER, Locks
from patron.sources._sqlite_passed import Passed

__all__ = ["SqliteSubscription"]

_UPKEEP = 0.1  # seconds between two looks for dead owners and a replaced file
_WINDOW = 64  # messages read ahead of what was asked for; doubled while none of them can be taken
_WIDEST = 4096
_LANES = 500  # passed lanes that one look asks for
_AT_ONCE = 8_000_000  # bytes of bodies that are read in one piece


class SqliteSubscription:
    """
    A living reader of one topic. All calls but `wake` come from the thread that opened it.

    A look at the queue reads first, without a lock, decides here, and then takes leases by one
    statement that checks again what may have changed. Bodies are read when the leases are held.
    """

    def __init__(self, settings: FileSettings, topic: str, *, lane_limit: int, poll_interval: float) -> None:
        self.topic = topic
        self._lane_limit = lane_limit
        self._interval = poll_interval
        self._settings = settings
        self._held: dict[int, str | None] = {}  # message → lane
        self._lanes: Counter[str] = Counter()  # lane → how many of it are held
        self._passed = Passed()
        self._cursor = 0  # all messages up to here are held, passed, or leased by somebody
        self._window = _WINDOW
        self._version: int | None = None  # of the data, at the last look
        self._again = True  # another look may find something though the data did not change
        self._untracked = False  # leases may be ours without being held: a look was interrupted
        self._left_over = False  # they were more than the limit
        self._next_due: float | None = None
        self._next_upkeep = 0.0
        self._stats = (Stats(assigned=1), 0.0)
        # Losing a lease in a power failure does no harm, so only settling waits for the disk.
        self._reader = Database(settings, synchronous="normal")
        self._settler: Database | None = None
        self._locks: Locks | None = None
        self._bell = Bell(settings.path)
        try:
            self._settler = Database(settings)
            self._locks = Locks(lock_path(settings.path))
            self._owner = self._register(self._locks)
        except BaseException:
            self._release()
            raise

    def _register(self, locks: Locks) -> int:
        """Become an owner; the lock is held before anybody can see that the owner exists."""
        with self._reader.transaction():
            owner = self._reader.insert(sql.REGISTER, self.topic, os.getpid(), time.time())
            if not locks.take(FIRST_OWNER + owner):
                raise SourceError(f"owner {owner} of {self._settings.path} is locked by somebody else")
        return owner

    # -- the protocol ----------------------------------------------------------------------------

    def poll(self, limit: int, timeout: float) -> Sequence[Message]:
        """See `Subscription.poll`; notices what another process published within the poll interval."""
        deadline = time.monotonic() + timeout
        while True:
            self._upkeep()
            if limit > 0 and self._worth_a_look() and (found := self._look(limit)):
                return found
            remaining = deadline - time.monotonic()
            if self._bell.woken() or remaining <= 0:
                return ()
            if not (limit > 0 and self._again):
                self._bell.wait(min(remaining, self._interval if limit > 0 else _UPKEEP))

    def ack(self, messages: Sequence[Message]) -> None:
        """See `Subscription.ack`; one commit for all of *messages*."""
        ours, stale = self._sorted_out(messages)
        if ours:
            settler, locks = self._open()
            settler.with_room(locks, lambda: settler.execute(sql.SETTLE, json.dumps(ours)))
            self._forget(ours)
            settler.wrote(6 + len(ours) / 8, locks)
        _refuse(stale)

    def nack(self, messages: Sequence[Message], delay: float = 0.0) -> None:
        """
        See `Subscription.nack`; with a *delay*, what follows in the lane waits too.

        What ``deliveries`` of a message says is kept: the engine lowers it for what never started.
        """
        ours, stale = self._sorted_out(messages)
        if ours:
            _, locks = self._open()
            given = {message.raw: message for message in messages}
            self._reader.with_room(locks, partial(self._give_back, [given[id_] for id_ in ours], delay))
            self._forget(ours)
            self._again = True
        _refuse(stale)

    def _give_back(self, messages: Sequence[Message], delay: float) -> None:
        given = json.dumps([(message.raw, message.deliveries) for message in messages])
        give = partial(self._reader.execute, sql.GIVE_BACK, given=given, owner=self._owner)
        if delay <= 0:
            give(due=0.0)
            return
        lanes = json.dumps([*{message.key for message in messages} - {None}])
        with self._reader.transaction():
            give(due=time.time() + delay)
            self._reader.execute(sql.HOLD_BACK, topic=self.topic, lanes=lanes)

    def extend(self, messages: Sequence[Message]) -> None:
        """Do nothing: a lease lasts as long as its process."""

    def stats(self) -> Stats:
        """See `Subscription.stats`; what takes long to count is counted less often."""
        known, until = self._stats
        if time.monotonic() < until:
            return known
        self._open()
        started = time.monotonic()
        ((waiting, oldest),) = self._reader.execute(sql.STATS, topic=self.topic)
        known = Stats(1, int(waiting), max(0.0, time.time() - oldest) if oldest is not None else None)
        self._stats = (known, time.monotonic() + 50 * (time.monotonic() - started))
        return known

    def wake(self) -> None:
        """Make the poll that runs now, or the next one, return at once. Any thread may call."""
        self._bell.wake()

    def close(self) -> None:
        """See `Subscription.close`."""
        if self._locks is not None:
            with contextlib.suppress(SourceError):
                self._give_back_all(self._owner)
        self._release()

    # -- looking -----------------------------------------------------------------------------------

    def _worth_a_look(self) -> bool:
        """Whether anything changed since the last look, or became due."""
        version = self._reader.execute("PRAGMA data_version")[0][0]
        due = self._next_due is not None and time.time() >= self._next_due
        if version == self._version and not self._again and not due:
            return False
        self._version = version
        return True

    def _look(self, limit: int) -> list[Message]:
        try:
            return self._take(limit)
        except BaseException:
            # What was chosen may be leased or not: read the queue from its start again.
            self._cursor, self._passed, self._again, self._left_over = 0, Passed(), True, False
            raise

    def _take(self, limit: int) -> list[Message]:
        self._again = False
        now = time.time()
        found = self._glance(limit, now)
        self._next_due = found.next_due
        if found.delayed:
            self._mature(now)
        taken = self._untracked_leases(limit) if self._untracked else {}
        if found.returned and len(taken) < limit:
            taken |= self._take_returned(limit - len(taken), now)
        chosen = self._choose(found, limit - len(taken))
        if chosen:
            self._lease(chosen)
        if not (taken or chosen):
            self._untracked = False
            return []
        return self._fetch(taken, chosen)

    def _glance(self, limit: int, now: float) -> sql.Glance:
        self._window = max(self._window, min(limit + _WINDOW, _WIDEST))
        lanes = self._passed.some(_LANES)
        ((text,),) = self._reader.execute(
            sql.GLANCE,
            topic=self.topic,
            owner=self._owner,
            cursor=self._cursor,
            window=self._window,
            now=now,
            lanes=json.dumps(lanes),
        )
        return sql.Glance(*json.loads(text))

    def _choose(self, found: sql.Glance, room: int) -> dict[int, str | None]:
        """What to lease, at most *room*: first from the passed lanes that are free, then what is new."""
        chosen: dict[int, str | None] = {}
        planned: Counter[str] = Counter()
        for lane in found.free:
            share = min(room - len(chosen), self._lane_limit - self._lanes[lane])
            if share > 0 and lane in self._passed:
                ids = self._passed.take(lane, share, self._read_lane)
                chosen.update((id_, lane) for id_ in ids if id_ not in self._held)
                planned[lane] += len(ids)
                self._again = True
        for id_, key, leased, blocked in sorted(found.fresh):
            if not leased:
                if key is not None and (
                    blocked or key in self._passed or self._lanes[key] + planned[key] >= self._lane_limit
                ):
                    self._passed.add(key, id_)
                elif len(chosen) >= room:
                    self._again = True
                    break
                else:
                    chosen[id_] = key
                    if key is not None:
                        planned[key] += 1
            self._cursor = id_
        else:
            self._again = self._again or len(found.fresh) >= self._window
        self._window = min(_WIDEST, self._window * 2) if found.fresh and not chosen else _WINDOW
        return chosen

    def _lease(self, chosen: dict[int, str | None]) -> None:
        """Lease what of *chosen* nobody else took meanwhile; `_fetch` finds out what that was."""
        _, locks = self._open()
        self._untracked = True
        lease = partial(self._reader.execute, sql.LEASE, ids=json.dumps(list(chosen)), owner=self._owner)
        self._reader.with_room(locks, lease)
        self._reader.wrote(3 + len(chosen) / 40, locks)

    def _pass_by(self, missed: dict[int, str | None]) -> None:
        ((text,),) = self._reader.execute(sql.UNTAKEN, ids=json.dumps(list(missed)))
        lanes: dict[str, list[int]] = {}
        for id_ in json.loads(text):
            if (key := missed[id_]) is not None:
                lanes.setdefault(key, []).append(id_)
        for key, ids in lanes.items():
            self._passed.back(key, ids)
        self._again = True

    def _read_lane(self, key: str, after: int, count: int) -> list[int]:
        ((text,),) = self._reader.execute(
            sql.LANE, topic=self.topic, key=key, after=after, cursor=self._cursor, count=count
        )
        ids: list[int] = json.loads(text)
        return ids

    # -- what comes again --------------------------------------------------------------------------

    def _take_returned(self, limit: int, now: float) -> dict[int, str | None]:
        """Take what was given back, by its owner or from a dead one, and is due."""
        self._untracked = True
        self._reader.execute(sql.TAKE_RETURNED, topic=self.topic, owner=self._owner, now=now, limit=limit)
        return self._untracked_leases(limit)

    def _untracked_leases(self, limit: int) -> dict[int, str | None]:
        """The leases that are ours in the file and that we do not hold."""
        ((text,),) = self._reader.execute(sql.OWN, owner=self._owner)
        own = [(id_, key) for id_, key in sorted(json.loads(text)) if id_ not in self._held]
        self._left_over = len(own) > limit
        self._again = self._again or bool(own)
        return dict(own[:limit])

    def _mature(self, now: float) -> None:
        """Put what is due from the delayed messages at the end of the queue."""
        with self._reader.transaction():
            self._reader.execute(sql.MATURE, topic=self.topic, now=now)
            self._reader.execute(sql.MATURED, topic=self.topic, now=now)
        self._again = True

    def _upkeep(self) -> None:
        """Now and then: is the file still there, and does every owner live?"""
        now = time.monotonic()
        if now < self._next_upkeep:
            return
        self._next_upkeep = now + _UPKEEP
        _, locks = self._open()
        self._reader.check_identity()
        for (owner,) in self._reader.execute(sql.OWNERS):
            if owner != self._owner and not locks.taken(FIRST_OWNER + owner):
                self._give_back_all(owner)
                self._again = True

    def _give_back_all(self, owner: int) -> None:
        with self._reader.transaction():
            self._reader.execute(sql.GIVE_BACK_ALL, owner)
            self._reader.execute(sql.UNREGISTER, owner)

    # -- bodies ------------------------------------------------------------------------------------

    def _fetch(self, taken: dict[int, str | None], chosen: dict[int, str | None]) -> list[Message]:
        """The messages that are leased by us; the others of *chosen* are passed by."""
        rows = self._rows(json.dumps([*taken, *chosen]))
        self._hold((row[0], row[1]) for row in rows)
        self._untracked, self._left_over = self._left_over, False
        if missed := {id_: key for id_, key in chosen.items() if id_ not in self._held}:
            self._pass_by(missed)
        return [self._message(row) for row in rows]

    def _rows(self, ids: str) -> list[Any]:
        """One row for each of *ids* that is ours, in order; all in one piece unless that would be large."""
        ((text, blob),) = self._reader.execute(sql.IN_ONE_PIECE, ids=ids, owner=self._owner, most=_AT_ONCE)
        if rows := _cut(json.loads(text), blob or b""):
            return sorted(rows)
        rows = self._reader.execute(sql.ONE_BY_ONE, ids=ids, owner=self._owner)
        return [(*row[:2], json.loads(row[2]), *row[3:]) for row in rows]

    def _message(self, row: Sequence[Any]) -> Message:
        id_, key, headers, published, name, deliveries, body = row
        return Message(
            body=body,
            topic=self.topic,
            id=name or str(id_),
            headers=headers,
            key=key,
            lane=key,
            deliveries=deliveries,
            timestamp=published,
            generation=self._owner,
            raw=id_,
        )

    # -- keeping count -----------------------------------------------------------------------------

    def _hold(self, leases: Iterable[tuple[int, str | None]]) -> None:
        for id_, key in leases:
            self._held[id_] = key
            if key is not None:
                self._lanes[key] += 1

    def _forget(self, ids: Iterable[int]) -> None:
        for id_ in ids:
            key = self._held.pop(id_, None)
            if key is not None:
                self._lanes[key] -= 1
                if not self._lanes[key]:
                    del self._lanes[key]

    def _sorted_out(self, messages: Sequence[Message]) -> tuple[list[int], list[Message]]:
        """The ids that are held, and the messages that are not."""
        ours: list[int] = []
        stale: list[Message] = []
        for message in messages:
            if message.generation == self._owner and message.raw in self._held:
                ours.append(message.raw)
            else:
                stale.append(message)
        return ours, stale

    def _open(self) -> tuple[Database, Locks]:
        if self._settler is None or self._locks is None:
            raise ConnectionLost(f"the subscription to {self._settings.path} is closed")
        return self._settler, self._locks

    def _release(self) -> None:
        """Close everything; the lock last, so that nobody thinks us dead before."""
        self._bell.close()
        self._reader.close()
        if self._settler is not None:
            self._settler.close()
        if self._locks is not None:
            self._locks.close()
        self._settler = self._locks = None
        self._held.clear()


def _cut(rows: list[list[Any]], blob: bytes) -> list[Any]:
    """Each row with its part of *blob* in place of the length at its end; none when the lengths are wrong."""
    cut, at = [], 0
    for *row, length in rows:
        cut.append((*row, blob[at : at + length]))
        at += length
    return cut if at == len(blob) else []


def _refuse(stale: list[Message]) -> None:
    if stale:
        names = ", ".join(map(str, stale[:3])) + (", ..." if len(stale) > 3 else "")
        raise Stale(f"{len(stale)} messages are not leased by this subscription: {names}", messages=stale)
