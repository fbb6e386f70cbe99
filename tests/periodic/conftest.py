"""Time that passes while a component waits, so that a day takes no time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from patron.component import Stop
from patron.periodic import Periodic
from patron.testing import FakeClock


class PassingTime(Stop):
    """Waiting lets the time of *clock* pass; the end is asked for *seconds* from now."""

    def __init__(self, clock: FakeClock, seconds: float) -> None:
        super().__init__(clock)
        self._fake = clock
        self._end = clock() + seconds

    def is_set(self) -> bool:
        return self._fake() >= self._end

    def wait(self, timeout: float | None = None) -> bool:
        left = self._end - self._fake()
        self._fake.advance(max(0.0, left if timeout is None else min(left, timeout)))
        return self.is_set()


class Day:
    """A component and the clock that it lives by; *times* says when its function was called."""

    def __init__(self, epoch: float = 1_700_000_000.0) -> None:
        self.clock = FakeClock(start=0.0, epoch=epoch)
        self.jumped = 0.0
        self.times: list[float] = []

    def now(self) -> float:
        """The time of day, which may be set."""
        return self.clock.now() + self.jumped

    def jump(self, seconds: float) -> None:
        """Set the time of day, forward or back."""
        self.jumped += seconds

    def periodic(self, act: Callable[[], Any] = lambda: None, **settings: Any) -> Periodic:
        """A component whose function notes the time, then acts."""

        def function() -> None:
            self.times.append(self.now() if "cron" in settings else self.clock())
            act()

        return Periodic("tick", function, **settings, clock=self.clock, now=self.now)

    def pass_(self, component: Periodic, seconds: float) -> list[float]:
        """Let the component run for *seconds*; the times of the calls since the beginning."""
        component.run(PassingTime(self.clock, seconds))
        return self.times


@pytest.fixture
def day() -> Day:
    return Day()


@pytest.fixture
def day_from() -> Callable[[str], Day]:
    """A day that begins at a time, in UTC."""
    return lambda text: Day(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())
