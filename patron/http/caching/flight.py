"""Who runs the processor for a key, and who waits for what that one gets: single flight in one process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, Literal, NamedTuple, TypeVar

__all__ = ["Boarding", "Flight", "Flights"]

T = TypeVar("T")

_REMEMBERED = 10.0
_MOST_REMEMBERED = 10_000


class Flight(Generic[T]):
    """
    The runs of the processor for one key, one at a time; *result* is what one got for everybody, once it *landed*.

    Nobody leads one that is *vacant*: its last run failed, and of those who wait the first one to wake up is next.
    """

    __slots__ = ("changed", "landed", "result", "started", "vacant", "waiting")

    def __init__(self, started: float, lock: threading.Lock) -> None:
        self.started = started  # the run that is under way
        self.result: T | None = None
        self.landed = False
        self.vacant = False
        self.waiting = 0
        self.changed = threading.Condition(lock)

    def over(self) -> bool:
        """Whether those who wait have something to do."""
        return self.landed or self.vacant


class Boarding(NamedTuple, Generic[T]):
    """*leads* runs the processor and must call `Flights.land`; without a *flight* everybody runs their own."""

    flight: Flight[T] | None
    leads: bool


class Flights(Generic[T]):
    """The runs in this process, by key. All threads share it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # guards the three below, and everything of a flight
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
            flight = self._flights[key] = Flight(now, self._lock)
            return Boarding(flight, True)

    def running(self, flight: Flight[T]) -> float:
        """The seconds since the run of *flight* began."""
        return self._clock() - flight.started

    def wait(self, flight: Flight[T], timeout: float) -> Literal["landed", "leads", "late"]:
        """
        Wait for *flight* as one who does not lead it.

        Returns:
            ``landed``: it has a result, or the caller has to look after itself. ``leads``: the run failed,
            and now the caller leads, as after `board`. ``late``: neither was so within *timeout* seconds.
        """
        with self._lock:
            flight.waiting += 1
            try:
                flight.changed.wait_for(flight.over, timeout)
            finally:
                flight.waiting -= 1
            if flight.landed:
                return "landed"
            if not flight.vacant:
                return "late"
            flight.vacant = False
            flight.started = self._clock()
            return "leads"

    def land(self, key: str, flight: Flight[T], result: T | None, *, failed: bool = False) -> None:
        """
        Give *result* to everybody who waits; with None they have to look after themselves.

        After a run that *failed* one of them leads the next one, and the others wait on.
        """
        with self._lock:
            if failed and flight.waiting:
                flight.vacant = True
                flight.changed.notify()
                return
            del self._flights[key]
            self.landings += 1
            flight.result, flight.landed = result, True
            flight.changed.notify_all()

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
