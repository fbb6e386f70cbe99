"""Log lines as JSON objects, with the same keys for everyone."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, Protocol

from patron import correlation
from patron.observe.lines import RESERVED, encode, printable, text, timestamp
from patron.observe.sink import FileSink

__all__ = ["JsonLines", "LineWriter", "Lines", "json_factory"]

_fixed = frozenset(("lvl", "time", "src", "msg", "srv", "ver", "host", "correlationID", "cut"))
_smallest = 64


class Lines(Protocol):
    """A format: it makes the bytes of one line."""

    def render(self, level: str, event: str, src: str, nanoseconds: int, fields: Mapping[str, Any]) -> bytes:
        """The line, with its line feed; never raises."""
        ...


class LineWriter:
    """Renders each event and writes it at once, so that what a killed process said can be read."""

    __slots__ = ("_lines", "_sink")

    def __init__(self, lines: Lines, sink: FileSink) -> None:
        self._lines = lines
        self._sink = sink

    def __call__(self, level: str, event: str, src: str, fields: Mapping[str, Any]) -> None:
        """Write one line."""
        self._sink(self._lines.render(level, event, src, time.time_ns(), fields))


class JsonLines:
    """
    JSON lines with *fixed* fields.

    Args:
        limit: the longest line in bytes; of a longer one the long values are cut in the middle, and
            it says ``"cut":true``.
    """

    def __init__(self, fixed: Mapping[str, Any], limit: int | None = None) -> None:
        self._fixed = dict(fixed)
        self._static = _members(self._fixed)
        self._taken = RESERVED | self._fixed.keys()
        self._limit = limit

    def render(self, level: str, event: str, src: str, nanoseconds: int, fields: Mapping[str, Any]) -> bytes:
        """The line, with its line feed; never raises."""
        static = self._static
        if fields and not self._taken.isdisjoint(fields):
            fields = {_free(name): value for name, value in fields.items()}
            static = _members({name: value for name, value in self._fixed.items() if name not in fields})
        line = (
            f'{{"lvl":"{level}","time":"{timestamp(nanoseconds)}","src":{text(src)},"msg":{text(event)}'
            f"{static}{self._correlation()}{_members(fields)}}}\n"
        ).encode("ascii")
        return line if self._limit is None or len(line) <= self._limit else _cut(line, self._limit)

    def _correlation(self) -> str:
        identifier = correlation.current()
        if identifier is None:
            return ""
        if correlation.context_filter is None and not correlation.forwarded_variable.get():
            return f',"correlationID":{text(identifier)}'
        return _members(correlation.shown())


def json_factory(fields: Mapping[str, Any]) -> LineWriter:
    """JSON lines with *fields* on standard error."""
    sink = FileSink()
    return LineWriter(JsonLines(fields, sink.limit), sink)


def _members(fields: Mapping[str, Any]) -> str:
    """*fields* as they stand inside of an object, after a comma."""
    return "," + encode(fields)[1:-1] if fields else ""


def _free(name: str) -> str:
    return f"{name}_" if name in RESERVED else name


def _cut(line: bytes, limit: int) -> bytes:
    """*line* in at most *limit* bytes: its longest values lose their middle, else fields go."""
    record: dict[str, Any] = {**printable(json.loads(line)), "cut": True}
    while True:
        shorter = json.dumps(record, separators=(",", ":")) + "\n"
        if len(shorter) <= limit:
            return shorter.encode("ascii")
        _shorten(record, len(shorter) - limit)


def _shorten(record: dict[str, Any], excess: int) -> None:
    sizes = {
        name: len(json.dumps(value)) for name, value in record.items() if name not in ("lvl", "time", "cut")
    }
    longest = max(sizes, key=sizes.__getitem__)
    if sizes[longest] <= _smallest:
        _drop_half(record)
        return
    value = record[longest] if isinstance(record[longest], str) else json.dumps(record[longest])
    kept = max(len(value) * max(sizes[longest] - excess - _smallest, 0) // sizes[longest], _smallest // 4)
    record[longest] = (
        f"{value[: kept // 3]}...[cut {len(value) - kept}]...{value[len(value) - (kept - kept // 3) :]}"
    )


def _drop_half(record: dict[str, Any]) -> None:
    others = [name for name in record if name not in _fixed]
    for name in others[len(others) // 2 :]:
        del record[name]
