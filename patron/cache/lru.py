"""The store in the memory of the process: the least recently used entries go first, and each after its time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from cachetools import Cache, TLRUCache

from patron.cache.store import OnEvict
from patron.errors import ConfigError

__all__ = ["LRUStore"]

_ENTRY = 200
"""Bytes that an entry costs beside its key and its value, about."""


class _Entry(NamedTuple):
    value: bytes
    added: float
    expires: float
    bytes: int


class _Entries(TLRUCache[str, _Entry]):
    """cachetools' LRU with a time for each entry, which writes down what it removes by itself."""

    def __init__(self, size: int, max_bytes: int, clock: Callable[[], float]) -> None:
        super().__init__(max_bytes, _expires, clock, _bytes)
        self._size = size
        self.removed: list[tuple[str, _Entry]] = []

    def expire(self, time: float | None = None) -> list[tuple[str, _Entry]]:
        expired = list(super().expire(time))
        if expired:
            self.removed += (("expired", entry) for _, entry in expired)
        return expired

    def popitem(self) -> tuple[str, _Entry]:
        key, entry = super().popitem()
        self.removed.append(("capacity", entry))
        return key, entry

    def keep(self, key: str, entry: _Entry) -> None:
        """Set it, and remove what is too much now; one that is too large by itself goes at once."""
        with self.timer as now:  # time stands still in here: what counts as there can be removed
            self.expire(now)
            self.pop(key, None)
            if entry.bytes > self.maxsize:
                self.removed.append(("capacity", entry))
                return
            while Cache.__len__(self) >= self._size:  # our own would look again for what is over
                self.popitem()
            self[key] = entry


def _expires(key: str, entry: _Entry, now: float) -> float:
    return entry.expires


def _bytes(entry: _Entry) -> int:
    return entry.bytes


class LRUStore:
    """
    A `Store` in the memory of this process. `get` returns the object that was set, not a copy.

    Args:
        size: how many entries it keeps.
        max_bytes: how many bytes they may have, keys and a little for each entry included; a larger value
            is not kept at all.
        on_evict: told of each entry that made room (``"capacity"``) or was removed since its time was over
            (``"expired"``), with its age in seconds.
        clock: seconds; for tests.

    Raises:
        ConfigError: there is no room for a single entry.
    """

    def __init__(
        self,
        size: int = 1024,
        max_bytes: int = 64 * 1024 * 1024,
        on_evict: OnEvict | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        for name, value in (("size", size), ("max_bytes", max_bytes)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"memory store: {name} is {value!r}: use a whole number above 0")
        self._clock = clock
        self._on_evict = on_evict
        # Guards the entries, of which reading one changes the order, and their list of what was removed.
        self._lock = threading.Lock()
        self._entries = _Entries(size, max_bytes, clock)

    def get(self, key: str) -> bytes | None:
        """What was set for *key*, or None."""
        with self._lock:
            try:
                return self._entries[key].value
            except KeyError:
                return None

    def set(self, key: str, value: bytes, ttl: float) -> None:
        """Keep *value* for *ttl* seconds; the least recently used ones make room."""
        now = self._clock()
        with self._lock:
            if ttl > 0:
                size = len(key) + len(value) + _ENTRY
                # The very object, if it cannot change: it may be a subclass that knows more than its bytes.
                kept = value if isinstance(value, bytes) else bytes(value)
                self._entries.keep(key, _Entry(kept, now, now + ttl, size))
            else:
                self._entries.pop(key, None)
            removed, self._entries.removed = self._entries.removed, []
        if removed:
            self._tell(removed, now)

    def _tell(self, removed: list[tuple[str, _Entry]], now: float) -> None:
        if self._on_evict is not None:
            for reason, entry in removed:
                self._on_evict(reason, max(0.0, now - entry.added))

    def delete(self, key: str) -> None:
        """Forget *key*."""
        with self._lock:
            self._entries.pop(key, None)

    def purge(self) -> None:
        """Forget everything."""
        with self._lock:
            removed = self._entries.removed
            self._entries.removed = []
            self._entries.clear()  # older versions of cachetools remove them one by one, as if to make room
            self._entries.removed = removed

    def close(self) -> None:
        """Forget everything."""
        self.purge()

    def __len__(self) -> int:
        """How many entries there are whose time is not over."""
        with self._lock:
            return len(self._entries)

    def __repr__(self) -> str:
        return f"<LRUStore {len(self)} entries>"
