"""Who runs the processor for a key, and who waits for what that one gets: single flight in one process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

__all__ = ["Boarding", "Flight", "Flights"]

T = TypeVar("T")

_REMEMBERED = 10.0
_MOST_REMEMBERED = 10_000


class Flight(Generic[T]):
    """One run of the processor; *result* is what it got for everybody, once it has *landed*."""

    __slots__ = ("_landed", "result", "started")

    def __init__(self, started: float) -> None:
        self.started = started
        self.result: T | None = None
        self._landed = threading.Event()

    def wait(self, timeout: float) -> bool:
        """Whether it landed within *timeout* seconds; the one who runs the processor must not wait."""
        return self._landed.wait(timeout)

    def land(self, result: T | None) -> None:
        self.result = result
        self._landed.set()


class Boarding(NamedTuple, Generic[T]):
    """*leads* runs the processor and must call `Flights.land`; without a *flight* everybody runs their own."""

    flight: Flight[T] | None
    leads: bool


class Flights(Generic[T]):
    """The runs in this process, by key. All threads share it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # guards the three below
        self._flights: dict[str, Flight[T]] = {}
        self._alone: dict[str, float] = {}
        self.landings = 0

    def board(self, key: str) -> Boarding[T]:
        """
        The run for *key* that there is, or a new one, which the caller leads.

        There is none for a moment after the result of one could not be shared, lest those who wait
        run one after the other.
        """
        with self._lock:
            flight = self._flights.get(key)
            if flight is not None:
                return Boarding(flight, False)
            now = self._clock()
            if self._alone and now < self._alone.get(key, now):
                return Boarding(None, False)
            flight = self._flights[key] = Flight(now)
            return Boarding(flight, True)

    def running(self, flight: Flight[T]) -> float:
        """The seconds since *flight* began."""
        return self._clock() - flight.started

    def land(self, key: str, flight: Flight[T], result: T | None) -> None:
        """Give *result* to everybody who waits; with None they may board again."""
        with self._lock:
            del self._flights[key]
            self.landings += 1
        flight.land(result)

    def remember(self, key: str, shared: bool) -> None:
        """Whether the answer for *key* can be *shared*; when it cannot, nobody waits for it for 10 s."""
        if shared and not self._alone:
            return
        with self._lock:
            self._alone.pop(key, None)
            if not shared:
                self._make_room()
                self._alone[key] = self._clock() + _REMEMBERED

    def _make_room(self) -> None:
        while self._alone:  # the oldest stands first, since all of them are remembered equally long
            oldest = next(iter(self._alone))
            if len(self._alone) < _MOST_REMEMBERED and self._alone[oldest] > self._clock():
                return
            del self._alone[oldest]
