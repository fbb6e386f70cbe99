"""The periodic component: it waits for each tick of its schedule and calls its function."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from patron import resources, slots
from patron.component import Stop, Verdict, Work
from patron.errors import ConfigError, RetriesExhausted
from patron.observe import log
from patron.periodic.metrics import skipped_ticks
from patron.periodic.runner import Ended, Runner
from patron.periodic.schedule import Schedule
from patron.periodic.seat import OwnSeat, Seat, SharedSeat
from patron.periodic.settings import OnExhausted, PeriodicSettings
from patron.reasons import told
from patron.reliability.retry import RetryPolicy

__all__ = ["Periodic"]

#: Seconds between two looks at the clock, so that one that was set is noticed.
LOOK = 1.0
#: Seconds between two looks at a seat that another worker has.
TAKE_OVER = 0.5


@dataclass(slots=True)
class _State:
    """What `Periodic.info` tells. The component's thread writes, every thread reads."""

    phase: str = "created"
    work: Work | None = None
    next: float | None = None  # seconds since the epoch
    runs: int = 0
    failures: int = 0
    skipped: int = 0
    last: Mapping[str, Any] | None = None


class Periodic:
    """
    A component that calls *function* every so many seconds, or at the times of a cron expression.

    The function gets the service's resources that its parameters name, and never runs twice at a
    time: ticks that pass while it runs are skipped and counted. When it raises, it is tried again
    as *retry* says; see docs/periodic.md. Durations are seconds::

        Periodic("clean", remove_old_carts, every=30)
        Periodic("report", send_report, cron="0 7 * * MON-FRI", timezone="Europe/Athens", one_worker=True)

    The arguments are those of `PeriodicSettings`. It is a description, made before the fork.

    Raises:
        ConfigError: with one line for each argument that is wrong.
        MissingExtra: *cron* was given, and `cronsim` is not installed.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        *,
        every: float | None = None,
        cron: str | None = None,
        timezone: str = "UTC",
        one_worker: bool = False,
        run_at_start: bool = False,
        retry: RetryPolicy | None = None,
        on_exhausted: OnExhausted = "skip",
        deadline: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.function = function
        try:
            self.settings = PeriodicSettings(
                name=name,
                function=function,
                every=every,
                cron=cron,
                timezone=timezone,
                one_worker=one_worker,
                run_at_start=run_at_start,
                retry=RetryPolicy() if retry is None else retry,
                on_exhausted=on_exhausted,
                deadline=deadline,
            )
        except ConfigError as error:
            raise ConfigError(*(f"periodic {name!r}: {problem}" for problem in error.problems)) from None
        self._clock = clock
        self._now = now
        self._state = _State()

    def run(self, stop: Stop) -> None:
        """
        Call the function at each tick until *stop* is set; a call that has begun comes to its end.

        Raises:
            RetriesExhausted: a run was out of tries, and ``on_exhausted`` is ``exit``.
        """
        runner = Runner(self.settings, resources.bind(self.function, given=0), self._clock, self._now)
        seat = self._seat()
        with closing(seat), log.with_context(periodic=self.name):
            if self._take(seat, stop):
                self._tick(runner, seat, stop)

    def _seat(self) -> Seat:
        directory = slots.run_directory.get()
        if self.settings.one_worker and directory is not None:
            return SharedSeat(directory, self.name)
        return OwnSeat()

    def _take(self, seat: Seat, stop: Stop) -> bool:
        """Wait for the seat; returns False when the stop came first."""
        if seat.take():
            return True
        self._state.phase = "standing by"
        while not stop.wait(TAKE_OVER):
            if seat.take():
                log.info("periodic component takes over")
                return True
        return False

    def _tick(self, runner: Runner, seat: Seat, stop: Stop) -> None:
        schedule = self.settings.schedule(self._clock, self._now)
        due = self._first(schedule, seat)
        while (tick := self._wait(schedule, due, stop)) is not None:
            seat.note(schedule.kind, tick)
            self._run_once(runner, stop)
            due = self._after(schedule, tick)

    def _first(self, schedule: Schedule, seat: Seat) -> float:
        """The first tick: the one after the last that another worker ran, or as if there was none."""
        last = seat.last(schedule.kind)
        if last is not None and schedule.is_past(last):
            return schedule.next(last)
        return schedule.now() if self.settings.run_at_start else schedule.next(schedule.now())

    def _wait(self, schedule: Schedule, due: float, stop: Stop) -> float | None:
        """Wait for the tick *due*; returns the tick that came, or None at the stop."""
        self._state.phase = "waiting"
        while not stop.is_set():
            if schedule.corrected():
                due = _anew(schedule)
            left = due - schedule.now()
            if left <= 0:
                return due
            self._state.next = self._now() + left
            stop.wait(min(left, LOOK))
        return None

    def _after(self, schedule: Schedule, tick: float) -> float:
        """The tick to wait for after the run of *tick*."""
        if schedule.corrected():
            return _anew(schedule)
        due, passed = schedule.skip(tick)
        self._count_skipped(passed)
        return due

    def _run_once(self, runner: Runner, stop: Stop) -> None:
        state = self._state
        started, state.phase, state.next = self._clock(), "running", None
        state.work = Work(f"run of {_name(self.function)}", time.monotonic(), threading.get_ident())
        at = self._now()
        try:
            ended = runner.run(stop)
        finally:
            state.work = None
        state.runs += 1
        state.last = _described(ended, at, self._clock() - started)
        if ended.status == "failed":
            self._failed(ended)

    def _failed(self, ended: Ended) -> None:
        self._state.failures += 1
        if self.settings.on_exhausted == "exit":
            allowed = self.settings.retry.attempts
            raise RetriesExhausted(
                f"gave up after {ended.tries} of {allowed} attempts: {ended.error}"
            ) from ended.error

    def _count_skipped(self, passed: int) -> None:
        if passed:
            self._state.skipped += passed
            skipped_ticks.bind(name=self.name).inc(passed)
            log.warn("ticks skipped", count=passed)

    def info(self) -> Mapping[str, Any]:
        """Type, settings and state."""
        state, settings = self._state, self.settings
        when = {"cron": settings.cron, "timezone": settings.timezone} if settings.cron else {}
        return {
            "type": "periodic",
            "name": self.name,
            "function": _name(self.function),
            **(when or {"every": settings.every}),
            "one_worker": settings.one_worker,
            "attempts": settings.retry.attempts,
            "on_exhausted": settings.on_exhausted,
            "phase": state.phase,
            "next": None if state.next is None else _time(state.next),
            "runs": state.runs,
            "failures": state.failures,
            "skipped_ticks": state.skipped,
            "last": state.last,
        }

    def ready(self) -> Verdict:
        """Ready from its start on: also while another worker runs it, and whatever a run came to."""
        created = self._state.phase == "created"
        return Verdict(not created, ("is not running",) if created else ())

    def in_flight(self) -> Sequence[Work]:
        """The run that has begun."""
        work = self._state.work
        return () if work is None else (work,)

    def __repr__(self) -> str:
        when = self.settings.cron if self.settings.every is None else f"every {self.settings.every:g} s"
        return f"Periodic({self.name!r}, {_name(self.function)}, {when})"


def _anew(schedule: Schedule) -> float:
    log.warn("the clock was set, the schedule begins anew")
    return schedule.next(schedule.now())


def _described(ended: Ended, at: float, seconds: float) -> dict[str, Any]:
    described = {
        "started": _time(at),
        "seconds": round(seconds, 3),
        "status": ended.status,
        "tries": ended.tries,
    }
    return described if ended.error is None else {**described, "error": told(ended.error)}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _name(function: Any) -> str:
    return f"{getattr(function, '__module__', '?')}:{getattr(function, '__qualname__', type(function).__qualname__)}"
