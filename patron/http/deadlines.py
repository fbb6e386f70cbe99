"""Until when a request must be answered: what the client will wait, clamped to what the route allows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from patron.reliability.deadline import HEADER, Deadline

__all__ = ["ARRIVED", "VARIABLE", "deadline_of"]

ARRIVED = "patron.arrived"
"""Where the WSGI environment says when the head was complete, in monotonic seconds; our worker puts it there."""
VARIABLE = "HTTP_" + HEADER.upper().replace("-", "_")
"""What the WSGI environment calls the header."""

# As in gRPC, whose time-outs have at most eight digits: 27 hours here. More is a client's "for ever".
_MOST_DIGITS = 8
_MOST: int = 10**_MOST_DIGITS - 1


def deadline_of(environ: Mapping[str, Any], limit: float | None, now: float) -> Deadline | None:
    """
    The deadline of the request in *environ*, which may take *limit* seconds; None: it has none.

    It counts from the arrival of the request, or from *now* (monotonic seconds) when the server did not
    note that. What the header says is ignored unless it is a whole number of milliseconds.
    """
    asked = _asked(environ.get(VARIABLE))
    seconds = asked if limit is None else min(limit, asked)
    return None if seconds == math.inf else Deadline(environ.get(ARRIVED, now) + seconds)


def _asked(text: str | None) -> float:
    """Seconds that the client waits."""
    text = (text or "").strip()
    if not text.isascii() or not text.isdigit():
        return math.inf
    digits = text.lstrip("0")[: _MOST_DIGITS + 1]
    milliseconds = min(int(digits or "0"), _MOST)
    return milliseconds / 1000
