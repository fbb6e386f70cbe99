"""Custom health checks: each runs in a thread of its own, and one that raises or hangs is a no."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from patron.component import Verdict

__all__ = ["Check", "Checks"]

#: A check returns False (or raises) when it fails; any other value is a pass.
Check = Callable[[], object]


@dataclass(eq=False, slots=True)
class _Run:
    """One run of a check; its thread writes, whoever waits reads after *done*."""

    done: threading.Event = field(default_factory=threading.Event)
    reason: str | None = None


class Checks:
    """
    Named checks, run side by side within one time-out. Any thread may call `verdict`.

    A check that hangs keeps its one thread; until that ends it is not started again, so that
    probes cannot pile up threads.
    """

    def __init__(self, checks: Mapping[str, Check], *, timeout: float = 2.0) -> None:
        self._checks = dict(checks)
        self._timeout = timeout
        self._lock = threading.Lock()  # guards _running
        self._running: dict[str, _Run] = {}

    def verdict(self) -> Verdict:
        """Run every check; the reasons name the ones that failed, raised or hang."""
        runs = {name: self._start(name) for name in self._checks}
        reasons = tuple(reason for name, run in runs.items() if (reason := self._wait(name, run)))
        return Verdict(not reasons, reasons)

    def _start(self, name: str) -> _Run:
        with self._lock:
            run = self._running.get(name)
            if run is not None:
                return run
            run = self._running[name] = _Run()
        threading.Thread(target=self._run, args=(name, run), name=f"patron-check-{name}", daemon=True).start()
        return run

    def _run(self, name: str, run: _Run) -> None:
        try:
            if self._checks[name]() is False:
                run.reason = f"check {name} failed"
        except BaseException as error:  # noqa: BLE001 - user code: whatever it raises is a no
            run.reason = f"check {name} raised {error!r}"
        with self._lock:
            del self._running[name]
        run.done.set()

    def _wait(self, name: str, run: _Run) -> str | None:
        if not run.done.wait(self._timeout):
            return f"check {name} did not answer within {self._timeout:g} s"
        return run.reason
