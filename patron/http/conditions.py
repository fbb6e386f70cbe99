"""Conditional requests and ranges of one representation (RFC 9110, sections 13 and 14)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from werkzeug.http import parse_date, parse_etags

__all__ = ["date", "not_modified", "part", "precondition"]

_ONE = re.compile(r"([0-9]{0,18})-([0-9]{0,18})")
_TAG = re.compile(r'(?:W/)?("[^"]*")')
_LONGEST = 4096


def precondition(environ: Mapping[str, Any], etag: str, modified: int | None) -> int | None:
    """
    The status that the conditions of a GET or HEAD ask for: 304, 412, or None for the whole answer.

    *etag* is quoted and strong, *modified* in seconds since the epoch. In the order of section 13.2.2;
    what cannot be read counts as absent.
    """
    tag = etag.strip('"')
    if (required := _header(environ, "HTTP_IF_MATCH")) is not None:
        if not parse_etags(required).contains(tag):
            return 412
    elif modified is not None and modified > _seconds(environ, "HTTP_IF_UNMODIFIED_SINCE", math.inf):
        return 412
    return 304 if not_modified(environ, etag, modified) else None


def not_modified(environ: Mapping[str, Any], etag: str, modified: float | None) -> bool:
    """
    Whether the client has it already. *etag* is quoted, strong or weak, *modified* in seconds since the epoch.

    ``If-Modified-Since`` counts only without ``If-None-Match``, which is compared weakly (section 13.1.2).
    """
    if (known := _header(environ, "HTTP_IF_NONE_MATCH")) is not None:
        return known.strip() == "*" or etag.removeprefix("W/") in _TAG.findall(known)
    return modified is not None and modified <= _seconds(environ, "HTTP_IF_MODIFIED_SINCE", -math.inf)


def part(environ: Mapping[str, Any], size: int, etag: str, modified: int | None) -> range | None:
    """
    The bytes that a GET asks for; None is all of them, as for several ranges and for what is none.

    Of an empty range there is nothing: the answer is a 416.
    """
    header = _header(environ, "HTTP_RANGE")
    if header is None or not _is_still(environ, etag, modified):
        return None
    unit, _, ranges = header.partition("=")
    if unit.strip().lower() != "bytes":
        return None
    asked = [text.strip(" \t") for text in ranges.split(",") if text.strip(" \t")]
    found = _ONE.fullmatch(asked[0]) if len(asked) == 1 else None
    return _resolved(found[1], found[2], size) if found is not None else None


def _resolved(first: str, last: str, size: int) -> range | None:
    if not first:
        return range(max(size - int(last), 0), size) if last else None
    if last and int(last) < int(first):
        return None
    return range(int(first), min(int(last) + 1, size) if last else size)


def _is_still(environ: Mapping[str, Any], etag: str, modified: int | None) -> bool:
    """Whether ``If-Range`` names this very representation; only strong validators do (section 13.1.5)."""
    condition = environ.get("HTTP_IF_RANGE")
    if condition is None or condition.strip() == etag:
        return True
    return modified is not None and modified == _seconds(environ, "HTTP_IF_RANGE", math.inf)


def _header(environ: Mapping[str, Any], key: str) -> str | None:
    """A header of a length that makes sense."""
    value: str | None = environ.get(key)
    return value if value is not None and len(value) <= _LONGEST else None


def _seconds(environ: Mapping[str, Any], key: str, otherwise: float) -> float:
    """A date in seconds since the epoch."""
    found = date(_header(environ, key))
    return found if found is not None else otherwise


def date(text: str | None) -> float | None:
    """An HTTP date in seconds since the epoch; None for what is none."""
    with suppress(OverflowError, ValueError):
        found = parse_date(text)
        return found.timestamp() if found is not None else None
    return None
