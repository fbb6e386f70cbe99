"""When a function is due: every so many seconds, or at the times of a cron expression."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from patron.errors import ConfigError, MissingExtra

__all__ = ["CORRECTION", "Cron", "Every", "Schedule"]

#: Seconds. A time of day that jumps by more was set right, and the schedule begins anew; by less, no tick
#: is lost or repeated. The limit is the one of Debian's cron(8).
CORRECTION = 3 * 3600.0
#: Ticks that are looked at one by one; each costs some microseconds.
_MANY = 20_000


class Schedule(Protocol):
    """
    The ticks at which something is due, as seconds on the schedule's own clock.

    One thread owns it; only `next` has no state.
    """

    kind: str

    def now(self) -> float:
        """The time on the clock that the ticks are on."""
        ...

    def next(self, tick: float) -> float:
        """The first tick after *tick*."""
        ...

    def skip(self, tick: float) -> tuple[float, int]:
        """The first tick after *tick* that has not passed yet, and how many in between have; cron counts to 20,000."""
        ...

    def corrected(self) -> bool:
        """Whether the clock was set right since the last call, so that ticks planned before mean nothing."""
        ...

    def is_past(self, tick: float) -> bool:
        """Whether *tick*, which somebody noted, can be one of the past on this clock."""
        ...


class Every:
    """A tick each *seconds* on a monotonic clock; how long a run takes moves none of them."""

    kind = "every"

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self.now = clock

    def next(self, tick: float) -> float:
        """See `Schedule.next`."""
        return tick + self._seconds

    def skip(self, tick: float) -> tuple[float, int]:
        """See `Schedule.skip`."""
        passed = max(0, math.ceil((self.now() - tick) / self._seconds) - 1)
        return tick + (passed + 1) * self._seconds, passed

    def corrected(self) -> bool:
        """A monotonic clock is never set."""
        return False

    def is_past(self, tick: float) -> bool:
        """See `Schedule.is_past`; the clock is the same for all processes of the machine."""
        return tick <= self.now()


class Cron:
    """
    The ticks of a cron expression in a time zone, in seconds since the epoch.

    `cronsim` computes them as Debian's cron does: five fields, or six with the seconds first. Where
    summer time begins or ends, a job at a fixed time of day runs once; one that runs each hour or
    more often goes on evenly.

    Args:
        expression: the cron expression.
        zone: the name of its time zone.
        now: the time of day, in seconds since the epoch.
        clock: monotonic seconds, to tell a time of day that was set from one that passed.

    Raises:
        ConfigError: the expression or the zone is wrong, or it never comes true.
        MissingExtra: `cronsim` is not installed.
    """

    kind = "cron"

    def __init__(
        self, expression: str, zone: str, now: Callable[[], float], clock: Callable[[], float]
    ) -> None:
        self._expression = expression
        self._zone = _zone(zone)
        self.now = now
        self._clock = clock
        self._offset = now() - clock()
        self._check()

    def _check(self) -> None:
        error = _cronsim().CronSimError
        try:
            self.next(self.now())
        except error as problem:
            raise ConfigError(
                f"cron is {self._expression!r}: {problem}; "
                "the fields are minute, hour, day of the month, month and day of the week"
            ) from None
        except StopIteration:
            raise ConfigError(
                f"cron is {self._expression!r}: it does not come true within 50 years"
            ) from None

    def next(self, tick: float) -> float:
        """See `Schedule.next`."""
        ticks = _cronsim().CronSim(self._expression, datetime.fromtimestamp(tick, self._zone))
        # In the hour that the end of summer time repeats, the first answer may be of its first half.
        while (found := float(next(ticks).timestamp())) <= tick:
            pass
        return found

    def skip(self, tick: float) -> tuple[float, int]:
        """See `Schedule.skip`."""
        now = self.now()
        due, passed = self.next(tick), 0
        while due < now:
            if passed == _MANY:
                return self.next(now), passed
            due, passed = self.next(due), passed + 1
        return due, passed

    def corrected(self) -> bool:
        """See `Schedule.corrected`."""
        before, self._offset = self._offset, self.now() - self._clock()
        return abs(self._offset - before) > CORRECTION

    def is_past(self, tick: float) -> bool:
        """See `Schedule.is_past`; a little in the future it was before the clock was set back."""
        return tick <= self.now() + CORRECTION


def _zone(name: str) -> tzinfo:
    """The time zone *name*; UTC needs no database, and `cronsim` knows it by this object."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # a directory, no relative path, not found
        raise ConfigError(
            f"timezone is {name!r}: the system knows no such time zone; use a name as 'Europe/Athens', "
            "and install tzdata where it knows none"
        ) from None


def _cronsim() -> Any:
    try:
        import cronsim
    except ImportError as error:
        raise MissingExtra("cronsim", "cron") from error
    return cronsim
