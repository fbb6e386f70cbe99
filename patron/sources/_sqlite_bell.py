"""How a publisher wakes the subscriptions of its own process; other processes notice by polling."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

__all__ = ["Bell", "ring"]

_changing = threading.Lock()  # guards the replacement of _bells; readers take the tuple as it is
_bells: tuple[tuple[str, Bell], ...] = ()


class Bell:
    """
    What one subscription waits on. Its owner waits, any thread may ring or wake.

    A bare lock, released to ring: a hundred times a second, a Condition would cost half as much again.
    """

    def __init__(self, path: Path) -> None:
        global _bells
        self._silent = threading.Lock()  # held by the owner as long as nobody rang; guards nothing
        self._silent.acquire()
        self._woken = False
        with _changing:
            _bells = (*_bells, (str(path), self))

    def wait(self, timeout: float) -> None:
        """Wait until rung or woken, at most *timeout* seconds; forgets that it was rung."""
        self._silent.acquire(timeout=timeout)

    def woken(self) -> bool:
        """Whether somebody called `wake` since the last time that this was asked."""
        woken = self._woken
        if woken:
            self._woken = False
        return woken

    def ring(self) -> None:
        """There may be something to read."""
        with contextlib.suppress(RuntimeError):  # it is ringing already
            self._silent.release()

    def wake(self) -> None:
        """Whoever waits shall return at once."""
        self._woken = True
        self.ring()

    def close(self) -> None:
        """Not to be rung any more. May be called twice."""
        global _bells
        with _changing:
            _bells = tuple(entry for entry in _bells if entry[1] is not self)


def ring(path: Path) -> None:
    """Ring the bells of all subscriptions to *path* in this process."""
    name = str(path)
    for other, bell in _bells:
        if other == name:
            bell.ring()
