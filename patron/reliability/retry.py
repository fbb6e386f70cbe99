"""Retries: how often, how long apart, and for how long altogether."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from patron.errors import ConfigError, RetriesExhausted

__all__ = ["RetryPolicy", "Waits", "retry"]

T = TypeVar("T")


class Waits(Protocol):
    """A stop signal: `patron.component.Stop` and `threading.Event` are ones."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait at most *timeout* seconds; True as soon as the end was asked for."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """
    How often to try, and how long to wait in between. Durations are seconds.

    The wait before try n + 1 is at most ``initial * multiplier ** (n - 1)``, and at most *cap*; with
    ``jitter="full"`` it is drawn evenly between 0 and that, so that those who failed together do not
    come back together (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).

    Args:
        attempts: tries altogether, the first one included; at least 1.
        initial: the longest wait before the second try.
        cap: the longest wait at all.
        multiplier: how fast the waits grow; at least 1.
        jitter: ``"full"`` or ``"none"``.
        budget: no further try begins when it would begin later than this after the first; None: no limit.
    """

    attempts: int = 3
    initial: float = 0.1
    cap: float = 5.0
    multiplier: float = 2.0
    jitter: Literal["full", "none"] = "full"
    budget: float | None = None

    def __post_init__(self) -> None:
        problems = [text for wrong, text in self._checks() if wrong]
        if problems:
            raise ConfigError(*problems)

    def _checks(self) -> list[tuple[bool, str]]:
        return [
            (self.attempts < 1, f"retry attempts is {self.attempts}: use at least 1, which means no retry"),
            (not self.initial >= 0, f"retry initial is {self.initial} s: use 0 or more"),
            (not self.cap >= 0, f"retry cap is {self.cap} s: use 0 or more"),
            (not self.multiplier >= 1, f"retry multiplier is {self.multiplier}: use at least 1"),
            (self.jitter not in ("full", "none"), f"retry jitter is {self.jitter!r}: use 'full' or 'none'"),
            (
                self.budget is not None and not self.budget > 0,
                f"retry budget is {self.budget} s: use more than 0, or none",
            ),
        ]

    def ceiling(self, failures: int) -> float:
        """The longest wait after *failures* failures (1 or more)."""
        try:
            return float(min(self.cap, self.initial * self.multiplier ** (failures - 1)))
        except OverflowError:
            return self.cap

    def delay(self, failures: int, uniform: Callable[[float, float], float] = random.uniform) -> float:
        """The wait after *failures* failures, jitter applied."""
        ceiling = self.ceiling(failures)
        return uniform(0.0, ceiling) if self.jitter == "full" else ceiling

    def exhausted(self, failures: int, elapsed: float = 0.0) -> bool:
        """Whether there is no further try after *failures* failures, *elapsed* seconds after the first try."""
        return failures >= self.attempts or (self.budget is not None and elapsed >= self.budget)

    def delays(self) -> Iterator[float]:
        """The waits between the tries; one fewer than there are attempts."""
        return (self.delay(failures) for failures in range(1, self.attempts))


def retry(
    policy: RetryPolicy,
    function: Callable[[], T],
    *,
    stop: Waits | None = None,
    on: type[Exception] | tuple[type[Exception], ...] = Exception,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """
    The result of *function*, tried as *policy* says while it raises one of *on*.

    Never waits after the last try; *stop* ends a wait, and with it the retries, at once.

    Raises:
        RetriesExhausted: from the last error, when all tries failed or the stop came in between.
        Exception: whatever *function* raises that is not one of *on*, at once.
    """
    stop = threading.Event() if stop is None else stop
    started = clock()
    failures = 0
    while True:
        try:
            return function()
        except on as error:
            failures += 1
            wait = policy.delay(failures)
            if policy.exhausted(failures, clock() - started + wait) or stop.wait(wait):
                raise RetriesExhausted(
                    f"gave up after {failures} of {policy.attempts} attempts: {error}"
                ) from error
