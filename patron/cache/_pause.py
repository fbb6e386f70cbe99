"""The pause after a failure: nobody is let in for a moment, then one at a time, until one succeeded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["Pause"]


class Pause:
    """
    Whether a server that failed should be asked again already. All threads may call everything.

    The pause begins with *first* seconds and doubles with each failure after it, up to *most*. While all is well
    it costs no lock; a call is never made with a lock held.
    """

    def __init__(
        self, first: float = 0.1, most: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._first = first
        self._most = most
        self._clock = clock
        # Guards the fields below. `_until` and `_term` are read without it, too: reading an old one is harmless.
        self._lock = threading.Lock()
        self._until: float | None = None  # None: all is well
        self._since = 0.0
        self._wait = first
        # Grows with each change. Of calls that began in an older term the result tells nothing new.
        self._term = 0

    def enter(self) -> int | None:
        """The term that this call belongs to, which `failed` or `succeeded` must get; None: not now."""
        if self._well():
            return self._term
        with self._lock:
            until, now = self._until, self._clock()
            if until is None:
                return self._term
            if now < until:
                return None
            self._until = now + self._most  # for the others, as long as this one has no answer
            self._term += 1
            return self._term

    def failed(self, term: int) -> bool:
        """Pause. Whether this failure is the first one."""
        with self._lock:
            if term != self._term:
                return False
            self._term += 1
            now = self._clock()
            first = self._until is None
            if first:
                self._since = now
            self._wait = self._first if first else min(self._most, self._wait * 2)
            self._until = now + self._wait
            return first

    def succeeded(self, term: int) -> float | None:
        """Let everybody in again. How many seconds it had lasted, if this call ended it."""
        if self._well():
            return None
        with self._lock:
            if self._until is None or term != self._term:
                return None
            self._until = None
            self._term += 1
            return self._clock() - self._since

    def _well(self) -> bool:
        return self._until is None
