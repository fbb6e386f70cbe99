"""How a child follows its parent: what it gets when that dies, and no signal lost between fork and handlers."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["die_with_parent", "signal_at_parents_death", "signals_held_back", "unblock_signals"]

_PR_SET_PDEATHSIG = 1
_HELD = {signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGINT}


def signal_at_parents_death(number: int) -> None:
    """Ask the kernel for *number* when the parent dies (prctl(2)); does nothing but on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number))


def die_with_parent(parent: int) -> None:
    """Be killed when the process *parent* dies; one that is dead already counts too."""
    signal_at_parents_death(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


@contextmanager
def signals_held_back() -> Iterator[None]:
    """
    Hold back the signals that end or reload, in the calling thread and in a child that it forks.

    The child lets them through with `unblock_signals` once its own handlers are there; before, they
    would run the parent's handlers in the child, and be lost.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock_signals() -> None:
    """Let through what `signals_held_back` held back."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
