"""The properties of a message of AMQP 0-9-1, read as far as they can be (specification, 4.2.6.1 and 4.2.5)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from struct import Struct, error
from typing import Any

__all__ = ["Properties", "text"]

_UNREADABLE = (ValueError, IndexError, error, RecursionError)


class Properties:
    """
    What is used of the properties *encoded*; *problem* says what could not be read.

    The values of *headers* are text, whatever type they had; what is no UTF-8 is written with backslashes.
    """

    __slots__ = ("content_encoding", "content_type", "headers", "message_id", "problem", "timestamp")

    def __init__(self, encoded: bytes) -> None:
        self.headers: dict[str, str] = {}
        self.problem: str | None = None
        try:
            self._read(encoded, "strict")
        except _UNREADABLE as wrong:
            self.problem = f"unreadable header: {wrong}"
            self.headers = {}
            with contextlib.suppress(*_UNREADABLE):
                self._read(encoded, "backslashreplace")

    def _read(self, encoded: bytes, errors: str) -> None:
        self.content_type = self.content_encoding = self.message_id = None
        self.timestamp: int | None = None
        flags, at = encoded[0] << 8 | encoded[1], 2
        if flags & 0x8000:
            self.content_type, at = _short(encoded, at, errors)
        if flags & 0x4000:
            self.content_encoding, at = _short(encoded, at, errors)
        if flags & 0x2000:
            at = self._read_headers(encoded, at, errors)
        if not flags & 0x00C0:  # neither message_id nor timestamp
            return
        at += bool(flags & 0x1000) + bool(flags & 0x0800)  # delivery_mode, priority: one byte each
        for flag in (0x0400, 0x0200, 0x0100):  # correlation_id, reply_to, expiration
            if flags & flag:
                at += encoded[at] + 1
        if flags & 0x0080:
            self.message_id, at = _short(encoded, at, errors)
        if flags & 0x0040:
            self.timestamp = int(_u64(encoded, at)[0])

    def _read_headers(self, encoded: bytes, at: int, errors: str) -> int:
        end: int = at + 4 + _u32(encoded, at)[0]
        at += 4
        headers = self.headers
        try:
            while at < end:
                middle = at + 1 + encoded[at]
                name = encoded[at + 1 : middle].decode("utf-8", errors)
                if encoded[middle] == 83:  # S, which nearly all are
                    start = middle + 5
                    at = start + _u32(encoded, middle + 1)[0]
                    headers[name] = encoded[start:at].decode("utf-8", errors)
                else:
                    value, at = _value(encoded, middle, errors)
                    headers[name] = text(value)
        except _UNREADABLE:
            if errors == "strict":
                raise
        return end


def text(value: Any) -> str:
    """The value of a header as text: JSON for what is no text and no number."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, (bool, dict, list)):
        return json.dumps(value, default=text, ensure_ascii=False)
    return str(value)


def _short(encoded: bytes, at: int, errors: str) -> tuple[str, int]:
    end = at + 1 + encoded[at]
    return encoded[at + 1 : end].decode("utf-8", errors), end


def _value(encoded: bytes, at: int, errors: str) -> tuple[Any, int]:
    """The value whose type stands *at*, and where the next one starts; the types as RabbitMQ has them."""
    kind = encoded[at : at + 1]
    at += 1
    number = _NUMBERS.get(kind)
    if number is not None:
        return number.unpack_from(encoded, at)[0], at + number.size
    special = _SPECIAL.get(kind)
    if special is None:
        raise ValueError(f"type {kind!r} is unknown")
    return special(encoded, at, errors)


def _long(encoded: bytes, at: int, errors: str) -> tuple[str, int]:
    value, end = _bytes(encoded, at, errors)
    return value.decode("utf-8", errors), end


def _bytes(encoded: bytes, at: int, errors: str) -> tuple[bytes, int]:
    end = at + 4 + _u32(encoded, at)[0]
    return encoded[at + 4 : end], end


def _table(encoded: bytes, at: int, errors: str) -> tuple[dict[str, Any], int]:
    end = at + 4 + _u32(encoded, at)[0]
    at += 4
    values = {}
    while at < end:
        name, at = _short(encoded, at, errors)
        values[name], at = _value(encoded, at, errors)
    return values, end


def _array(encoded: bytes, at: int, errors: str) -> tuple[list[Any], int]:
    end = at + 4 + _u32(encoded, at)[0]
    at += 4
    values = []
    while at < end:
        value, at = _value(encoded, at, errors)
        values.append(value)
    return values, end


def _decimal(encoded: bytes, at: int, errors: str) -> tuple[Decimal, int]:
    places, number = _DECIMAL.unpack_from(encoded, at)
    return Decimal(number).scaleb(-places), at + _DECIMAL.size


def _time(encoded: bytes, at: int, errors: str) -> tuple[Any, int]:
    seconds = _u64(encoded, at)[0]
    try:
        return datetime.fromtimestamp(seconds, UTC), at + 8
    except (ValueError, OverflowError, OSError):  # many write milliseconds
        return seconds, at + 8


_u32 = Struct(">L").unpack_from
_u64 = Struct(">Q").unpack_from
_DECIMAL = Struct(">Bl")
_NUMBERS = {
    kind: Struct(form)
    for kind, form in {
        b"t": ">?",
        b"b": ">b",
        b"B": ">B",
        b"U": ">h",
        b"s": ">h",
        b"u": ">H",
        b"I": ">l",
        b"i": ">L",
        b"L": ">q",
        b"l": ">q",
        b"f": ">f",
        b"d": ">d",
    }.items()
}
_SPECIAL: dict[bytes, Callable[[bytes, int, str], tuple[Any, int]]] = {
    b"S": _long,
    b"x": _bytes,
    b"F": _table,
    b"A": _array,
    b"D": _decimal,
    b"T": _time,
    b"V": lambda encoded, at, errors: (None, at),
}
