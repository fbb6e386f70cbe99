"""The deadline of the work at hand: absolute, monotonic, and seen by everything that is called."""

from __future__ import annotations

import contextlib
import contextvars
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from patron.errors import DeadlineExceeded

__all__ = ["HEADER", "Deadline", "current", "deadline", "headers", "remaining"]

HEADER = "X-Request-Timeout-Ms"
"""The header that says how many milliseconds the caller will wait."""


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


current: contextvars.ContextVar[Deadline | None] = contextvars.ContextVar("patron_deadline", default=None)
"""The deadline of the work at hand; set by `deadline`, and by servers, which have no block to put around it."""


def remaining() -> float | None:
    """Seconds left for the work at hand, never below 0; None when it has no deadline."""
    chosen = current.get()
    return None if chosen is None else chosen.remaining()


def headers() -> dict[str, str]:
    """
    What to tell a callee of the deadline of the work at hand: `HEADER`, or nothing without a deadline.

    Once it has passed that is 0: the callee refuses at once.
    """
    left = remaining()
    return {} if left is None else {HEADER: str(int(left * 1000))}


@contextlib.contextmanager
def deadline(seconds: float | None, clock: Callable[[], float] = time.monotonic) -> Iterator[Deadline | None]:
    """
    Give what runs inside at most *seconds*, and no more than it already has left; None changes nothing.

    Nothing is interrupted: clients make what remains their time-out, and loops call `Deadline.check`.
    """
    chosen = _nearer(current.get(), seconds, clock)
    token = current.set(chosen)
    try:
        yield chosen
    finally:
        current.reset(token)


def _nearer(outer: Deadline | None, seconds: float | None, clock: Callable[[], float]) -> Deadline | None:
    if seconds is None or (outer is not None and outer.remaining() <= seconds):
        return outer
    return Deadline(clock() + seconds, clock)
