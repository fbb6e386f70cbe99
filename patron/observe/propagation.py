"""The context of a trace, and the two header formats that carry it: Jaeger's and W3C's."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator, Mapping
from itertools import islice

__all__ = [
    "SAMPLED",
    "Carried",
    "TraceContext",
    "child_of",
    "extract",
    "inject_jaeger",
    "inject_w3c",
    "new_root",
]

SAMPLED = 0x01

_jaeger = re.compile(
    r"([0-9a-fA-F]{1,32}):([0-9a-fA-F]{1,16}):([0-9a-fA-F]{1,16}):([0-9a-fA-F]{1,2})"
).fullmatch
# https://www.w3.org/TR/trace-context/#traceparent-header: lower case only; versions above 00 may be longer.
_w3c = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL).fullmatch
_token = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,128}").fullmatch
_printable = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,1022}[\x21-\x7e])?").fullmatch
_baggage_prefix = "uberctx-"
_most_carried = 32

# A generator of our own: a service that seeds the global one must not get equal ids in all workers.
_random = random.Random()  # noqa: S311 - ids, not secrets
_bits = _random.getrandbits
os.register_at_fork(after_in_child=_random.seed)


class Carried:
    """Headers that belong to the trace and go on unchanged; looked for only when something goes out."""

    __slots__ = ("_found", "_headers")

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers
        self._found: Mapping[str, str] | None = None

    def headers(self) -> Mapping[str, str]:
        """Jaeger's baggage, ``tracestate`` and ``baggage``, by lower-case name; only printable values."""
        found = self._found
        if found is None:
            found = self._found = dict(islice(self._search(), _most_carried))
            self._headers = {}
        return found

    def _search(self) -> Iterator[tuple[str, str]]:
        headers = self._headers
        for name in headers:
            lower = name.lower()
            if (lower.startswith(_baggage_prefix) or lower in ("tracestate", "baggage")) and _token(lower):
                value = headers[name]
                if isinstance(value, str) and _printable(value):
                    yield lower, value


class TraceContext:
    """
    Where in which trace we are: ids as integers, *flags* with bit 0 for "sampled".

    *carried* holds what else of the incoming headers belongs to the trace.
    """

    __slots__ = ("carried", "flags", "parent_id", "span_id", "trace_id")

    def __init__(
        self, trace_id: int, span_id: int, parent_id: int, flags: int, carried: Carried | None = None
    ) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.parent_id = parent_id
        self.flags = flags
        self.carried = carried

    def __repr__(self) -> str:
        return f"TraceContext({self.trace_id:x}:{self.span_id:x}:{self.parent_id:x}:{self.flags:x})"


def new_root() -> TraceContext:
    """The context of a new trace, not sampled yet."""
    return TraceContext(_bits(64) or 1, _bits(64) or 1, 0, 0)


def child_of(parent: TraceContext) -> TraceContext:
    """A new context in the trace of *parent*, with its decision about sampling."""
    return TraceContext(parent.trace_id, _bits(64) or 1, parent.span_id, parent.flags, parent.carried)


def extract(headers: Mapping[str, str], w3c_first: bool = False) -> TraceContext | None:
    """
    The context that *headers* carry in either format; None when there is none or it is malformed.

    They are looked up by lower-case names: `patron.correlation.lowered` makes that right.
    """
    if w3c_first:
        return _from_w3c(headers) or _from_jaeger(headers)
    return _from_jaeger(headers) or _from_w3c(headers)


def inject_jaeger(context: TraceContext, headers: dict[str, str]) -> None:
    """
    Write ``uber-trace-id``: ``trace:span:parent:flags`` in hexadecimal, filled up with zeros.

    Receivers must take shorter ids, too (https://www.jaegertracing.io/sdk-migration/#propagation-format), but
    not all do (https://github.com/open-telemetry/opentelemetry-go-contrib/pull/2731).
    """
    digits = 16 if context.trace_id < 1 << 64 else 32
    headers["uber-trace-id"] = (
        f"{context.trace_id:0{digits}x}:{context.span_id:016x}:{context.parent_id:016x}:{context.flags:x}"
    )


def inject_w3c(context: TraceContext, headers: dict[str, str]) -> None:
    """Write ``traceparent``; a trace id of 64 bits is filled up with zeros, as Jaeger reads it."""
    headers["traceparent"] = (
        f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.flags & SAMPLED:02x}"
    )


def _from_jaeger(headers: Mapping[str, str]) -> TraceContext | None:
    value = headers.get("uber-trace-id")
    if not value:
        return None
    # Some clients escape the colons (https://www.jaegertracing.io/sdk-migration/#propagation-format).
    match = _jaeger(value) or _jaeger(value.replace("%3A", ":").replace("%3a", ":"))
    if match is None:
        return None
    trace, span, parent, flags = match.groups()
    trace_id, span_id = int(trace, 16), int(span, 16)
    if not (trace_id and span_id):
        return None
    return TraceContext(trace_id, span_id, int(parent, 16), int(flags, 16), Carried(headers))


def _from_w3c(headers: Mapping[str, str]) -> TraceContext | None:
    value = headers.get("traceparent")
    match = _w3c(value) if value else None
    if match is None or match[1] == "ff" or (match[1] == "00" and match[5]):
        return None
    trace_id, span_id, flags = int(match[2], 16), int(match[3], 16), int(match[4], 16) & SAMPLED
    return TraceContext(trace_id, span_id, 0, flags, Carried(headers)) if trace_id and span_id else None
