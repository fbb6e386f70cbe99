"""The bodies of answers in the log, for the statuses that are chosen: their first 2 kB, and only text."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

from patron.observe import log

__all__ = ["LIMIT", "log_body"]

LIMIT = 2048
"""Bytes of a body that are kept for the log."""

_TEXT = re.compile(r"text/|application/([\w.+-]*\+)?(json|xml|javascript|x-www-form-urlencoded|yaml|toml)\b")
_CHARSET = re.compile(r'charset\s*=\s*"?([\w.:-]+)', re.ASCII)


def log_body(status: int, names: Mapping[str, Any], headers: Iterable[tuple[str, str]], data: bytes) -> None:
    """Log what *data*, the first bytes of an answer with *headers*, says; nothing when it is no text."""
    text = _text({name.lower(): value.lower() for name, value in headers}, data)
    if text:
        write = log.error if status >= 500 else log.warn if status >= 400 else log.info
        write("response body", **names, status=status, body=text)


def _text(headers: Mapping[str, str], data: bytes) -> str:
    kind = headers.get("content-type", "")
    if not _TEXT.match(kind.strip()):
        return ""
    charset = _CHARSET.search(kind)
    plain = _unpacked(headers.get("content-encoding", ""), data)
    try:
        return plain.decode(charset[1] if charset else "utf-8", "replace")
    except LookupError:  # a charset that nobody knows
        return plain.decode("latin-1")


def _unpacked(coding: str, data: bytes) -> bytes:
    """The beginning of *data* without its ``Content-Encoding``; nothing when that is not to be had."""
    if coding in ("", "identity"):
        return data[:LIMIT]
    try:
        # 32: a header of gzip or zlib, whichever there is.
        return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(data, LIMIT)
    except zlib.error:
        return b""
