"""
The CPU profile: looks at all threads many times a second, and counts the time that they have used.

How much CPU time a thread has used is measured, by its clock in the kernel. Where it has used it is
estimated, from those samples in which it ran in the last moment, and did not wait for anything but
its turn: a thread that mostly waits is mostly seen waiting, also right after it has worked. Threads
whose names differ by a number only are one group: the time of all of them is measured, and which of
them used it is estimated, too.
"""

from __future__ import annotations

import dis
import os
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
#: Seconds that are looked at for who is running; nanoseconds of CPU in them that make a whole sample.
SETTLE, GRAIN = 0.0002, 100_000

_UNSEEN = Frame("(between samples)")
_ENDED = Frame("(threads that ended between samples)")


def sample(seconds: float, hz: float, wait: Wait, *, wall: bool = False) -> Profile:
    """
    What all other threads do for *seconds*, *hz* times a second; *wall* counts the time that they wait as well.

    The calling thread samples, and is left out. Fewer seconds when *wait* says so.
    """
    sampler = _Wall() if wall else _Cpu(round(1e9 / hz))
    profile = Profile((Kind("samples", "count"), Kind("wall", CPU.unit) if wall else CPU), time.time_ns())
    profile.period_kind, profile.period = profile.kinds[1], round(1e9 / hz)
    began = last = time.monotonic_ns()
    end = began + round(seconds * 1e9)
    settle = min(SETTLE, 0.5 / hz)
    while last < end and not wait(min(_pause(hz), (end - last) / 1e9) - settle):
        sampler.settle()
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
    with _switching:
        usual = sys.getswitchinterval()
        sys.setswitchinterval(min(usual, SWITCH_INTERVAL))
        try:
            time.sleep(after)
        finally:
            sys.setswitchinterval(usual)


# Guards the switch interval, which all of the process shares: of two profiles the later one would take the changed
# one for the usual one, and leave it behind.
_switching = threading.Lock()


def _pause(hz: float) -> float:
    # Work that is done at a steady pace must not be met at the same point each time.
    return random.uniform(0.8, 1.2) / hz  # noqa: S311


class _Wall:
    """Counts the time of every thread, whatever it does."""

    def __init__(self) -> None:
        self._me = threading.get_ident()
        self._stacks = Stacks()
        self._tally: dict[tuple[str, Raw], list[int]] = defaultdict(lambda: [0, 0])

    def settle(self) -> None:
        """Nothing to do shortly before a tick."""

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
    """One stack of one thread: the samples in which it ran, and their weight."""

    __slots__ = ("running", "turn", "turn_weight", "weight")

    def __init__(self) -> None:
        self.running = self.weight = 0
        self.turn = self.turn_weight = 0  # it waited for its turn, or has just got it


class _Cpu:
    """Counts the CPU time of every thread where it uses it."""

    def __init__(self, period: int) -> None:
        self._period = period  # nanoseconds
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

    def settle(self) -> None:
        """Count what was used so far: of what the next tick finds, only the last moment belongs to its stacks."""
        for thread, native in self._threads():
            self._use(thread, native)

    def tick(self, elapsed: int) -> None:
        # First everything that should be of one moment, then what gives up the lock.
        found = list(self._active())
        for name, native, weight, raw in found:
            self._note(name, native, weight, raw)

    def _threads(self) -> Iterator[tuple[threading.Thread, int]]:
        """Every thread but this one, with its native id."""
        main = threading.main_thread()
        for thread in threading.enumerate():
            # The main thread of a forked process goes by its parent's number.
            native = os.getpid() if thread is main else thread.native_id
            if native is not None and thread.ident != self._me:
                self._python.add(native)
                yield thread, native

    def _use(self, thread: threading.Thread, native: int) -> int:
        used = self._clocks.used(native)
        self._accounted += used
        self._total[_group(thread.name)] += used
        return used

    def _active(self) -> Iterator[tuple[str, int, int, Raw]]:
        """Each thread that has used CPU time in the last moment, with its stack."""
        threads = list(self._threads())
        frames = sys._current_frames()
        for thread, native in threads:
            frame = frames.get(thread.ident or 0)
            if frame is not None and (used := self._use(thread, native)):
                yield thread.name, native, self._weight(used), self._stacks.take(frame)

    def _weight(self, used: int) -> int:
        """
        What a sample counts for whose thread has *used* so much right before.

        Not just that: where work ends, more of it lies behind than where it begins. But a call that
        kept the sampler waiting for several periods would have been seen as often.
        """
        return used if used > self._period else min(used, GRAIN) * self._period // GRAIN

    def _note(self, name: str, native: int, weight: int, raw: Raw) -> None:
        seen = self._seen[name, raw]
        if self._was_running(raw):
            seen.running += 1
            seen.weight += weight
            return
        if raw[:2] not in self._waits and clocks.is_waiting(native):
            self._waits.add(raw[:2])
        elif weight >= self._period:
            # One that counts less has given up the lock in this very call, and wants it back.
            seen.turn += 1
            seen.turn_weight += weight

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
        for (name, _), (_, weight) in ran.items():
            per_group[_group(name)] += weight
        for (name, raw), (count, weight) in ran.items():
            group = _group(name)
            share = weight * self._total[group] // per_group[group]
            profile.add(self._stacks.tell(raw), (count, share), thread=name)
        for group, total in self._total.items():
            if total and group not in per_group:
                profile.add([_UNSEEN], (0, total), thread=group)
        self._add_others(profile)

    def _ran(self, raw: Raw, seen: _Seen) -> tuple[int, int]:
        """The samples in which *raw* ran, and their weight."""
        if raw[:2] in self._waits:
            return seen.running, seen.weight
        return seen.running + seen.turn, seen.weight + seen.turn_weight

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
