"""The deadline of the work at hand: absolute, monotonic, and seen by everything that is called."""

from __future__ import annotations

import contextlib
import contextvars
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from patron.errors import DeadlineExceeded

__all__ = ["Deadline", "deadline", "remaining"]


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on *clock* (monotonic seconds) at which the work must be over."""

    at: float
    clock: Callable[[], float] = time.monotonic

    def remaining(self) -> float:
        """Seconds that are left, never below 0."""
        return max(0.0, self.at - self.clock())

    def check(self) -> None:
        """
        Return while time is left.

        Raises:
            DeadlineExceeded: none is.
        """
        late = self.clock() - self.at
        if late >= 0:
            raise DeadlineExceeded(f"the deadline passed {late:.3f} s ago")


_current: contextvars.ContextVar[Deadline | None] = contextvars.ContextVar("patron_deadline", default=None)


def remaining() -> float | None:
    """Seconds left for the work at hand, never below 0; None when it has no deadline."""
    current = _current.get()
    return None if current is None else current.remaining()


@contextlib.contextmanager
def deadline(seconds: float | None, clock: Callable[[], float] = time.monotonic) -> Iterator[Deadline | None]:
    """
    Give what runs inside at most *seconds*, and no more than it already has left; None changes nothing.

    Nothing is interrupted: clients make what remains their time-out, and loops call `Deadline.check`.
    """
    chosen = _nearer(_current.get(), seconds, clock)
    token = _current.set(chosen)
    try:
        yield chosen
    finally:
        _current.reset(token)


def _nearer(outer: Deadline | None, seconds: float | None, clock: Callable[[], float]) -> Deadline | None:
    if seconds is None or (outer is not None and outer.remaining() <= seconds):
        return outer
    return Deadline(clock() + seconds, clock)
