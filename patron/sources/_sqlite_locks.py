"""Locks that die with their process: bytes of one small file beside the queue file."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import weakref
from pathlib import Path

__all__ = ["CHECKPOINT", "FIRST_OWNER", "Locks"]

CHECKPOINT = 0  # the byte that whoever checkpoints holds
FIRST_OWNER = 1024  # the byte of owner n is FIRST_OWNER + n; the ones below are reserved

_FLOCK = "hhqqi0q"  # struct flock of Linux: type, whence, start, length, pid, padded to its alignment
_live: weakref.WeakSet[Locks] = weakref.WeakSet()
_hooked = False


class Locks:
    """
    One open description of the lock file.

    Open file description locks (fcntl(2), Linux 3.15) belong to the description and not to the
    process: two subscriptions of one process exclude each other, closing another descriptor of the
    same file releases nothing, and the kernel releases them when the process dies however it dies,
    so that a reused process id means nothing. One thread at a time may call.
    """

    def __init__(self, path: Path) -> None:
        self._file: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        _live.add(self)
        _hook_fork()

    def take(self, byte: int) -> bool:
        """Take the lock on *byte*; False when somebody else has it. Never waits."""
        try:
            self._call(fcntl.F_OFD_SETLK, fcntl.F_WRLCK, byte)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True

    def release(self, byte: int) -> None:
        """Give the lock on *byte* back."""
        self._call(fcntl.F_OFD_SETLK, fcntl.F_UNLCK, byte)

    def taken(self, byte: int) -> bool:
        """Whether another description holds the lock on *byte*, which means that its owner lives."""
        answer = self._call(fcntl.F_OFD_GETLK, fcntl.F_WRLCK, byte)
        return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)

    def close(self) -> None:
        """Close, which releases every lock. May be called twice."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def _call(self, command: int, kind: int, byte: int) -> bytes:
        if self._file is None:
            raise OSError(errno.EBADF, "the lock file is closed")
        return fcntl.fcntl(self._file, command, struct.pack(_FLOCK, kind, os.SEEK_SET, byte, 1, 0))

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            self.close()


def _hook_fork() -> None:
    """A forked child would keep the locks of its dead parent alive, so it closes its copy."""
    global _hooked
    if not _hooked:
        _hooked = True
        os.register_at_fork(after_in_child=_close_inherited)


def _close_inherited() -> None:
    for locks in list(_live):
        with contextlib.suppress(OSError):
            locks.close()
