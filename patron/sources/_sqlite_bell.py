"""How a publisher wakes the subscriptions of its own process; other processes notice by polling."""

from __future__ import annotations

import threading
from pathlib import Path

__all__ = ["Bell", "ring"]

_changing = threading.Lock()  # guards the replacement of _bells; readers take the tuple as it is
_bells: tuple[tuple[str, Bell], ...] = ()


class Bell:
    """What one subscription waits on. Its owner waits, any thread may ring or wake."""

    def __init__(self, path: Path) -> None:
        global _bells
        self._changed = threading.Condition()
        self._rung = False  # guarded by _changed, as is _woken
        self._woken = False
        with _changing:
            _bells = (*_bells, (str(path), self))

    def wait(self, timeout: float) -> None:
        """Wait until rung or woken, at most *timeout* seconds; forgets that it was rung."""
        with self._changed:
            if not (self._rung or self._woken):
                self._changed.wait(timeout)
            self._rung = False

    def woken(self) -> bool:
        """Whether somebody called `wake` since the last time that this was asked."""
        if not self._woken:
            return False
        with self._changed:
            self._woken = False
        return True

    def ring(self) -> None:
        """There may be something to read."""
        with self._changed:
            self._rung = True
            self._changed.notify_all()

    def wake(self) -> None:
        """Whoever waits shall return at once."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

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
