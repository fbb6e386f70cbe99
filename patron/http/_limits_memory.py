"""Token buckets in the memory of this process."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["KEYS", "MemoryBuckets"]

KEYS = 50_000
"""How many buckets are known at most; the one that was asked longest ago is forgotten, which means that it is full."""


class MemoryBuckets:
    """
    One token bucket for each key; all threads share it.

    A bucket is kept as the time at which it would be full again, in whole nanoseconds: exact, and one number. A full
    one need not be kept at all.

    Args:
        rate: tokens that come back in each second.
        burst: tokens that a full bucket has.
        keys: how many buckets are known at most; about 250 bytes each.
        clock: nanoseconds; for tests.
    """

    def __init__(
        self, rate: float, burst: int, *, keys: int = KEYS, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._token = math.ceil(1e9 / rate)  # nanoseconds until one comes back
        self._room = self._token * burst
        self._keys = keys
        self._clock = clock
        # Guards the times and their order, which is: who asked longest ago comes first.
        self._lock = threading.Lock()
        self._full_at: OrderedDict[str, int] = OrderedDict()

    def take(self, key: str) -> float:
        """Take a token of *key*'s: 0.0; or, without taking one, the seconds until there is one."""
        with self._lock:
            now = self._clock()
            known = self._full_at.get(key)
            if known is not None:
                self._full_at.move_to_end(key)
            full_at = max(known or now, now) + self._token
            if full_at - now > self._room:
                return (full_at - now - self._room) / 1e9
            self._full_at[key] = full_at
            if known is None:
                self._forget(now)
            return 0.0

    def _forget(self, now: int) -> None:
        """For each new one, two that are full again; and the oldest when there are too many."""
        for _ in range(2):
            oldest, full_at = next(iter(self._full_at.items()))
            if full_at > now and len(self._full_at) <= self._keys:
                return
            del self._full_at[oldest]

    def close(self) -> None:
        """Forget all."""
        with self._lock:
            self._full_at.clear()

    def __len__(self) -> int:
        """How many buckets are known."""
        return len(self._full_at)
