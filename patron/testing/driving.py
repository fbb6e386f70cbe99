"""Driving one component in a thread of the test, without the service around it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from patron.component import Component, Stop
from patron.sources.memory import MemorySource, memory_broker
from patron.testing.until import until

__all__ = ["Driven", "drain", "driven"]


def drain(source: MemorySource, timeout: float = 10.0) -> None:
    """
    Wait until every message of *source* is settled, by whoever consumes it.

    Raises:
        AssertionError: something was still there after *timeout* seconds; the message names it.
    """
    broker = memory_broker(source.broker)
    try:
        until(lambda: not broker.topic(source.topic).unsettled(), timeout)
    except AssertionError:
        left = [record.id for record in broker.messages(source.topic)]
        raise AssertionError(f"{len(left)} messages of {source.topic} are not settled: {left[:10]}") from None


class Driven:
    """A component that runs in a thread of the test, and what became of it."""

    def __init__(self, component: Component, budget: float) -> None:
        self.component = component
        self.stop = Stop()
        self.error: BaseException | None = None
        self._budget = budget
        self._thread = threading.Thread(target=self._run, name=component.name, daemon=True)

    def _run(self) -> None:
        try:
            self.component.run(self.stop)
        except BaseException as error:  # noqa: BLE001 - the thread's edge: the test looks at it
            self.error = error

    @property
    def ended(self) -> bool:
        """Whether its `run` has returned or raised."""
        return not self._thread.is_alive()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def end(self, budget: float | None = None) -> float:
        """Ask it to stop within *budget* seconds and wait for it; returns the seconds that took."""
        budget = self._budget if budget is None else budget
        began = time.monotonic()
        self.stop.set(began + budget)
        self._thread.join(budget + 10.0)
        assert self.ended, f"{self.component.name} did not end within {budget} s and 10 more"
        return time.monotonic() - began


@contextlib.contextmanager
def driven(component: Component, budget: float = 10.0) -> Iterator[Driven]:
    """
    Run *component* in a thread while the block runs, then stop it within *budget* seconds.

    Its error, if it ended with one that the block did not look at, is raised at the end.
    """
    live = Driven(component, budget)
    live.start()
    seen: BaseException | None = None
    try:
        yield live
        seen = live.error
    finally:
        live.end()
    if live.error is not None and live.error is not seen:
        raise live.error
