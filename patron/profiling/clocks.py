"""What the kernel tells of each thread of this process: the CPU time it has used, and what it waits for."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path

__all__ = ["SUPPORTED", "CpuClocks", "command", "is_waiting"]

#: Whether the kernel is one that tells.
SUPPORTED = sys.platform == "linux"
_TASKS = "/proc/self/task"
_FUTEX = {"x86_64": b"202", "aarch64": b"98", "i686": b"240", "armv7l": b"240"}
# CPython keeps its lock in one global structure; how large that is differs between versions.
_RUNTIME_SIZE = 4 * 1024 * 1024


class CpuClocks:
    """The CPU time of each thread since it was last asked for, or since the thread began. One thread owns this."""

    def __init__(self) -> None:
        self._last = {thread: _read(thread) or 0 for thread in _threads()}

    def used(self, thread: int) -> int:
        """Nanoseconds of CPU that the native *thread* has used since the last call; 0 when it has ended."""
        now = _read(thread)
        if now is None:
            return 0
        last, self._last[thread] = self._last.get(thread, 0), now
        return now - last if now >= last else now  # less: another thread has got its number

    def rest(self) -> dict[int, int]:
        """What every thread has used since it was last asked for, if it still lives."""
        return {thread: self.used(thread) for thread in _threads()}


def _threads() -> Iterable[int]:
    return [int(name) for name in os.listdir(_TASKS)]


def _read(thread: int) -> int | None:
    # The clock's number as the kernel makes it of a thread's (linux/posix-timers.h: CPUCLOCK_PERTHREAD_MASK and
    # CPUCLOCK_SCHED). time.pthread_getcpuclockid may crash the process when the thread has ended meanwhile.
    try:
        return time.clock_gettime_ns(~thread << 3 | 6)
    except OSError:
        return None


def command(thread: int) -> str:
    """The name that the native *thread* has for the kernel."""
    try:
        return Path(_TASKS, str(thread), "comm").read_text(errors="replace").strip() or str(thread)
    except OSError:
        return str(thread)


def is_waiting(thread: int) -> bool | None:
    """
    Whether the native *thread* waits for something other than its turn to run Python; None: nobody tells.

    A thread that waits for the interpreter's lock wants to run.
    """
    try:
        with open(f"{_TASKS}/{thread}/syscall", "rb", buffering=0) as file:
            fields = file.read(200).split()
    except OSError:
        return None
    if not fields or fields[0] == b"running":
        return False
    if fields[0] != _FUTEX.get(os.uname().machine):
        return True
    where = int(fields[1], 16) if len(fields) > 1 else 0
    return not 0 <= where - _runtime() < _RUNTIME_SIZE


@cache
def _runtime() -> int:
    """Where CPython keeps its global state; far beyond all memory when it does not tell."""
    try:
        import ctypes

        return ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, "_PyRuntime"))
    except (ImportError, ValueError, AttributeError):
        return 1 << 64
