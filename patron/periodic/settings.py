"""The settings of a periodic component, checked when they are made."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from patron.errors import ConfigError
from patron.periodic.schedule import Cron, Every, Schedule
from patron.reliability.retry import RetryPolicy

__all__ = ["OnExhausted", "PeriodicSettings"]

OnExhausted = Literal["skip", "exit"]
"""What happens when a run is out of tries."""

_SHORTEST, _LONGEST = 0.001, 366 * 86400.0


@dataclass(frozen=True, kw_only=True)
class PeriodicSettings:
    """
    What is called, when, and what happens when it fails. Durations are seconds.

    Args:
        name: unique among the components; a label of its metrics.
        function: called at each tick, with the resources that its parameters name.
        every: seconds between two ticks; give this or *cron*.
        cron: cron expression with five fields, or six with the seconds first; needs the extra ``cron``.
        timezone: the time zone of *cron*, by its name in the tz database.
        one_worker: only one worker process of the run calls it; else each of them does.
        run_at_start: the first tick is at the start.
        retry: how often a run is tried, and how far apart.
        on_exhausted: after the last try: ``skip`` (wait for the next tick) or ``exit`` (end the service).
        deadline: what the clients that are called see as the time left, all tries of a run together; None: no limit.
    """

    name: str
    function: Callable[..., Any]
    every: float | None = None
    cron: str | None = None
    timezone: str = "UTC"
    one_worker: bool = False
    run_at_start: bool = False
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    on_exhausted: OnExhausted = "skip"
    deadline: float | None = None

    def __post_init__(self) -> None:
        problems = [*self._problems()]
        if problems:
            raise ConfigError(*problems)

    def schedule(self, clock: Callable[[], float], now: Callable[[], float]) -> Schedule:
        """When it is due, by the monotonic *clock* and the time of day *now*."""
        if self.every is not None:
            return Every(self.every, clock)
        assert self.cron is not None, "checked when it was made"
        return Cron(self.cron, self.timezone, now, clock)

    def _problems(self) -> Iterator[str]:
        yield from (text for wrong, text in self._checks() if wrong)
        if isinstance(self.cron, str):
            yield from self._cron_problems(self.cron)

    def _checks(self) -> list[tuple[bool, str]]:
        return [
            (
                not isinstance(self.name, str) or not self.name.strip(),
                "name is empty: it names its thread and metrics",
            ),
            (not callable(self.function), f"function is {self.function!r}: use a function"),
            ((self.every is None) == (self.cron is None), f"give every or cron, {self._given()}"),
            (
                not _is_span(self.every, _SHORTEST),
                f"every is {self.every!r} s: use {_SHORTEST} s to 366 days",
            ),
            (self.cron is not None and not isinstance(self.cron, str), f"cron is {self.cron!r}: use text"),
            (
                self.timezone != "UTC" and self.cron is None,
                f"timezone is {self.timezone!r}: it is for cron, and every has none",
            ),
            (not isinstance(self.retry, RetryPolicy), f"retry is {self.retry!r}: use a RetryPolicy"),
            (
                self.on_exhausted not in ("skip", "exit"),
                f"on_exhausted is {self.on_exhausted!r}: use 'skip' or 'exit'",
            ),
            (not _is_span(self.deadline, 0.0), f"deadline is {self.deadline!r} s: use more than 0, or none"),
        ]

    def _given(self) -> str:
        return "one of the two: there is neither" if self.every is None else "not both"

    def _cron_problems(self, cron: str) -> Iterator[str]:
        try:
            Cron(cron, self.timezone, time.time, time.monotonic)
        except ConfigError as error:
            yield from error.problems


def _is_span(value: object, least: float) -> bool:
    """Whether *value* is None, or a number of seconds above 0, from *least* to a year."""
    if value is None:
        return True
    return isinstance(value, (int, float)) and least <= value <= _LONGEST and value > 0
