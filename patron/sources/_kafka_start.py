"""Where a group begins that has committed nothing: the setting ``start`` as a point in a partition."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final, Literal

__all__ = ["NEWEST", "OLDEST", "point", "problem"]

OLDEST: Final = "oldest"
NEWEST: Final = "newest"

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = r"\d{1,12}(?:\.\d{1,9})?(?:ms|[smhd])"
_AGO = re.compile(rf"((?:{_PART})+)(?:\s+ago)?")


def point(start: str | float, now: float) -> Literal["oldest", "newest"] | int:
    """
    ``oldest``, ``newest``, or milliseconds since the epoch; *now* is in seconds.

    >>> point("1m30s ago", 100.0), point(90.0, 100.0), point("1970-01-01T00:00:10Z", 100.0)
    (10000, 10000, 10000)
    """
    if start == OLDEST:
        return OLDEST
    if start == NEWEST:
        return NEWEST
    seconds = _ago(start)
    moment = _moment(str(start)) if seconds is None else now - seconds
    return max(0, round(moment * 1000))


def problem(start: object) -> str | None:
    """What is wrong with *start*, or None."""
    if start in (OLDEST, NEWEST):
        return None
    if not isinstance(start, str | int | float):
        return f"start {start!r} is no text and no number of seconds"
    seconds = _ago(start)
    if seconds is not None:
        return f"start {start!r} is in the future" if seconds < 0 else None
    try:
        _moment(str(start))
    except ValueError as error:
        return f"start {start!r} is not oldest, newest, a time or a duration: {error}"
    return None


def _ago(start: str | float) -> float | None:
    if not isinstance(start, str):
        return float(start)
    match = _AGO.fullmatch(start.strip())
    if match is None:
        return None
    parts = re.findall(r"([\d.]+)(ms|[smhd])", match[1])
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _moment(text: str) -> float:
    moment = datetime.fromisoformat(text.strip())
    if moment.tzinfo is None:
        raise ValueError("a time needs its zone, as in 2026-01-31T12:00:00Z")
    return moment.timestamp()
