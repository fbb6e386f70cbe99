"""Where log lines go: one write for each line, which no other process can tear."""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Callable

__all__ = ["PIPE_BUF", "FileSink", "Sink"]

Sink = Callable[[bytes], None]

PIPE_BUF = select.PIPE_BUF
"""What a pipe takes in one piece, whatever other processes write: 4096 bytes on Linux (pipe(7))."""

_patience = 1.0


class FileSink:
    """
    Writes to a file descriptor, by default standard error. Any thread may call it; it never raises.

    *limit* is the length from which on lines must be cut, None when the descriptor takes any line in
    one piece. *lost* counts the lines that could not be written.
    """

    def __init__(self, descriptor: int = 2) -> None:
        self._descriptor = descriptor
        self.limit = PIPE_BUF if _may_tear(descriptor) else None
        self.lost = 0

    def __call__(self, line: bytes) -> None:
        """Write *line*, waiting while the reader is slow."""
        try:
            written = os.write(self._descriptor, line)
            if written != len(line):
                self._write_rest(line[written:])
        except BlockingIOError:
            self._write_when_ready(line)
        except OSError:
            self.lost += 1

    def _write_rest(self, line: bytes) -> None:
        while line:
            line = line[os.write(self._descriptor, line) :]

    def _write_when_ready(self, line: bytes) -> None:
        """Somebody made the descriptor non-blocking, as terminals shared with other programs may be."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        try:
            if not poll.poll(_patience * 1000):
                raise OSError(errno.EAGAIN, "the reader is too slow")
            self._write_rest(line)
        except OSError:
            self.lost += 1


def _may_tear(descriptor: int) -> bool:
    """Pipes and sockets split long writes; regular files and terminals do not."""
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
