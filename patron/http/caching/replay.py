"""How an entry is answered: whole, without its body, or as a 304 (RFC 9110, section 13)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from patron.http.caching.capture import Answer
from patron.http.caching.entry import Entry
from patron.http.conditions import date, not_modified

__all__ = ["replay"]

_NOT_MODIFIED = "304 Not Modified"


def replay(entry: Entry, environ: Mapping[str, Any], age: float, warnings: tuple[str, ...] = ()) -> Answer:
    """
    The answer that *entry* is to the request in *environ*.

    A ``Range`` is not looked at, as RFC 9110 (section 14.2) allows: the answer is the whole.
    """
    if _is_known(entry, environ):
        status, headers, body = _NOT_MODIFIED, entry.bodiless, b""
    else:
        status, headers, body = entry.status, entry.headers, entry.body
    headers = [*headers, ("Age", str(int(age)))]
    if warnings:
        headers.append(("Warning", ", ".join(warnings)))
    return Answer(status, headers, [body] if body and environ["REQUEST_METHOD"] != "HEAD" else [])


def _is_known(entry: Entry, environ: Mapping[str, Any]) -> bool:
    """Whether the client has it already; most clients do not say, and no hit waits for more than these two looks."""
    if "HTTP_IF_NONE_MATCH" not in environ and "HTTP_IF_MODIFIED_SINCE" not in environ:
        return False
    return not_modified(environ, entry.etag, date(entry.modified))
