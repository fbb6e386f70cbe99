"""Cache stores: in the memory of the process, and in Redis; what routes keep their answers in."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from patron.cache.store import OnEvict, Store

if TYPE_CHECKING:
    from patron.cache.lru import LRUStore
    from patron.cache.opening import Borrowed, open_store
    from patron.cache.redis import RedisStore
    from patron.cache.spec import store_problems

__all__ = ["Borrowed", "LRUStore", "OnEvict", "RedisStore", "Store", "open_store", "store_problems"]

_late = {
    "Borrowed": "patron.cache.opening",
    "LRUStore": "patron.cache.lru",
    "RedisStore": "patron.cache.redis",
    "open_store": "patron.cache.opening",
    "store_problems": "patron.cache.spec",
}


def __getattr__(name: str) -> Any:
    if name not in _late:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_late[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_late})
