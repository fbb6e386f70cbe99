"""Long work at the command line: it can be interrupted between two steps, and says how far it is."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType

import click

__all__ = ["Interrupted", "Progress", "interruptible"]


class Interrupted:
    """Whether somebody wants it to end. A signal handler sets it, so it has no lock."""

    def __init__(self) -> None:
        self.wanted = False

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """End after this step; a second signal ends at once."""
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted = True

    def wait(self, seconds: float, meanwhile: Callable[[], None]) -> None:
        """Wait, unless it is to end; *meanwhile* is called about ten times a second."""
        until = time.monotonic() + seconds
        while not self.wanted and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))
            meanwhile()


@contextlib.contextmanager
def interruptible() -> Iterator[Interrupted]:
    """Let SIGINT and SIGTERM end the block between two of its steps."""
    interrupted = Interrupted()
    before = {n: signal.signal(n, interrupted.on_signal) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Progress:
    """One line on standard error that is written over; without a terminal a line every ten seconds."""

    def __init__(self, doing: str, total: int | None) -> None:
        self._doing = doing
        self._of = "" if total is None else f" of {total}"
        self._terminal = sys.stderr.isatty()
        self._interval = 0.1 if self._terminal else 10.0
        self._next = time.monotonic() + self._interval

    def show(self, count: int) -> None:
        """Tell that *count* are done, when it is time."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self._interval
            self._write(f"{self._doing} {count}{self._of}", end=not self._terminal)

    def clear(self) -> None:
        """Make room for another line."""
        if self._terminal:
            self._write("", end=False)

    def _write(self, text: str, end: bool) -> None:
        start = "\r\x1b[K" if self._terminal else ""
        click.echo(f"{start}{text}", err=True, nl=end, color=True)
