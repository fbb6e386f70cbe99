"""A clock that moves only when the test says so."""

from __future__ import annotations

import threading

__all__ = ["FakeClock"]


class FakeClock:
    """
    Seconds that pass when `advance` is called, and not otherwise.

    Call it wherever a clock is wanted (``clock=fake``); `now` is the matching time of day. Any
    thread may call everything.

    >>> clock = FakeClock()
    >>> before = clock()
    >>> clock.advance(2.5)
    >>> clock() - before
    2.5
    """

    def __init__(self, start: float = 1000.0, epoch: float = 1_700_000_000.0) -> None:
        # Guards `_elapsed`.
        self._lock = threading.Lock()
        self._start = start
        self._epoch = epoch
        self._elapsed = 0.0

    def __call__(self) -> float:
        """The monotonic time."""
        return self._start + self._elapsed

    def now(self) -> float:
        """The time of day, in seconds since the epoch."""
        return self._epoch + self._elapsed

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass."""
        if seconds < 0:
            raise ValueError(f"a clock does not go back: {seconds} s")
        with self._lock:
            self._elapsed += seconds

    def sleep(self, seconds: float) -> None:
        """Take the place of `time.sleep`: let the time pass at once."""
        self.advance(max(0.0, seconds))
