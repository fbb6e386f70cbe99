"""Which paths were changed in this process: a mark in their keys hides what was kept before."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable

__all__ = ["Marks", "new_mark"]

_MOST = 10_000


def new_mark() -> str:
    """A mark that nobody else has, in no process."""
    return secrets.token_hex(8)


class Marks:
    """
    The marks of changed paths. All threads share it.

    A mark is part of the keys of its path: what was kept before is not found any more, nor is what a run keeps that
    began before, and nobody waits for that run. Of what is too much everything is forgotten, by one mark for all
    paths: an answer too few is kept then, and never one too many.

    Args:
        lasts: seconds in which what was kept before is over.
        clock: seconds; for tests.
    """

    def __init__(self, lasts: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lasts = lasts
        self._clock = clock
        self._lock = threading.Lock()  # guards the writing; reading an old mark is as if one had read before
        self._marks: dict[str, tuple[str, float]] = {}  # the oldest first
        self._others = ""
        self.any = False  # whether there were ever any: no hit looks further without

    def of(self, path: str) -> str:
        """What the keys of *path* end with; empty when it was not changed."""
        found = self._marks.get(path)
        return self._others if found is None else found[0]

    def change(self, path: str) -> None:
        """Hide what is kept for *path*."""
        with self._lock:
            now = self._clock()
            self._marks.pop(path, None)
            self._forget(now)
            self._marks[path] = f"\0{new_mark()}", now
            self.any = True

    def _forget(self, now: float) -> None:
        while self._marks and next(iter(self._marks.values()))[1] <= now - self._lasts:
            del self._marks[next(iter(self._marks))]
        if len(self._marks) >= _MOST:
            self._others = f"\0{new_mark()}"  # first, so that nobody sees a path without any
            self._marks.clear()
