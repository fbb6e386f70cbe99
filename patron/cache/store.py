"""What a cache store is: bytes by key, each for some seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

__all__ = ["OnEvict", "Store"]

OnEvict = Callable[[str, float], None]
"""
Called with the reason, ``"capacity"`` or ``"expired"``, and the entry's age in seconds, for each entry that a
store removed by itself; by the thread that made it do so, and without any lock of the store held.
"""


@runtime_checkable
class Store(Protocol):
    """
    Bytes by key, each for some seconds. All threads may call everything; nothing is opened before the first call.

    A store may forget an entry at any time; it never returns one after its seconds are over, nor anything but the
    bytes that were set last. A miss is no error. When the store itself failed, every method but `close` raises
    `patron.errors.CacheError`, within the store's time-outs; nothing else.
    """

    def get(self, key: str) -> bytes | None:
        """What was set for *key*, or None."""
        ...

    def set(self, key: str, value: bytes, ttl: float) -> None:
        """Keep *value* for *ttl* seconds, in place of what was there; for 0 seconds or less: forget it."""
        ...

    def delete(self, key: str) -> None:
        """Forget *key*; there need not be one."""
        ...

    def purge(self) -> None:
        """Forget everything that this store keeps, and nothing of anybody else."""
        ...

    def close(self) -> None:
        """Let go of connections; what is kept elsewhere stays there. May be called twice."""
        ...
