"""Custom health checks: each runs in a thread of its own, and one that raises or hangs is a no."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from patron.calling import refuse_awaitable
from patron.component import Verdict

__all__ = ["Check", "Checks"]

#: A check returns False (or raises) when it fails; any other value is a pass.
Check = Callable[[], object]


@dataclass(eq=False, slots=True)
class _Run:
    """One run of a check; its thread writes, whoever waits reads after *done*."""

    deadline: float
    done: threading.Event = field(default_factory=threading.Event)
    reason: str | None = None


class Checks:
    """
    Named checks, run side by side within one time-out. Any thread may call `verdict`.

    Callers share a run, and its time-out counts from its start: of many probes of a check that
    hangs, the first ones wait no longer than that together, and the later ones not at all. Such a
    check keeps its one thread; until that ends it is not started again, so that probes cannot pile
    up threads.

    Args:
        timeout: seconds for all the checks together.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        checks: Mapping[str, Check],
        *,
        timeout: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._checks = dict(checks)
        self._timeout = timeout
        self._clock = clock
        self._lock = threading.Lock()  # guards _running
        self._running: dict[str, _Run] = {}

    def verdict(self) -> Verdict:
        """Run every check; the reasons name the ones that failed, raised or hang. Blocks for one time-out at most."""
        runs = {name: self._join(name) for name in self._checks}
        reasons = tuple(reason for name, run in runs.items() if (reason := self._wait(name, run)))
        return Verdict(not reasons, reasons)

    def _join(self, name: str) -> _Run:
        """The run of the check that goes on, or a new one."""
        with self._lock:
            run = self._running.get(name)
            if run is not None:
                return run
            run = self._running[name] = _Run(self._clock() + self._timeout)
        thread = threading.Thread(
            target=self._run, args=(name, run), name=f"patron-check-{name}", daemon=True
        )
        try:
            thread.start()
        except Exception as error:  # noqa: BLE001 - there are too many threads, or too little memory
            run.reason = f"check {name} could not be started: {error}"
            self._end(name, run)
        return run

    def _run(self, name: str, run: _Run) -> None:
        try:
            result = self._checks[name]()
            refuse_awaitable(result)
            if result is False:
                run.reason = f"check {name} failed"
        except BaseException as error:  # noqa: BLE001 - user code: whatever it raises is a no
            run.reason = f"check {name} raised {error!r}"
        self._end(name, run)

    def _end(self, name: str, run: _Run) -> None:
        with self._lock:
            del self._running[name]
        run.done.set()

    def _wait(self, name: str, run: _Run) -> str | None:
        if not run.done.wait(max(0.0, run.deadline - self._clock())):
            return f"check {name} did not answer within {self._timeout:g} s"
        return run.reason
