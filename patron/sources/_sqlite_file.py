"""One connection to a queue file: opened with care, patient with locks, its errors told apart."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from patron.errors import ConfigError, ConnectionLost, NotASource, SourceError, StorageFull
from patron.sources import _sqlite_schema as schema
from patron.sources._sqlite_driver import DriverName, driver, uri
from patron.sources._sqlite_locks import CHECKPOINT, Locks
from patron.sources._sqlite_process import Identity, abandoned, closed, identity, opened, refuse_unsafe

__all__ = ["Database", "FileSettings", "Locked", "Synchronous", "lock_path"]

T = TypeVar("T")
Synchronous = Literal["full", "normal"]

# Primary result codes, https://sqlite.org/rescode.html
_BUSY, _LOCKED, _READONLY, _IOERR, _FULL, _CANTOPEN, _NOTADB = 5, 6, 8, 10, 13, 14, 26
_CORRUPT = 11

_PLENTY = 64 * 1024 * 1024  # with so many bytes free nobody counts
_RESERVE = 256 * 1024  # bytes that publishing leaves for taking and settling


class Locked(SourceError):
    """Another connection held the write lock for too long; nothing was done."""


@dataclass(frozen=True, slots=True)
class FileSettings:
    """Where the file is, and how it is spoken to."""

    path: Path
    driver: DriverName = "sqlite3"
    synchronous: Synchronous = "full"
    busy_timeout: float = 5.0
    checkpoint_pages: int = 2000
    max_bytes: int | None = None
    adopt: bool = False


def lock_path(path: Path) -> Path:
    """The file whose bytes are the locks of the queue at *path*."""
    return path.with_name(path.name + "-patron")


class Database:
    """
    One connection; one thread at a time may call, and only the process that opened it.

    SQLite never checkpoints by itself here: `wrote` does it, in whichever connection wins the
    election, so that commits stay short and no two checkpoints ever meet.
    """

    def __init__(self, settings: FileSettings, *, synchronous: Synchronous | None = None) -> None:
        """
        Open the file, and make it when it is not there.

        Raises:
            NotASource: there is something else. ConfigError: it cannot be opened or written.
        """
        self.settings = settings
        self.driver = driver(settings.driver)
        self.pid = os.getpid()
        self._raw: Any = None
        self._pages = 0.0
        self._identity: Identity | None = None
        refuse_unsafe(settings.path, settings.driver)
        self._refuse_others()
        try:
            with self._opening():
                self._raw = self.driver.connect(uri(settings.path))
                self._prepare(synchronous or settings.synchronous)
        except BaseException:
            self.close()
            raise
        self._identity = identity(settings.path)
        opened(self._identity, settings.driver)

    @classmethod
    def around(cls, settings: FileSettings, raw: Any) -> Database:
        """The face of a connection that its caller opened and will close."""
        database = cls.__new__(cls)
        database.settings = settings
        database.driver = driver(settings.driver)
        database.pid, database._raw, database._pages = os.getpid(), raw, 0.0
        return database

    @contextlib.contextmanager
    def translated_transaction(self) -> Iterator[None]:
        """A `transaction` whose block uses the driver; of its errors only those of the file are translated."""
        self.execute("PRAGMA busy_timeout = 0")  # for our patience instead of SQLite's, see _patiently
        try:
            with self.transaction():
                yield
        except self.driver.Error as error:
            translated = self._translated(error)
            if isinstance(translated, StorageFull | ConnectionLost | Locked):
                raise translated from error
            raise
        finally:
            self.patient_by_itself()

    def patient_by_itself(self) -> None:
        """Let SQLite wait for locks, for a caller who uses the connection without us."""
        with contextlib.suppress(SourceError):
            self.execute(f"PRAGMA busy_timeout = {round(self.settings.busy_timeout * 1000)}")

    # -- opening -------------------------------------------------------------------------------

    def _refuse_others(self) -> None:
        path = self.settings.path
        with _as_config_error(path):
            if path.is_dir():
                raise NotASource(f"{path} is a directory: name a file in it")
            path.parent.mkdir(parents=True, exist_ok=True)
            is_there = path.exists() and path.stat().st_size > 0
        if is_there:
            if not os.access(path, os.W_OK, effective_ids=True):  # SQLite would open it, and fail later
                raise ConfigError(f"{path} cannot be opened for writing{_remedy(path)}")
            schema.refuse(path, self._peek(), adopt=self.settings.adopt)

    def _peek(self) -> schema.Contents:
        """
        Look into the file without a trace: immutable when it has no log, else read-only.

        Never by open(2): closing that descriptor would drop the locks that SQLite holds in this
        process (https://sqlite.org/howtocorrupt.html section 2.2).
        """
        logged = _size(_log_path(self.settings.path)) > 0
        with self._opening():
            self._raw = self.driver.connect(
                uri(self.settings.path, mode="ro") if logged else uri(self.settings.path, immutable=1)
            )
            try:
                return schema.look(self.execute)
            finally:
                self.close()

    def _prepare(self, synchronous: Synchronous) -> None:
        self.execute("PRAGMA cache_size = -8000")
        self.execute(
            "PRAGMA secure_delete = OFF"
        )  # some builds zero what they delete, which doubles the writes
        found = schema.look(self.execute)
        schema.refuse(self.settings.path, found, adopt=self.settings.adopt)
        if (mode := self.execute("PRAGMA journal_mode = WAL")[0][0]) != "wal":
            raise ConfigError(
                f"{self.settings.path} cannot be in WAL mode (it is {mode}): use a local file system"
            )
        self.execute("PRAGMA wal_autocheckpoint = 0")
        self.execute("PRAGMA journal_size_limit = 67108864")
        self.execute(f"PRAGMA synchronous = {synchronous.upper()}")
        if self.settings.max_bytes is not None:
            page = int(self.execute("PRAGMA page_size")[0][0])
            self.execute(f"PRAGMA max_page_count = {max(1, self.settings.max_bytes // page)}")
        if not found.ours:
            self._create()

    def _create(self) -> None:
        with self.transaction():
            found = schema.look(self.execute)  # another process may have been faster
            schema.refuse(self.settings.path, found, adopt=self.settings.adopt)
            if not found.ours:
                schema.create(self.execute, found)

    # -- statements ----------------------------------------------------------------------------

    def detach(self) -> Any:
        """Hand the driver's connection over to the caller, who closes it; nothing more works here."""
        raw, self._raw = self._raw, None
        closed(self._identity, self.settings.driver)
        return raw

    def execute(self, sql: str, *parameters: Any, **named: Any) -> list[Any]:
        """
        Run one statement, with parameters by place or by name, and return its rows.

        The drivers let go of the interpreter lock at each row, and get it back only when the other
        threads let them: what must be quick is one statement that returns one row.

        Raises:
            StorageFull, Locked, ConnectionLost, SourceError: what SQLite said; the statement did nothing.
        """
        return self._patiently(lambda: list(self._raw.execute(sql, named or parameters)))

    def insert(self, sql: str, *parameters: Any) -> int:
        """Run one INSERT and return the row id of its last row."""
        return self._patiently(lambda: self.driver.inserted(self._raw, self._raw.execute(sql, parameters)))

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """A write transaction: committed when the block ends, rolled back when it raises."""
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(Exception):
                self._raw.execute("ROLLBACK")
            raise

    def _patiently(self, work: Callable[[], T]) -> T:
        """
        Run *work*, again while the file is locked.

        Short and equal waits: SQLite's own busy handler waits longer each time, up to 0.1 s, so
        that a connection that waited long keeps losing against those that just came.
        """
        deadline = 0.0
        while True:
            try:
                return work()
            except self.driver.Error as error:
                if self.driver.code(error) & 0xFF not in (_BUSY, _LOCKED):
                    raise self._translated(error) from error
                now = time.monotonic()
                deadline = deadline or now + self.settings.busy_timeout
                if now >= deadline:
                    raise self._translated(error) from error
            except AttributeError:
                if self._raw is None:
                    raise ConnectionLost(f"{self.settings.path} is closed") from None
                raise
            time.sleep(random.uniform(0.0001, 0.0005))  # noqa: S311 - jitter, not a secret

    def _translated(self, error: BaseException) -> SourceError:
        code = self.driver.code(error)
        path, primary = self.settings.path, code & 0xFF
        if primary == _FULL or (primary == _IOERR and _disk_is_full(path)):
            return StorageFull(f"no space left for {path}: free some, nothing was written")
        if primary in (_BUSY, _LOCKED):
            return Locked(f"{path} was locked for {self.settings.busy_timeout:g} s by another connection")
        if primary == _NOTADB:
            return NotASource(f"{path} is not a SQLite file: choose another path")
        if primary == _CORRUPT:
            return SourceError(f"{path} is damaged ({error}): run PRAGMA integrity_check, restore a copy")
        if primary in (_IOERR, _CANTOPEN, _READONLY):
            return ConnectionLost(f"{path} cannot be read or written any more: {error} (code {code})")
        return SourceError(f"{path}: {error} (code {code})")

    @contextlib.contextmanager
    def _opening(self) -> Iterator[None]:
        """While opening, what cannot be written is a mistake in the settings and not a loss."""
        try:
            yield
        except self.driver.Error as error:
            raise self._unopened(self._translated(error), error) from error
        except ConnectionLost as error:
            raise self._unopened(error, error.__cause__ or error) from error

    def _unopened(self, translated: SourceError, error: BaseException) -> SourceError | ConfigError:
        if not isinstance(translated, ConnectionLost):
            return translated
        path = self.settings.path
        return ConfigError(f"{path} cannot be opened for writing: {error}{_remedy(path)}")

    # -- upkeep --------------------------------------------------------------------------------

    def check_identity(self) -> None:
        """Raise `ConnectionLost` when the path names another file than the open one, or none."""
        if identity(self.settings.path) != self._identity:
            raise ConnectionLost(f"{self.settings.path} was moved, deleted or replaced while it was open")

    def wrote(self, pages: float, locks: Locks, *, patience: float = 1.0) -> None:
        """Count about *pages* written, and checkpoint when that was many, unless somebody else does."""
        self._pages += pages
        if self._pages >= self.settings.checkpoint_pages * patience:
            self._pages = 0.0
            with contextlib.suppress(SourceError):  # what was written is confirmed; the next one tries again
                self.checkpoint(locks)

    def require_room(self, size: int, locks: Locks) -> None:
        """
        Refuse to add *size* bytes when consumers could not go on then.

        Taking and settling messages needs space in the log, and a checkpoint needs space for what
        the log has and the file has not. Publishing into that space would stop them for good.

        Raises:
            StorageFull: there is less left.
        """
        if _free(self.settings.path) > _PLENTY + 2 * size:
            return
        if self._leaves_room(size, 0):
            return
        with contextlib.suppress(SourceError):
            self.checkpoint(locks)  # after it the log is written from its start, in the space it has
        if not self._leaves_room(size, _size(_log_path(self.settings.path))):
            raise StorageFull(f"no space left for {self.settings.path}: free some, nothing was written")

    def _leaves_room(self, size: int, reusable: int) -> bool:
        pages, unused, page = self.execute(
            "SELECT * FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
        )[0]
        uncopied = max(0, pages * page - _size(self.settings.path))
        growth = uncopied + max(0, size - unused * page)
        left = _free(self.settings.path) - growth
        return bool(left >= 0 and left + reusable >= size + _RESERVE)

    def with_room(self, locks: Locks, work: Callable[[], T]) -> T:
        """Run *work*; when there is no space, once more after a checkpoint, which lets the log start anew."""
        try:
            return work()
        except StorageFull:
            with contextlib.suppress(SourceError):
                self.checkpoint(locks)
            return work()

    def checkpoint(self, locks: Locks) -> bool:
        """
        Copy the log into the file, as the one elected for it; False when somebody else is.

        It begins with a commit of its own. The WAL-reset bug needs a commit that resets the log
        while a checkpoint starts, and only a log that is copied completely can be reset: as nobody
        else checkpoints, this one frame keeps that from happening until the copy is done.
        """
        if not locks.take(CHECKPOINT):
            return False
        try:
            self._checkpoint()
        finally:
            locks.release(CHECKPOINT)
        return True

    def _checkpoint(self) -> None:
        try:
            self.execute("UPDATE patron_meta SET value = value + 1 WHERE name = 'checkpoints'")
        except StorageFull:
            self._restart_log()  # a log that cannot grow is not copied, or it would have started anew
            return
        _, logged, copied = self.execute("PRAGMA wal_checkpoint(PASSIVE)")[0]
        if copied < logged and logged > 2 * self.settings.checkpoint_pages:
            self._restart_log()  # commits went on meanwhile, so the log can only grow

    def _restart_log(self) -> None:
        """Checkpoint what is left while commits are held off, so that the next one starts the log anew."""
        self.execute("PRAGMA busy_timeout = 100")
        try:
            self.execute("PRAGMA wal_checkpoint(RESTART)")
        finally:
            self.execute("PRAGMA busy_timeout = 0")

    def close(self) -> None:
        """Close; the last connection of all also checkpoints, alone. May be called twice."""
        raw, self._raw = self._raw, None
        if raw is None:
            return
        if getattr(self, "pid", None) != os.getpid():
            abandoned.append(raw)  # a forked child must not close what its parent uses
            return
        if self._identity is not None:
            closed(self._identity, self.settings.driver)
        with contextlib.suppress(self.driver.Error):
            raw.close()


def _log_path(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _size(path: Path) -> int:
    """Bytes of *path*, 0 when it is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _free(path: Path) -> int:
    """Bytes that are free on the disk of *path*."""
    disk = os.statvfs(path.parent)
    return disk.f_bavail * disk.f_frsize


def _disk_is_full(path: Path) -> bool:
    try:
        return _free(path) < 65536
    except OSError:
        return False


@contextlib.contextmanager
def _as_config_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{path} cannot be made: {error.strerror}{_remedy(path)}") from error


def _remedy(path: Path) -> str:
    """What to do about a file that this user cannot write; SQLite makes further files beside it."""
    folder = next(parent for parent in path.absolute().parents if os.path.isdir(parent))
    user = os.geteuid()
    for what, place in (("folder", folder), ("file", path)):
        if os.path.exists(place) and not os.access(place, os.W_OK, effective_ids=True):
            return f"; user {user} may not write to the {what} {place}: let it, or choose another path"
    return f"; user {user} may write there, so look at the file system"
