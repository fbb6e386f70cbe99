"""Which queue files this process has open, by which SQLite library, and which it must not open."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from patron.errors import ConfigError
from patron.sources._sqlite_driver import DriverName

__all__ = ["Identity", "abandoned", "closed", "identity", "opened", "refuse_unsafe"]

Identity = tuple[int, int]

abandoned: list[Any] = []  # connections that a forked child inherited: it must neither use nor close them
_open: Counter[tuple[Identity, DriverName]] = Counter()  # connections
_inherited: set[tuple[Identity, DriverName]] = set()
_hooked = False


def identity(path: Path) -> Identity | None:
    """Device and inode of the file at *path*; None when there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def opened(file: Identity | None, driver: DriverName) -> None:
    """Count one more connection to *file*."""
    global _hooked
    if not _hooked:
        _hooked = True
        os.register_at_fork(after_in_child=_forked)
    if file is not None:
        _open[file, driver] += 1


def closed(file: Identity | None, driver: DriverName) -> None:
    """Count one connection less."""
    if file is not None:
        _open[file, driver] -= 1


def refuse_unsafe(path: Path, driver: DriverName) -> None:
    """
    Refuse to open a file where SQLite would not know which locks it holds.

    Two SQLite libraries in one process do not see each other's locks and destroy the file
    (https://sqlite.org/howtocorrupt.html section 2.2.1; a trial of two threads needed a second for it).
    In a forked child the library remembers locks that only the parent has (section 2.6), also for
    a new connection.

    Raises:
        ConfigError: the other library has it open, or the parent had it open at the fork.
    """
    found = identity(path)
    if found is None:
        return
    other: DriverName = "sqlite3" if driver == "apsw" else "apsw"
    if _open[found, other] > 0:
        raise ConfigError(
            f"{path} is open by {other} in this process, so {driver} would destroy it: "
            "set the same 'driver' everywhere"
        )
    if (found, driver) in _inherited:
        raise ConfigError(
            f"{path} was open when this process was forked, so it cannot be used here: "
            "fork first and open then, or start the process with the method 'spawn'"
        )


def _forked() -> None:
    _inherited.update(key for key, count in _open.items() if count > 0)
    _open.clear()
