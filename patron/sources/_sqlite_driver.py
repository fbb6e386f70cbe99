"""The two modules that speak to SQLite, behind one face: the standard library's and apsw."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol
from urllib.parse import quote

from patron.errors import ConfigError, MissingExtra

__all__ = ["Driver", "DriverName", "SqliteVersion", "driver", "sqlite_version", "uri"]

DriverName = Literal["sqlite3", "apsw"]
_OLDEST = (3, 33, 0)  # the first with UPDATE ... FROM


@dataclass(frozen=True, slots=True)
class SqliteVersion:
    """
    Which SQLite runs behind *driver*, and whether it has the fix of the WAL-reset bug.

    https://sqlite.org/wal.html#walresetbug: versions 3.7.0 to 3.51.2 can lose committed transactions
    when a checkpoint starts while another connection resets the log; 3.51.3, 3.50.7 and 3.44.6 have
    the fix. Without it this source stays safe by the way it checkpoints (docs/sqlite.md), as long
    as every other connection to the file leaves checkpoints alone.
    """

    driver: DriverName
    version: str
    fixed: bool


class Driver(Protocol):
    """What the source needs from a module; a raw connection is in autocommit mode."""

    name: DriverName
    Error: type[Exception]

    def version(self) -> str: ...
    def connect(self, uri: str) -> Any: ...
    def code(self, error: BaseException) -> int:
        """The extended result code, 0 when there is none."""
        ...

    def inserted(self, connection: Any, cursor: Any) -> int:
        """The row id of the last insert."""
        ...


class _Sqlite3:
    """The standard library's module, with the SQLite that the interpreter was built with."""

    name: DriverName = "sqlite3"

    def __init__(self) -> None:
        import sqlite3

        class Connection(sqlite3.Connection):
            """One that weak references can remember."""

        self._module: ModuleType = sqlite3
        self._factory = Connection
        self.Error: type[Exception] = sqlite3.Error

    def version(self) -> str:
        return str(self._module.sqlite_version)

    def connect(self, uri: str) -> Any:
        return self._module.connect(
            uri, uri=True, timeout=0, isolation_level=None, check_same_thread=False, factory=self._factory
        )

    def code(self, error: BaseException) -> int:
        return int(getattr(error, "sqlite_errorcode", None) or 0)

    def inserted(self, connection: Any, cursor: Any) -> int:
        return int(cursor.lastrowid)


class _Apsw:
    """The apsw wheels, which carry a current SQLite."""

    name: DriverName = "apsw"

    def __init__(self) -> None:
        try:
            import apsw
        except ImportError as error:
            raise MissingExtra("apsw", "sqlite") from error
        self._module: ModuleType = apsw
        self.Error: type[Exception] = apsw.Error

    def version(self) -> str:
        return str(self._module.sqlite_lib_version())

    def connect(self, uri: str) -> Any:
        flags = (
            self._module.SQLITE_OPEN_READWRITE
            | self._module.SQLITE_OPEN_CREATE
            | self._module.SQLITE_OPEN_URI
        )
        return self._module.Connection(uri, flags)

    def code(self, error: BaseException) -> int:
        return int(getattr(error, "extendedresult", 0) or 0)

    def inserted(self, connection: Any, cursor: Any) -> int:
        return int(connection.last_insert_rowid())


def driver(name: DriverName) -> Driver:
    """
    The driver called *name*.

    Raises:
        MissingExtra: apsw is not installed. ConfigError: its SQLite is too old.
    """
    found = _loaded(name)
    if _numbers(found.version()) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        raise ConfigError(
            f"SQLite {found.version()} of {name} is too old, it must be {oldest}: set 'driver: apsw'"
        )
    return found


@functools.cache
def _loaded(name: DriverName) -> Driver:
    return _Apsw() if name == "apsw" else _Sqlite3()


def sqlite_version(name: DriverName = "sqlite3") -> SqliteVersion:
    """Which SQLite the driver *name* brings; raises `MissingExtra` without apsw."""
    version = _loaded(name).version()
    return SqliteVersion(name, version, _has_fix(version))


def _has_fix(version: str) -> bool:
    numbers = _numbers(version)
    return numbers >= (3, 51, 3) or (3, 50, 7) <= numbers < (3, 51) or (3, 44, 6) <= numbers < (3, 45)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3])


def uri(path: Path, **parameters: str | int) -> str:
    """The SQLite URI of *path*, quoted so that ``?``, ``#`` and ``%`` in names stay what they are."""
    query = "&".join(f"{name}={value}" for name, value in parameters.items())
    return f"file:{quote(str(path.absolute()))}" + (f"?{query}" if query else "")
