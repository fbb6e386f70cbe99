"""The settings of a route's cache, checked completely when they are built."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from patron.cache.spec import store_problems
from patron.errors import ConfigError
from patron.http.head import is_header

__all__ = ["RouteCache"]

_LONGEST = 10 * 365 * 86400.0


@dataclass(frozen=True, slots=True)
class RouteCache:
    """
    How long answers of a route are kept, and for whom. With *max* 0 nothing is.

    Args:
        max: seconds that an answer may be served again.
        min: seconds in which clients get it even when they ask for a newer one; it protects the processor.
        stale_if_error: seconds beyond *max* in which it is still there for when the processor fails.
        vary: request headers that the answer depends on, besides ``Accept``.
        store: ``memory``, a URL such as ``redis://host:6379/0``, or the name of a resource that is a store.
        size: entries of a store in memory, in each worker process.
        max_bytes: bytes of a store in memory, in each worker process.
        max_body: bytes of a body that is kept; a larger one is answered, and not kept.
        wait: seconds that a request waits for another one's answer before it runs the processor itself.
        invalidate: whether a ``PUT``, ``POST``, ``PATCH`` or ``DELETE`` that succeeds hides what is kept for its path.
    """

    max: float
    min: float = 0.0
    stale_if_error: float = 0.0
    vary: tuple[str, ...] = ()
    store: str = field(default="memory", repr=False)  # a URL may have a password in it
    size: int = 1024
    max_bytes: int = 64 * 1024 * 1024
    max_body: int = 1024 * 1024
    wait: float = 30.0
    invalidate: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "vary", _names(self.vary))
        if problems := [f"cache: {problem}" for problem in _problems(self)]:
            raise ConfigError(*problems)

    @property
    def enabled(self) -> bool:
        """Whether anything is kept at all."""
        return self.max > 0

    @property
    def outlived(self) -> float:
        """Seconds after which nothing is there any more of what is kept now, or by a run that goes on for 10 min."""
        return self.max + self.stale_if_error + 600.0


def _names(vary: Any) -> tuple[str, ...]:
    return (vary,) if isinstance(vary, str) else tuple(vary)


def _problems(settings: Any) -> Iterable[str]:
    durations = ("max", "min", "stale_if_error", "wait")
    wrong = [name for name in durations if not _is_duration(getattr(settings, name))]
    for name in wrong:
        yield f"{name} is {getattr(settings, name)!r}: use seconds, 0 or more"
    if not {"max", "min"} & set(wrong) and settings.min > settings.max:
        yield f"min is {settings.min:g} and max {settings.max:g}: use a min that is not above max"
    for name in ("size", "max_bytes", "max_body"):
        value = getattr(settings, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            yield f"{name} is {value!r}: use a whole number above 0"
    if not isinstance(settings.invalidate, bool):
        yield f"invalidate is {settings.invalidate!r}: use true or false"
    for name in settings.vary:
        if name == "*" or not is_header(name, ""):
            yield f"vary has {name!r}: use names of request headers"
    yield from store_problems(settings.store)


def _is_duration(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and 0 <= value <= _LONGEST
