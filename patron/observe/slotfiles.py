"""
The files of the slots: each process writes its own, and whoever is asked reads all of them.

The files are those of `prometheus_client.multiprocess`, which also reads and merges them. Its own
value class is not used: it asks for the process on every call, and takes one lock for all values.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prometheus_client import Metric
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from patron.observe import log

__all__ = ["SlotCollector", "SlotFiles"]

_pack_value = struct.Struct("d").pack
_pack_both = struct.Struct("dd").pack


#: Bytes that a new file has room for; it doubles when they are used up.
_FIRST = 1 << 16


class _File(MmapedDict):
    """
    A file whose room is the system's promise: a write to mapped memory that a full disk cannot hold kills the process.

    Raises:
        OSError: there is no room; what was in the file before still is.
    """

    def __init__(self, path: Path) -> None:
        with path.open("ab") as file:
            _reserve(file.fileno(), max(_FIRST, file.tell()))
        super().__init__(str(path))  # type: ignore[no-untyped-call]

    def _init_value(self, key: str) -> None:
        capacity = self._capacity
        while self._used + len(key.encode()) + 32 > capacity:  # two numbers, a length, and the padding
            capacity *= 2
        if capacity > self._capacity:
            _reserve(self._f.fileno(), capacity)
        super()._init_value(key)  # type: ignore[no-untyped-call]


def _reserve(file: int, size: int) -> None:
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno not in _NO_PROMISES:
            raise


#: Of file systems that reserve no room, where the C library does not fill the file instead (posix_fallocate(3)).
_NO_PROMISES = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class SlotFiles:
    """
    The files that one process writes: one for each kind of metric, in *directory*, named after *slot*.

    A process forked from this one goes on with numbers of its own that nobody reads, for two
    processes that write one file overwrite each other's counts. Numbers that find no room on the disk are
    counted for nobody, and an error is logged, once.
    """

    def __init__(self, slot: int, directory: Path) -> None:
        self._slot = slot
        self._directory = directory
        self._lock = threading.Lock()  # guards _files, _values, and the growing of a file
        self._files: dict[str, _File] = {}
        self._values: list[_Value] = []
        self._detached = False
        self._full = False
        _opened.add(self)

    def value_class(self) -> Any:
        """The class that Prometheus metrics make their values of."""
        files = self

        class SlotValue(_Value):
            __slots__ = ()

            def __init__(self, *params: Any, multiprocess_mode: str = "", **_: Any) -> None:
                super().__init__(files, *params, multiprocess_mode=multiprocess_mode)

        return SlotValue

    def place(self, value: _Value, prefix: str, key: str) -> None:
        """Give *value* its place in the file for *prefix*, and what stands there."""
        with self._lock:
            self._values.append(value)
            value.move(bytearray(16), 0)
            error = None if self._detached else self._place(value, prefix, key)
            first, self._full = not self._full, self._full or error is not None
        if error is not None and first:  # with the lock free: writing may wait
            log.error("metrics are incomplete, there is no room", directory=str(self._directory), error=error)

    def _place(self, value: _Value, prefix: str, key: str) -> str | None:
        try:
            file = self._files.get(prefix) or self._open(prefix)
            value.read(*file.read_value(key))  # type: ignore[no-untyped-call]
        except OSError as error:
            return str(error)
        # When the file grows it is mapped anew, but the older mapping shows the same pages for ever.
        value.move(file._m, file._positions[key])
        return None

    def close(self) -> None:
        """Close the files; values that are still held count on for nobody."""
        self._detach()
        with self._lock:
            for file in self._files.values():
                file.close()  # type: ignore[no-untyped-call]
            self._files.clear()
            self._values.clear()

    def after_fork(self) -> None:
        """In the child: leave the files to the parent. Locks may be held by threads that are not here."""
        self._lock = threading.Lock()
        for value in self._values:
            value.lock = threading.Lock()
        self._detach()

    def _open(self, prefix: str) -> _File:
        file = self._files[prefix] = _File(self._directory / f"{prefix}_{self._slot}.db")
        return file

    def _detach(self) -> None:
        with self._lock:
            self._detached = True
            for value in self._values:
                with value.lock:
                    value.move(bytearray(16), 0)


class _Value:
    """One number in a file; the interface is that of `prometheus_client.values`."""

    __slots__ = ("_end", "_memory", "_position", "_timestamp", "_value", "lock")

    _multiprocess = True

    def __init__(
        self,
        files: SlotFiles,
        typ: str,
        metric_name: str,
        name: str,
        labelnames: Any,
        labelvalues: Any,
        help_text: str,
        *,
        multiprocess_mode: str,
    ) -> None:
        self.lock = threading.Lock()  # guards the number, here and in the file
        self.read(0.0, 0.0)
        key = mmap_key(metric_name, name, labelnames, labelvalues, help_text)
        files.place(self, f"{typ}_{multiprocess_mode}" if typ == "gauge" else typ, key)

    def read(self, value: float, timestamp: float) -> None:
        """Begin with what stands in the file."""
        self._value = value
        self._timestamp = timestamp

    def move(self, memory: Any, position: int) -> None:
        """Write to *memory* at *position* from now on."""
        self._memory = memory
        self._position = position
        self._end = position + 8

    def inc(self, amount: float) -> None:
        """Add *amount*."""
        with self.lock:
            self._value += amount
            self._memory[self._position : self._end] = _pack_value(self._value)

    def set(self, value: float, timestamp: float | None = None) -> None:
        """Replace the number; the newest *timestamp* wins where only one process is shown."""
        with self.lock:
            self._value = value
            self._timestamp = timestamp or 0.0
            self._memory[self._position : self._end + 8] = _pack_both(value, self._timestamp)

    def get(self) -> float:
        """The number of this process."""
        return self._value

    def set_exemplar(self, exemplar: Any) -> None:
        """Exemplars have no place in the files."""

    def get_exemplar(self) -> None:
        """Exemplars have no place in the files."""


class SlotCollector(Collector):
    """The sum over the files of all slots in *directory*."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Metric]:
        """Read every file once. A file that was created a moment ago is still empty, and is left out."""
        files = [str(path) for path in self._directory.glob("*.db") if _has_content(path)]
        merged: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        return merged


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


_opened: weakref.WeakSet[SlotFiles] = weakref.WeakSet()


def _after_fork() -> None:
    for files in list(_opened):
        files.after_fork()


os.register_at_fork(after_in_child=_after_fork)
