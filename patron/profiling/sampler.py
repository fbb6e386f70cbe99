"""
The CPU profile: looks at all threads many times a second, and counts the time that they have used.

How much CPU time a thread has used is measured, by its clock in the kernel. Where it has used it is
estimated, from those samples in which it ran, or waited for nothing but its turn: a thread that
mostly waits is mostly seen waiting, also right after it has worked.
"""

from __future__ import annotations

import dis
import random
import re
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from types import CodeType

from patron.profiling import clocks
from patron.profiling.model import CPU, Frame, Kind, Profile
from patron.profiling.stacks import Raw, Stacks

__all__ = ["sample"]

#: Waits so many seconds; true when the profile is to end now.
Wait = Callable[[float], bool]
#: Seconds after which a running thread gives way to the sampler.
SWITCH_INTERVAL = 0.00002
#: Seconds that the others run undisturbed before.
SETTLE = 0.001

_UNSEEN = Frame("(between samples)")
_ENDED = Frame("(threads that ended between samples)")


def sample(seconds: float, hz: float, wait: Wait, *, wall: bool = False) -> Profile:
    """
    What all other threads do for *seconds*, *hz* times a second; *wall* counts the time that they wait as well.

    The calling thread samples, and is left out. Fewer seconds when *wait* says so.
    """
    sampler = _Wall() if wall else _Cpu()
    profile = Profile((Kind("samples", "count"), Kind("wall", CPU.unit) if wall else CPU), time.time_ns())
    profile.period_kind, profile.period = profile.kinds[1], round(1e9 / hz)
    began = last = time.monotonic_ns()
    end = began + round(seconds * 1e9)
    settle = min(SETTLE, 0.5 / hz)
    while last < end and not wait(min(_pause(hz), (end - last) / 1e9) - settle):
        _interrupt(random.uniform(0.5, 1.0) * settle)  # noqa: S311
        now = time.monotonic_ns()
        sampler.tick(now - last)
        last = now
    sampler.finish(profile)
    profile.duration = time.monotonic_ns() - began
    return profile


def _interrupt(after: float) -> None:
    """
    Sleep for *after* seconds, then go on at once, whoever runs.

    A thread that wants to run has to wait until the running one pauses by itself, for up to 5 ms. All shorter work
    would never be seen at work, but only where it waits afterwards. So others have to give way sooner, but only for
    this moment: it costs them time when they are many.
    """
    usual = sys.getswitchinterval()
    sys.setswitchinterval(min(usual, SWITCH_INTERVAL))
    try:
        time.sleep(after)
    finally:
        sys.setswitchinterval(usual)


def _pause(hz: float) -> float:
    # Work that is done at a steady pace must not be met at the same point each time.
    return random.uniform(0.8, 1.2) / hz  # noqa: S311


class _Wall:
    """Counts the time of every thread, whatever it does."""

    def __init__(self) -> None:
        self._me = threading.get_ident()
        self._stacks = Stacks()
        self._tally: dict[tuple[str, Raw], list[int]] = defaultdict(lambda: [0, 0])

    def tick(self, elapsed: int) -> None:
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        for ident, frame in sys._current_frames().items():
            if ident != self._me:
                entry = self._tally[names.get(ident) or f"thread {ident}", self._stacks.take(frame)]
                entry[0] += 1
                entry[1] += elapsed

    def finish(self, profile: Profile) -> None:
        for (name, raw), values in self._tally.items():
            profile.add(self._stacks.tell(raw), values, thread=name)


class _Seen:
    """One stack of one thread: how often it was seen, in how many samples it ran, and the CPU time before these."""

    __slots__ = ("running", "turn", "used", "used_turn")

    def __init__(self) -> None:
        self.running = self.turn = 0  # samples: it ran; it waited for its turn
        self.used = self.used_turn = 0  # nanoseconds


