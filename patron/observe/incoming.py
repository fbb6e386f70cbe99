"""
What the headers of a message say about who asked, found fast and read only when somebody wants to know.

Most messages are processed without anybody asking for their correlation id or their trace. So the raw
values are picked out of the headers, and what they mean is found out later, or never.
"""

from __future__ import annotations

from collections.abc import Mapping

from patron import correlation
from patron.observe import propagation, trace
from patron.observe.propagation import TraceContext

__all__ = ["NOTHING", "Raw", "parent_of", "pick"]

Raw = tuple["str | None", "str | None", "str | None"]
"""The values of the correlation header, ``uber-trace-id`` and ``traceparent``."""

NOTHING: Raw = (None, None, None)

_most_known = 256
_unsampled = frozenset("02468aceACE")

# The headers of a topic have the same names in every message: under which of them the three are.
_known: dict[tuple[str, ...], Raw] = {}
_known_for: correlation.CorrelationSettings | None = None


def pick(headers: Mapping[str, str]) -> Raw | None:
    """
    The raw values in *headers*; None when they must be read at once.

    That is so when their trace may be sampled, or when the settings ask for more than these three.

    Raises:
        Exception: *headers* are no headers.
    """
    names = tuple(headers)
    places = _known.get(names) if correlation.settings() is _known_for else None
    if places is None:
        places = _find(names)
        if places is None:
            return None
    identifier, jaeger, w3c = places
    raw = (
        headers[identifier] if identifier is not None else None,
        headers[jaeger] if jaeger is not None else None,
        headers[w3c] if w3c is not None else None,
    )
    return None if trace.backend is not None and _may_be_sampled(raw[1], raw[2]) else raw


def parent_of(raw: Raw, headers: Mapping[str, str]) -> TraceContext | None:
    """The trace that *raw* names, and what else of *headers* belongs to it."""
    named = {"uber-trace-id": raw[1], "traceparent": raw[2]}
    found = propagation.extract(
        {name: value for name, value in named.items() if value is not None}, trace.w3c_first
    )
    if found is not None:
        found.carried = propagation.Carried(headers)
    return found


def _may_be_sampled(jaeger: str | None, w3c: str | None) -> bool:
    """
    Whether the trace could be sampled: False is certain, True is to be found out.

    Both formats end with the flags, whose lowest bit says it. What is malformed counts as not sampled
    when it ends like that.
    """
    if jaeger is None:
        return not trace.starts_none if w3c is None else w3c[-1:] not in _unsampled
    return jaeger[-1:] not in _unsampled or not (w3c is None or w3c[-1:] in _unsampled)


def _find(names: tuple[str, ...]) -> Raw | None:
    global _known_for
    settings = correlation.settings()
    if settings.extract is not None or settings.forward:
        return None
    if settings is not _known_for or len(_known) >= _most_known:
        _known.clear()
        _known_for = settings
    lowered = {name.lower(): name for name in names}
    wanted = (settings.header.lower(), "uber-trace-id", "traceparent")
    identifier, jaeger, w3c = (lowered.get(name) for name in wanted)
    places = _known[names] = (identifier, jaeger, w3c)
    return places
