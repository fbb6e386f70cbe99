"""Log lines about what may happen thousands of times a second: one now and then, with the count of the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["Seldom"]


class Seldom:
    """
    Tells at most once in *interval* seconds that something is worth a line. Any thread may ask.

    The first time always is.
    """

    def __init__(self, interval: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._lock = threading.Lock()  # guards the two below
        self._next: float | None = None
        self._kept_back = 0

    def due(self) -> int | None:
        """How many were kept back since the last one that was due; None: keep this one back, too."""
        with self._lock:
            now = self._clock()
            if self._next is not None and now < self._next:
                self._kept_back += 1
                return None
            kept_back, self._kept_back = self._kept_back, 0
            self._next = now + self._interval
            return kept_back
