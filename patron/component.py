"""The protocol of a component, and the stop signal that it watches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

__all__ = ["Component", "Describes", "NamesWork", "ReportsReadiness", "Stop", "Verdict", "Work"]


class Stop:
    """
    The one stop signal of a service, with the budget that is left.

    Any thread may call every method. Wait on it instead of sleeping, so that stopping takes
    effect at once.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._event = threading.Event()
        self._clock = clock
        self._deadline: float | None = None

    def set(self, deadline: float | None = None) -> None:
        """Ask for the end; *deadline* (monotonic seconds) is when the budget is over. The first call wins."""
        if not self._event.is_set():
            self._deadline = deadline
            self._event.set()

    def is_set(self) -> bool:
        """Whether the end was asked for."""
        return self._event.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the end is asked for, at most *timeout* seconds; returns `is_set`."""
        return self._event.wait(timeout)

    def remaining(self) -> float | None:
        """Seconds of the budget that are left, never below 0; None before the stop or without a budget."""
        return None if self._deadline is None else max(0.0, self._deadline - self._clock())


@runtime_checkable
class Component(Protocol):
    """
    Something that lives as long as the service: a consumer, a server, a periodic job.

    It is made before the fork and must hold settings only: sockets and threads are opened in `run`.
    """

    @property
    def name(self) -> str:
        """Unique in its service; the name of its thread, and a label of its metrics."""
        ...

    def run(self, stop: Stop) -> None:
        """
        Work until *stop* is set, then finish what is in flight within ``stop.remaining()`` and return.

        Runs in a thread of its own. Returning or raising before *stop* is set ends the service.
        """
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether something is ready, and if not, the reasons."""

    ok: bool
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Work:
    """One piece of work in flight: what it is, since when (monotonic seconds), in which thread."""

    what: str
    since: float
    thread: int | None = None


@runtime_checkable
class Describes(Protocol):
    """A component that can say what it is."""

    def info(self) -> Mapping[str, Any]:
        """Type, settings without secrets, and state, as JSON values; any thread may call, never blocks."""
        ...


@runtime_checkable
class ReportsReadiness(Protocol):
    """A component that has a say in the readiness of its service."""

    def ready(self) -> Verdict:
        """Whether it can do its work now; any thread may call, never blocks."""
        ...


@runtime_checkable
class NamesWork(Protocol):
    """A component that can name what it has in flight, for the report of abandoned work."""

    def in_flight(self) -> Sequence[Work]:
        """What is being worked on now; any thread may call, never blocks."""
        ...
