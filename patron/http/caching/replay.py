"""How an entry is answered: whole, without its body, or as a 304 (RFC 9110, section 13)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from patron.http.caching.capture import Answer
from patron.http.caching.entry import Entry

__all__ = ["not_modified", "replay"]

_NOT_MODIFIED = "304 Not Modified"
_TAG = re.compile(r'(?:W/)?("[^"]*")')


def replay(entry: Entry, environ: Mapping[str, Any], age: float, warnings: tuple[str, ...] = ()) -> Answer:
    """
    The answer that *entry* is to the request in *environ*.

    A ``Range`` is not looked at, as RFC 9110 (section 14.2) allows: the answer is the whole.
    """
    if not_modified(environ, entry):
        status, headers, body = _NOT_MODIFIED, entry.bodiless, b""
    else:
        status, headers, body = entry.status, entry.headers, entry.body
    headers = [*headers, ("Age", str(int(age)))]
    if warnings:
        headers.append(("Warning", ", ".join(warnings)))
    return Answer(status, headers, [body] if body and environ["REQUEST_METHOD"] != "HEAD" else [])


def not_modified(environ: Mapping[str, Any], entry: Entry) -> bool:
    """Whether the client has it already. ``If-Modified-Since`` counts only without ``If-None-Match``."""
    tags = environ.get("HTTP_IF_NONE_MATCH")
    if tags is not None:
        return _has(tags, entry.etag)
    since = environ.get("HTTP_IF_MODIFIED_SINCE")
    return since is not None and entry.modified is not None and _is_not_after(entry.modified, since)


def _has(tags: str, etag: str) -> bool:
    """Whether *etag* is among *tags*, compared weakly, as ``If-None-Match`` wants it (section 13.1.2)."""
    return tags == etag or tags.strip() == "*" or etag.removeprefix("W/") in _TAG.findall(tags)


def _is_not_after(modified: str, since: str) -> bool:
    if modified == since:
        return True
    try:
        return parsedate_to_datetime(modified) <= parsedate_to_datetime(since)
    except (ValueError, TypeError, OverflowError):
        return False