class _Cpu:
    """Counts the CPU time of every thread where it uses it."""

    def __init__(self) -> None:
        self._me = threading.get_ident()
        self._stacks = Stacks()
        self._clocks = clocks.CpuClocks()
        self._process = _others_time()
        self._accounted = 0
        self._python: set[int] = set()  # native ids
        self._total: dict[str, int] = defaultdict(int)  # group of threads → nanoseconds
        self._seen: dict[tuple[str, Raw], _Seen] = defaultdict(_Seen)
        # Places that threads were found waiting in. One that is there and waits for its turn has just been woken.
        self._waits: set[Raw] = set()
        self._points: dict[Raw, bool] = {}

    def tick(self, elapsed: int) -> None:
        # First everything that should be of one moment, then what gives up the lock.
        found = list(self._active())
        for name, native, used, raw in found:
            self._note(name, native, used, raw)

    def _active(self) -> Iterator[tuple[str, int, int, Raw]]:
        """Each thread that has used CPU time since the last tick, with its stack."""
        threads = threading.enumerate()
        frames = sys._current_frames()
        for thread in threads:
            native, frame = thread.native_id, frames.get(thread.ident or 0)
            if native is None or frame is None or thread.ident == self._me:
                continue
            self._python.add(native)
            if used := self._clocks.used(native):
                self._accounted += used
                self._total[_group(thread.name)] += used
                yield thread.name, native, used, self._stacks.take(frame)

    def _note(self, name: str, native: int, used: int, raw: Raw) -> None:
        seen = self._seen[name, raw]
        if self._was_running(raw):
            seen.running += 1
            seen.used += used
            return
        if raw[:2] not in self._waits and clocks.is_waiting(native):
            self._waits.add(raw[:2])
        else:
            seen.turn += 1
            seen.used_turn += used

    def _was_running(self, raw: Raw) -> bool:
        """Whether the innermost call was interrupted in its own code, where nothing can be waited for."""
        place = raw[:2]
        if place not in self._points:
            self._points[place] = _is_eval_point(self._stacks.code(raw), raw[1])
        return self._points[place]

    # Telling.

    def finish(self, profile: Profile) -> None:
        ran = {key: values for key, seen in self._seen.items() if (values := self._ran(key[1], seen))[1]}
        per_group: dict[str, int] = defaultdict(int)
        for (name, _), (_, used) in ran.items():
            per_group[_group(name)] += used
        for (name, raw), (count, used) in ran.items():
            group = _group(name)
            share = used * self._total[group] // per_group[group]
            profile.add(self._stacks.tell(raw), (count, share), thread=name)
        for group, total in self._total.items():
            if group not in per_group:
                profile.add([_UNSEEN], (0, total), thread=group)
        self._add_others(profile)

    def _ran(self, raw: Raw, seen: _Seen) -> tuple[int, int]:
        """Samples and nanoseconds in which *raw* ran."""
        if raw[:2] in self._waits:
            return seen.running, seen.used
        return seen.running + seen.turn, seen.used + seen.used_turn

    def _add_others(self, profile: Profile) -> None:
        """What was used by threads that run no Python, and by those that have ended."""
        process = _others_time() - self._process
        for native, used in self._clocks.rest().items():
            if native in self._python or native == threading.get_native_id():
                continue
            self._accounted += used
            if used:
                profile.add([Frame(f"(native thread {clocks.command(native)})")], (0, used), thread="native")
        if (left := process - self._accounted) > profile.period:
            profile.add([_ENDED], (0, left), thread="ended")


def _others_time() -> int:
    """Nanoseconds of CPU of this process, without the calling thread's."""
    return time.process_time_ns() - time.thread_time_ns()


def _group(name: str) -> str:
    """The name of a thread without its number: the threads of a pool are all alike."""
    return re.sub(r"[-_ ]?\d+( |$)", r"\1", name) or name


def _is_eval_point(code: CodeType, instruction: int) -> bool:
    """
    Whether the interpreter may switch threads at *instruction* without a call into C.

    It does so where functions begin, and where loops jump back; after calls too, but there it cannot
    be told from one that still goes on.
    """
    name = dis.opname[code.co_code[instruction]] if instruction >= 0 else ""
    return name == "RESUME" or "JUMP_BACKWARD" in name
