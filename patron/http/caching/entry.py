"""What is kept of an answer, and how a store writes it down."""

from __future__ import annotations

import json
import math
import struct
import zlib
from typing import Any

from patron.http import head

__all__ = ["Damaged", "Entry", "Kept", "decoded", "encoded"]

_VERSION = b"PRC2"
_FRAME = struct.Struct(">4sII")  # version, checksum of the rest, bytes of the head

Header = tuple[str, str]


class Damaged(ValueError):
    """The bytes in the store are no entry of ours."""


class Entry:
    """
    An answer as it is served again, all headers but ``Age`` and ``Warning`` included; all threads share it.

    Args:
        status: as in WSGI, ``200 OK``.
        headers: in the order in which they are sent.
        body: the whole of it.
        born: when it was made, in seconds since the epoch.
        lifetime: seconds for which it is fresh.
        window: seconds behind these in which it is still kept.
        etag: with its quotes.
        mark: the one that its path had in the store when its run began; empty for none.
    """

    __slots__ = (
        "bodiless",
        "body",
        "born",
        "etag",
        "headers",
        "lifetime",
        "mark",
        "modified",
        "status",
        "window",
    )

    def __init__(
        self,
        status: str,
        headers: list[Header],
        body: bytes,
        *,
        born: float,
        lifetime: float,
        window: float,
        etag: str,
        modified: str | None = None,
        mark: str = "",
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.born = born
        self.lifetime = lifetime
        self.window = window
        self.etag = etag
        self.modified = modified
        self.mark = mark
        # RFC 9110, section 15.4.5: a 304 says nothing about a body that it has not.
        self.bodiless = [header for header in headers if not _describes_body(header[0].lower())]


def _describes_body(name: str) -> bool:
    return (name.startswith("content-") and name != "content-location") or name == "last-modified"


class Kept(bytes):
    """An encoded entry that has the decoded one beside it: a store in memory gives both back."""

    entry: Entry


def encoded(entry: Entry) -> Kept:
    """*entry* as bytes."""
    top = json.dumps(
        [
            entry.status,
            entry.headers,
            entry.born,
            entry.lifetime,
            entry.window,
            entry.etag,
            entry.modified,
            entry.mark,
            len(entry.body),
        ]
    ).encode()
    rest = top + entry.body
    kept = Kept(_FRAME.pack(_VERSION, zlib.crc32(rest), len(top)) + rest)
    kept.entry = entry
    return kept


def decoded(data: bytes) -> Entry:
    """
    The entry that *data* is.

    Raises:
        Damaged: it is none, or one of another version.
    """
    if type(data) is Kept:
        return data.entry
    try:
        return _decoded(bytes(data))
    except (ValueError, TypeError, struct.error, RecursionError) as error:
        raise Damaged("no entry of this version") from error


def _decoded(data: bytes) -> Entry:
    version, checksum, length = _FRAME.unpack_from(data)
    rest = data[_FRAME.size :]
    if version != _VERSION or zlib.crc32(rest) != checksum:
        raise Damaged("another version, or not all of it")
    status, headers, born, lifetime, window, etag, modified, mark, size = json.loads(rest[:length])
    body = rest[length:]
    if len(body) != size:
        raise Damaged("not all of the body")
    headers = [(_text(name), _text(value)) for name, value in headers]
    _check_sendable(_text(status), headers, size)
    return Entry(
        status,
        headers,
        body,
        born=_number(born),
        lifetime=_number(lifetime),
        window=_number(window),
        etag=_text(etag),
        modified=None if modified is None else _text(modified),
        mark=_text(mark),
    )


def _check_sendable(status: str, headers: list[Header], size: int) -> None:
    """A store can be written by others: what cannot be sent would be an error of every request until it expires."""
    if not 200 <= head.status_code(status) < 300 or head.content_length(headers) not in (None, size):
        raise Damaged("no answer that is kept")


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise Damaged("no number")
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Damaged("no text")
    return value
