"""``Cache-Control`` as text and as what a client wishes (RFC 9111, section 5.2)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

__all__ = ["NO_WISHES", "Wishes", "parse", "seconds", "wishes"]

_ELEMENT = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*+"|")++', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_LONGEST = 2048
#: What stands for every larger number: RFC 9111, section 1.2.2.
_MOST = 2**31


class Wishes(NamedTuple):
    """What a client asks of a cache; seconds, or None for what it did not say."""

    max_age: int | None = None
    min_fresh: int | None = None
    max_stale: float | None = None
    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False


NO_WISHES = Wishes()


def parse(text: str) -> Iterable[tuple[str, str | None]]:
    """
    The directives of a ``Cache-Control`` header in their order, names in lower case.

    Several header lines are one, joined by commas. White space around names and values is left out,
    quotes around a value are taken off. Never raises, and reads the first 2048 characters.
    """
    text = text[:_LONGEST]
    elements = _ELEMENT.findall(text) if '"' in text else text.split(",")
    for element in elements:
        name, equals, value = element.partition("=")
        if name := name.strip().lower():
            yield name, _unquoted(value.strip()) if equals else None


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] == '"':
        return _ESCAPED.sub(r"\1", value[1:-1])
    return value


def seconds(value: str | None) -> int:
    """*value* as ``delta-seconds`` (RFC 9111, section 1.2.2); 0 when it is none."""
    if value is None or not value.isascii() or not value.isdigit():
        return 0
    value = value.lstrip("0")
    return min(int(value or "0"), _MOST) if len(value) < 12 else _MOST


def wishes(environ: Mapping[str, str]) -> Wishes:
    """
    What the client of the request in *environ* wishes.

    ``Pragma: no-cache`` counts where there is no ``Cache-Control`` (RFC 9111, section 5.4).
    """
    control = environ.get("HTTP_CACHE_CONTROL")
    if control:
        # Cut before it is remembered, lest clients fill the memory with odd headers.
        return _wishes(control[:_LONGEST])
    pragma = environ.get("HTTP_PRAGMA")
    return _wishes(_only_no_cache(pragma[:_LONGEST])) if pragma else NO_WISHES


def _only_no_cache(pragma: str) -> str:
    return "no-cache" if any(name == "no-cache" for name, _ in parse(pragma)) else ""


@lru_cache(maxsize=512)
def _wishes(control: str) -> Wishes:
    values: dict[str, list[str | None]] = {}
    for name, value in parse(control):
        values.setdefault(name, []).append(value)
    found = Wishes(
        max_age=min(map(seconds, values["max-age"])) if "max-age" in values else None,
        min_fresh=max(map(seconds, values["min-fresh"])) if "min-fresh" in values else None,
        max_stale=min(map(_staleness, values["max-stale"])) if "max-stale" in values else None,
        no_cache="no-cache" in values,
        no_store="no-store" in values,
        only_if_cached="only-if-cached" in values,
    )
    return NO_WISHES if found == NO_WISHES else found


def _staleness(value: str | None) -> float:
    return math.inf if value is None else seconds(value)  # without a number: however stale it is
