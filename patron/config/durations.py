"""Durations: seconds as a number, or text such as ``500ms``, ``30s`` and ``1m30s``."""

from __future__ import annotations

import re

__all__ = ["DURATION", "seconds"]

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = r"\d{1,12}(?:\.\d{1,9})?(?:ms|[smhd])"
DURATION = re.compile(rf"(?:{_PART})+")


def seconds(text: str) -> float | None:
    """
    The seconds that *text* says, or None when it is no duration.

    >>> seconds("1m30s"), seconds("500ms"), seconds("90"), seconds("soon")
    (90.0, 0.5, None, None)
    """
    if not DURATION.fullmatch(text):
        return None
    parts = re.findall(r"([\d.]+)(ms|[smhd])", text)
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
