"""The store of one route, of which no failure is a failure of a request."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from patron.cache import Store
from patron.http.caching.entry import Entry, Kept, decoded, encoded
from patron.http.caching.marks import new_mark
from patron.http.caching.metrics import Tally
from patron.http.caching.settings import RouteCache
from patron.observe import log
from patron.observe.seldom import Seldom

if TYPE_CHECKING:
    from patron.cache import RedisStore

__all__ = ["Shelf"]


class Shelf:
    """Entries by key. All threads share it; failures are counted, and logged at most once a second."""

    def __init__(
        self, settings: RouteCache, route: str, service: str, tally: Tally, *, watches: bool = False
    ) -> None:
        self._settings = settings
        self._route = route
        self._service = service
        self._tally = tally
        self._opening = threading.Lock()  # guards the store while it is made
        self._store: Store | None = None
        self._watches = watches
        self._redis: RedisStore | None = None
        self._seldom = Seldom()

    def open(self, resources: Mapping[str, Any] | None = None) -> None:
        """
        Make the store; without this it is made when it is first asked, and can be no resource.

        Raises:
            ConfigError: there is no such store.
        """
        from patron.cache import open_store

        with self._opening:
            if self._store is None:
                self._store = open_store(
                    self._settings.store,
                    resources,
                    prefix=f"{self._service}:cache",
                    size=self._settings.size,
                    max_bytes=max(1, self._settings.max_bytes // 2),  # entries are there twice: see `Kept`
                    on_evict=self._tally.evicted,
                )
                self._redis = _redis(self._store) if self._watches else None

    @property
    def shared(self) -> bool:
        """Whether other processes may mark paths, and `marked` is to be asked in the place of `get`."""
        return self._redis is not None

    def close(self) -> None:
        """Close the store. May be called twice."""
        with self._opening:
            store, self._store = self._store, None
        if store is not None:
            store.close()

    def get(self, key: str) -> Entry | None:
        """The entry for *key*; None also when the store failed, or has something that is none."""
        try:
            data = (self._store or self._opened()).get(key)
        except Exception as error:  # noqa: BLE001 - a store of the user's may raise anything
            self._failed("get", error)
            return None
        if type(data) is Kept:
            return data.entry
        return self._decoded(data)

    def marked(self, key: str, place: str) -> tuple[Entry | None, str]:
        """The entry for *key*, if it has the mark that stands at *place* now, and that mark; asks the store once."""
        assert self._redis is not None
        try:
            data, kept = self._redis.get_many([key, place])
        except Exception as error:  # noqa: BLE001
            self._failed("get", error)
            return None, ""
        mark = "" if kept is None else kept.decode("latin-1")
        entry = self._decoded(data)
        return (None if entry is None or entry.mark != mark else entry), mark

    def _decoded(self, data: bytes | None) -> Entry | None:
        if data is None:
            return None
        try:
            return decoded(data)
        except Exception as error:  # noqa: BLE001 - what is in there may be anything, too
            self._failed("decode", error)
            return None

    def mark(self, place: str, seconds: float) -> bool:
        """Whether all processes see a new mark at *place*, for *seconds*."""
        try:
            self._opened()
            if self._redis is None:
                return False
            self._redis.set(place, new_mark().encode(), seconds)
        except Exception as error:  # noqa: BLE001
            self._failed("mark", error)
            return False
        return True

    def keep(self, key: str, entry: Entry, seconds: float) -> bool:
        """Whether *entry* is kept for *seconds*."""
        try:
            (self._store or self._opened()).set(key, encoded(entry), seconds)
        except Exception as error:  # noqa: BLE001
            self._failed("set", error)
            return False
        return True

    def delete(self, key: str) -> None:
        """Forget *key*, if possible."""
        try:
            (self._store or self._opened()).delete(key)
        except Exception as error:  # noqa: BLE001
            self._failed("delete", error)

    def _opened(self) -> Store:
        self.open()
        assert self._store is not None
        return self._store

    def _failed(self, operation: str, error: Exception) -> None:
        self._tally.count("error", operation)
        kept_back = self._seldom.due()
        if kept_back is not None:
            log.warn(
                "route cache store failed",
                route=self._route,
                operation=operation,
                error=f"{type(error).__name__}: {error}",
                others=kept_back,
            )


def _redis(store: Store) -> RedisStore | None:
    """*store*, if processes share it."""
    from patron.cache import Borrowed, RedisStore

    inner = store.store if isinstance(store, Borrowed) else store
    return inner if isinstance(inner, RedisStore) else None
