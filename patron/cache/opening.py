"""How a setting becomes a store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from patron.cache._redis_url import is_url
from patron.cache.lru import LRUStore
from patron.cache.redis import RedisStore
from patron.cache.spec import MEMORY, is_resource, resource_problems, store_problems
from patron.cache.store import OnEvict, Store
from patron.errors import ConfigError
from patron.resources import current

__all__ = ["Borrowed", "named", "open_store"]


def open_store(
    spec: str,
    resources: Mapping[str, Any] | None = None,
    *,
    prefix: str = "patron",
    size: int = 1024,
    max_bytes: int = 64 * 1024 * 1024,
    on_evict: OnEvict | None = None,
) -> Store:
    """
    The store that *spec* means; nothing is connected yet. Close it when it is done with.

    Args:
        spec: ``"memory"``, a URL of Redis, or the name of one of *resources*, whose close is left to its owner.
        resources: what is open, by name.
        prefix: of the keys in Redis; it should begin with the service's name.
        size: entries of a store in memory.
        max_bytes: bytes of a store in memory.
        on_evict: told what a store in memory removes.

    Raises:
        ConfigError: *spec* means no store; the message lists what there is.
        MissingExtra: redis-py is not installed.
    """
    if problems := store_problems(spec):
        raise ConfigError(*problems)
    if spec == MEMORY:
        return LRUStore(size, max_bytes, on_evict)
    if is_url(spec):
        return RedisStore(spec, prefix)
    return Borrowed(_resource(spec, resources or {}))


def named(spec: str) -> dict[str, Any]:
    """
    The resource of the running service that *spec* names, by its name, for `open_store`; empty when it names none.

    Any thread of the service may call it.

    Raises:
        ConfigError: no such resource is open.
    """
    return {spec: current(spec)} if is_resource(spec) else {}


def _resource(name: str, resources: Mapping[str, Any]) -> Store:
    if problems := resource_problems(name, resources):
        raise ConfigError(*problems)
    store = resources[name]
    if not isinstance(store, Store):
        raise ConfigError(
            f"store {name!r}: the resource is a {type(store).__name__}, which has not all of "
            "get, set, delete, purge and close of patron.cache.Store"
        )
    return store


class Borrowed:
    """A store that belongs to somebody else, who closes it."""

    __slots__ = ("delete", "get", "purge", "set", "store")

    def __init__(self, store: Store) -> None:
        self.store = store
        self.get = store.get
        self.set = store.set
        self.delete = store.delete
        self.purge = store.purge

    def close(self) -> None:
        """Nothing: whoever opened it closes it."""

    def __repr__(self) -> str:
        return f"<Borrowed {self.store!r}>"
