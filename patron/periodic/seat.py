"""Who may run: each worker for itself, or the one of all workers that holds a lock."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from pathlib import Path
from typing import Protocol

__all__ = ["OwnSeat", "Seat", "SharedSeat"]

_SIZE = 128


class Seat(Protocol):
    """The right to run, and what is known of the last tick. One thread owns it."""

    def take(self) -> bool:
        """Take the seat if it is free; returns whether it is ours. Never blocks."""
        ...

    def last(self, kind: str) -> float | None:
        """The last tick that somebody noted, if it was on a schedule of this *kind*."""
        ...

    def note(self, kind: str, tick: float) -> None:
        """Note that *tick* is run for now, so that nobody does it again."""
        ...

    def close(self) -> None:
        """Let another one take it. May be called twice."""
        ...


class OwnSeat:
    """A seat that nobody else wants."""

    def take(self) -> bool:
        """See `Seat.take`."""
        return True

    def last(self, kind: str) -> float | None:
        """Every run of the component begins its schedule anew."""
        return None

    def note(self, kind: str, tick: float) -> None:
        """Nobody asks."""

    def close(self) -> None:
        """Nobody waits."""


class SharedSeat:
    """
    The one seat of all workers of a run: a lock on a file in the *directory* of the run.

    The kernel frees the lock when its process dies, however it does. It is a POSIX record lock, which
    belongs to the process alone (fcntl(2)): one of flock(2) would be inherited by a process that the
    function forks, and stay as long as that lives.
    """

    def __init__(self, directory: Path, name: str) -> None:
        # A name may be any text; a digest of it is a file name.
        self._path = directory / f"periodic-{hashlib.sha256(name.encode()).hexdigest()[:32]}"
        self._file: int | None = None

    def take(self) -> bool:
        """See `Seat.take`."""
        if self._file is None:
            self._file = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, both mean that it is taken
            return False
        return True

    def last(self, kind: str) -> float | None:
        """See `Seat.last`."""
        assert self._file is not None, "take comes first"
        try:
            noted, tick = json.loads(os.pread(self._file, _SIZE, 0))
        except ValueError:  # nothing was noted so far
            return None
        return float(tick) if noted == kind else None

    def note(self, kind: str, tick: float) -> None:
        """See `Seat.note`; one write of constant length, so that the process may be killed at any time."""
        assert self._file is not None, "take comes first"
        os.pwrite(self._file, json.dumps([kind, tick]).encode().ljust(_SIZE), 0)

    def close(self) -> None:
        """See `Seat.close`."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)
