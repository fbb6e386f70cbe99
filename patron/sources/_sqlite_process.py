"""Which queue files this process has open, and by which SQLite library."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from patron.errors import ConfigError
from patron.sources._sqlite_driver import DriverName

__all__ = ["Identity", "abandoned", "connections", "identity", "refuse_other_library"]

Identity = tuple[int, int]

connections: Counter[tuple[Identity | None, DriverName]] = Counter()
abandoned: list[Any] = []  # connections that a forked child inherited: it must neither use nor close them


def identity(path: Path) -> Identity | None:
    """Device and inode of the file at *path*; None when there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def refuse_other_library(path: Path, driver: DriverName) -> None:
    """
    Refuse to open a file by *driver* that this process has open by the other one.

    Two SQLite libraries in one process do not see each other's locks and destroy the file
    (https://sqlite.org/howtocorrupt.html section 2.2.1); a trial of two threads needed a second for it.

    Raises:
        ConfigError: the other one has it open.
    """
    found = identity(path)
    other: DriverName = "sqlite3" if driver == "apsw" else "apsw"
    if found is not None and connections[found, other] > 0:
        raise ConfigError(
            f"{path} is open by {other} in this process, so {driver} would destroy it: "
            "set the same 'driver' everywhere"
        )
