"""The supervisor: each component in a thread of its own, every end noticed, all stopped within one budget."""

from __future__ import annotations

import contextvars
import random
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patron.component import Component, Describes, NamesWork, ReportsReadiness, Stop, Verdict, Work
from patron.errors import ComponentFailed, ConfigError
from patron.observe import log
from patron.reasons import told

__all__ = ["ProcessSettings", "RestartPolicy", "Supervisor", "describe_work"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessSettings:
    """
    How the worker processes live and end. Durations are seconds.

    *workers*: full replicas of the service. *grace*: the one stop budget, from the signal to the
    exit. *drain*: how much of it HTTP goes on serving while readiness already says no.
    *max_worker_deaths*: so many deaths by a signal within *death_window* end the run with status 1.
    *death_window*: see *max_worker_deaths*.
    *run_directory*: where the metric files of a run live; None picks a private temporary directory.
    """

    workers: int = 1
    grace: float = 30.0
    drain: float = 0.0
    max_worker_deaths: int = 5
    death_window: float = 60.0
    run_directory: Path | None = None

    def __post_init__(self) -> None:
        problems = [text for wrong, text in self._checks() if wrong]
        if problems:
            raise ConfigError(*problems)

    def _checks(self) -> list[tuple[bool, str]]:
        return [
            (not 1 <= self.workers <= 256, f"workers is {self.workers}: use 1 to 256"),
            (not 0 < self.grace <= 3600, f"grace is {self.grace} s: use more than 0 and at most 3600"),
            (
                not 0 <= self.drain < self.grace,
                f"drain is {self.drain} s: it is part of grace ({self.grace} s), so be below it",
            ),
            (self.max_worker_deaths < 1, f"max_worker_deaths is {self.max_worker_deaths}: use at least 1"),
            (self.death_window <= 0, f"death_window is {self.death_window} s: use more than 0"),
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class RestartPolicy:
    """
    Restart a component that failed, instead of ending the service.

    The wait before restart *n* is drawn from 0 to ``min(cap, initial * 2**n)`` seconds (full
    jitter). More than *limit* failures within *window* seconds escalate: the service ends.

    Args:
        initial: the longest wait before the first restart.
        cap: the longest wait at all.
        limit: failures within *window* that are restarted; one more ends the service.
        window: how long a failure counts.
    """

    initial: float = 0.5
    cap: float = 30.0
    limit: int = 5
    window: float = 60.0

    def __post_init__(self) -> None:
        if self.initial <= 0 or self.cap < self.initial or self.limit < 1 or self.window <= 0:
            raise ConfigError(
                f"restart policy {self}: initial and window must be above 0, cap at least initial, limit at least 1"
            )

    def wait(self, failures: int) -> float:
        """Seconds to wait before the next start, after *failures* failures in the window."""
        return random.uniform(0.0, min(self.cap, self.initial * 2 ** (failures - 1)))  # noqa: S311


class _Entry:
    """
    One component under supervision. Its own thread writes the state; every thread reads it.

    States: created, running, restarting, ended, failed.
    """

    def __init__(self, component: Component, policy: RestartPolicy | None) -> None:
        self.component = component
        self.policy = policy
        self.state = "created"
        self.error: BaseException | None = None
        self.restarts = 0
        self.started = time.monotonic()
        self.thread: threading.Thread | None = None
        self._failures: deque[float] = deque()

    def run(self, stop: Stop) -> None:
        """Run the component until it ends for good."""
        while True:
            self._run_once(stop)
            wait = self._next_wait(stop)
            if wait is None:
                break
            self.state = "restarting"
            self.restarts += 1
            self._report_restart(wait)
            if stop.wait(wait):
                self.error = None
                break
        self.state = "failed" if self.error else "ended"

    def _run_once(self, stop: Stop) -> None:
        self.state, self.error, self.started = "running", None, time.monotonic()
        try:
            self.component.run(stop)
        except SystemExit as error:
            self.error = error if error.code else None
        except BaseException as error:  # noqa: BLE001 - the edge of the thread: keep it for the owner
            self.error = error

    def _next_wait(self, stop: Stop) -> float | None:
        """Seconds until the component is started again, or None when it is not."""
        if self.error is None or self.policy is None or stop.is_set():
            return None
        now = time.monotonic()
        self._failures.append(now)
        while self._failures and self._failures[0] <= now - self.policy.window:
            self._failures.popleft()
        if len(self._failures) > self.policy.limit:
            return None
        return self.policy.wait(len(self._failures))

    def _report_restart(self, wait: float) -> None:
        """One line for each change from running to restarting; a crash loop is counted, not repeated in full."""
        first = len(self._failures) == 1
        log.error(
            "component restarts",
            component=self.component.name,
            wait=round(wait, 3),
            restarts=self.restarts,
            failures_in_window=len(self._failures),
            error=self.error and told(self.error),
            exc_info=self.error if first else None,
        )

    def describe(self) -> dict[str, Any]:
        """Name, type, state and what the component says of itself."""
        info = _info(self.component)
        return {
            "name": self.component.name,
            "type": type(self.component).__name__,
            "state": self.state,
            **({"restarts": self.restarts} if self.policy else {}),
            **({"error": told(self.error)} if self.error else {}),
            **info,
        }

    def verdict(self) -> Verdict:
        """Whether the component is up and says that it is ready."""
        name = self.component.name
        if self.state != "running":
            return Verdict(False, (f"{name}: {self.state}",))
        if not isinstance(self.component, ReportsReadiness):
            return Verdict(True)
        try:
            verdict = self.component.ready()
        except Exception as error:  # noqa: BLE001 - user code: a readiness that raises is a no
            return Verdict(False, (f"{name}: readiness raised {error!r}",))
        return Verdict(verdict.ok, tuple(f"{name}: {reason}" for reason in verdict.reasons))


def _info(component: Component) -> Mapping[str, Any]:
    if not isinstance(component, Describes):
        return {}
    try:
        return dict(component.info())
    except Exception as error:  # noqa: BLE001 - user code: the description must not end the service
        return {"info_error": told(error)}


class Supervisor:
    """
    Runs the components of one live service.

    *on_end* is called once, from the component's thread, when the first one ends before the stop.
    `start` and `join` belong to the owner's thread; everything else may be called from any.
    """

    def __init__(
        self,
        components: Sequence[Component],
        *,
        restart: Mapping[str, RestartPolicy] | None = None,
        on_end: Callable[[str], None] = lambda name: None,
    ) -> None:
        self.stop_signal = Stop()
        self._entries = [_Entry(c, (restart or {}).get(c.name)) for c in components]
        self._on_end = on_end
        self._ending = threading.Lock()  # guards _first_end
        self._first_end: str | None = None

    def start(self) -> None:
        """Start every component's thread, in the current context."""
        for entry in self._entries:
            context = contextvars.copy_context()
            entry.thread = threading.Thread(
                target=context.run,
                args=(self._guard, entry),
                name=f"patron-{entry.component.name}",
                daemon=True,
            )
            entry.state = "running"
            entry.thread.start()

    def _guard(self, entry: _Entry) -> None:
        entry.run(self.stop_signal)
        if entry.error is not None:
            # The traceback comes once, at the end, with those of all that failed.
            log.error("component failed", component=entry.component.name, error=_text(entry.error))
        with self._ending:
            first = self._first_end is None and not self.stop_signal.is_set()
            if first:
                self._first_end = entry.component.name
        if first:
            log.info("component ended, the service stops", component=entry.component.name, state=entry.state)
            self._on_end(entry.component.name)

    def stop(self, deadline: float | None = None) -> None:
        """Ask every component to stop at once; *deadline* (monotonic seconds) is when the budget is over."""
        self.stop_signal.set(deadline)

    def running(self) -> bool:
        """Whether a component's thread is still alive."""
        return any(e.thread is not None and e.thread.is_alive() for e in self._entries)

    def join(self, deadline: float) -> bool:
        """Wait for the components until *deadline* (monotonic seconds); returns whether all have ended."""
        for entry in self._entries:
            if entry.thread is not None:
                entry.thread.join(max(0.0, deadline - time.monotonic()))
        return not self.running()

    def errors(self) -> list[ComponentFailed]:
        """One error for each component that failed, with the component's own as its cause."""
        return [_failure(e.component.name, e.error) for e in self._entries if e.error is not None]

    def describe(self) -> list[dict[str, Any]]:
        """What each component is and how it is."""
        return [entry.describe() for entry in self._entries]

    def ready(self) -> Verdict:
        """Ready when every component is; with the reasons of those that are not."""
        verdicts = [entry.verdict() for entry in self._entries]
        reasons = tuple(reason for verdict in verdicts for reason in verdict.reasons)
        return Verdict(all(verdict.ok for verdict in verdicts), reasons)

    def in_flight(self) -> list[Work]:
        """What is still being worked on, also by a component that gave up waiting for it."""
        return [work for entry in self._entries for work in _work(entry)]


def _failure(name: str, error: BaseException) -> ComponentFailed:
    failed = ComponentFailed(name, _text(error))
    failed.__cause__ = error
    return failed


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _work(entry: _Entry) -> Sequence[Work]:
    component, thread = entry.component, entry.thread
    named: list[Work] = []
    if isinstance(component, NamesWork):
        try:
            named = [Work(f"{component.name}: {w.what}", w.since, w.thread) for w in component.in_flight()]
        except Exception as error:  # noqa: BLE001 - user code: the report goes on without it
            log.warn("component cannot name its work", component=component.name, error=told(error))
    if named or thread is None or not thread.is_alive():
        return named
    return [Work(f"component {component.name}", entry.started, thread.ident)]


def describe_work(work: Work) -> str:
    """*work* with how long it has run and the stack that it hangs in, on one line."""
    return f"{work.what} ({time.monotonic() - work.since:.1f} s){_stack(work.thread)}"


def _stack(ident: int | None) -> str:
    frame = sys._current_frames().get(ident) if ident is not None else None
    if frame is None:
        return ""
    calls = traceback.extract_stack(frame)[-6:]
    return " at " + " > ".join(
        f"{call.filename.rsplit('/', 1)[-1]}:{call.lineno} {call.name}" for call in calls
    )
