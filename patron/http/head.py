"""What may stand in the head of a request or an answer; found out before a server has taken half of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from patron.errors import BadRequest

__all__ = ["by_name", "check_host", "content_length", "is_header", "status_code"]

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # a token: RFC 9110, section 5.6.2
_VALUE = r"[\t\x20-\x7e\x80-\xff]*"  # section 5.5; WSGI has the bytes as latin-1
_NAME = re.compile(_WORD).fullmatch
_TEXT = re.compile(_VALUE).fullmatch
_STATUS = re.compile(f"([1-9][0-9][0-9])(?: {_VALUE})?").fullmatch
# RFC 3986, section 3.2.2, without the comma: servers join the values of several Host headers with one.
_HOST = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?").fullmatch

# What was found good, bounded because clients and applications may make up more. Any thread adds to them.
_known: set[str] = set()
_hosts: set[str] = set()


def check_host(environ: Mapping[str, Any]) -> None:
    """Refuse a request whose ``Host`` is missing or none, as RFC 9112 (section 3.2) wants. Raises `BadRequest`."""
    host = environ.get("HTTP_HOST")
    if host in _hosts:
        return
    if host is None:
        if environ.get("SERVER_PROTOCOL") == "HTTP/1.1":
            raise BadRequest({"error": "the Host header is missing"})
    elif not _HOST(host):
        raise BadRequest({"error": "the Host header is no host"})
    elif len(_hosts) < 100 and len(host) < 100:
        _hosts.add(host)


def status_code(line: str) -> int:
    """The number in *line*, such as ``200 OK``. Raises `ValueError` when it is no status line."""
    match = _STATUS(line)
    if match is None:
        raise ValueError(f"{line!r} is no status line: use one such as '200 OK'")
    return int(match[1])


def content_length(headers: Iterable[tuple[str, str]]) -> int | None:
    """
    Check *headers*; returns what ``Content-Length`` says, None when it is not there.

    Raises:
        ValueError: a header that cannot be sent, or two lengths.
    """
    length = None
    for name, value in headers:
        # What nearly every header is, without an expression: this is on the way of every answer.
        if name not in _known or type(value) is not str or not (value.isascii() and value.isprintable()):
            _check(name, value)
        if len(name) == 14 and name.lower() == "content-length":
            if length is not None or not value.isdecimal() or len(value) > 18:
                raise ValueError(f"Content-Length is {value!r}: use one header with one number")
            length = int(value)
    return length


def _check(name: Any, value: Any) -> None:
    if not is_header(name, value):
        # The name only: the value may be a secret.
        raise ValueError(
            f"header {name!r} cannot be sent: use a token and a latin-1 string without line ends"
        )
    if len(_known) < 1000:
        _known.add(name)


def is_header(name: Any, value: Any) -> bool:
    """Whether *name* and *value* can stand in a head."""
    return isinstance(name, str) and isinstance(value, str) and bool(_NAME(name) and _TEXT(value))


def by_name(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The values by their names in lower case; several lines of one name are one, joined by commas (section 5.2)."""
    values: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        values[key] = f"{values[key]}, {value}" if key in values else value
    return values
