"""One log line as JSON: fast for plain values, and never lost because of the others."""

from __future__ import annotations

import json
import math
import re
import time
import traceback
from collections.abc import Callable, Mapping
from json.encoder import encode_basestring_ascii as quote
from typing import Any

__all__ = ["RESERVED", "encode", "printable", "quote", "text", "timestamp", "traceback_text"]

RESERVED = frozenset(("lvl", "time", "src", "msg", "srv", "ver", "host", "correlationID"))
"""The keys that every line has; a field called like one of them gets a ``_`` at its end."""

# Half of a surrogate pair, which strict readers refuse.
_lone_surrogate = re.compile(r"\\ud[89ab][0-9a-f]{2}(?!\\ud[c-f])|(?<!\\ud[89ab][0-9a-f]{2})\\ud[c-f]").search
_deepest = 8
_most_items = 1000
_most_bits = 4096
_longest_key = 200
_second: tuple[int, str] = (0, "")


def timestamp(nanoseconds: int) -> str:
    """RFC 3339 in UTC with microseconds."""
    global _second
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    known, text = _second
    if known != seconds:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        _second = (seconds, text)
    return f"{text}.{rest // 1000:06d}Z"


def encode(fields: Mapping[str, Any]) -> str:
    """*fields* as a JSON object, on one line of ASCII. Never raises, whatever the values are."""
    try:
        text: str = "".join(_fast(fields, 0))
    except Exception:  # noqa: BLE001 - whatever a value does when it is looked at, the line must not be lost
        return _slow(fields)
    if "\\ud" in text and _lone_surrogate(text):
        return _slow(fields)
    return text


def text(value: Any) -> str:
    """*value* as a JSON string, quotes included. Never raises."""
    quoted: str = quote(value if type(value) is str else str(_default(value)))
    return quote(_text(value)) if "\\ud" in quoted and _lone_surrogate(quoted) else quoted


def printable(value: Any, depth: int = 0) -> Any:
    """*value* in what JSON can hold: cycles end, odd keys become text, what cannot be shown says so."""
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is str:
        return _text(value)
    if kind is int:
        return value if value.bit_length() <= _most_bits else f"<integer of {value.bit_length()} bits>"
    if kind is float:
        return value if math.isfinite(value) else repr(value)
    if depth >= _deepest:
        return "..."
    if isinstance(value, Mapping):
        return _safely(lambda: {_key(k): printable(v, depth + 1) for k, v in _some(value.items())})
    if isinstance(value, (list, tuple, set, frozenset)):
        return _safely(lambda: [printable(item, depth + 1) for item in _some(value)])
    return _default(value)


def traceback_text(error: BaseException) -> str:
    """The traceback of *error* with its causes and, for a group, all its members."""
    try:
        return "".join(traceback.format_exception(error)).rstrip()
    except Exception:  # noqa: BLE001 - the error's own text raises; its type and place are still worth a line
        frames = "".join(traceback.format_tb(error.__traceback__))
        return f"Traceback (most recent call last):\n{frames}{type(error).__qualname__}: <its text raises>"


def _slow(fields: Mapping[str, Any]) -> str:
    return json.dumps(printable(fields), separators=(",", ":"))


def _default(value: Any) -> Any:
    """What stands for an object that JSON does not know."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8", "backslashreplace")
    if isinstance(value, (set, frozenset)):
        return list(value)
    if isinstance(value, BaseException):
        return _safely(lambda: _text(f"{type(value).__qualname__}: {value}"))
    return _safely(lambda: _text(str(value)))


def _safely(make: Callable[[], Any]) -> Any:
    try:
        return make()
    except Exception as error:  # noqa: BLE001 - user code runs in `str`
        return f"<unprintable: {type(error).__qualname__}>"


def _text(value: str) -> str:
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _key(key: Any) -> str:
    return _text(key if type(key) is str else str(_default(key)))[:_longest_key]


def _some(items: Any) -> Any:
    return [item for item, _ in zip(items, range(_most_items), strict=False)]


def _make_fast() -> Callable[[Any, int], Any]:
    """The C encoder of `json`, bound once; `json.dumps` would make one for each call."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # an interpreter without the C module
        plain = json.JSONEncoder(allow_nan=False, default=_default, separators=(",", ":"))
        return lambda value, _: (plain.encode(value),)
    return make(None, _default, quote, None, ":", ",", False, False, False)  # type: ignore[no-any-return]


_fast = _make_fast()
