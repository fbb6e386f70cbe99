"""Which representation to answer with: ``Accept`` against what there is (RFC 9110, section 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

__all__ = ["Range", "choose", "parse"]

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110's token
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_ELEMENT = re.compile(rf'(?:[^,"]|{_QUOTED})+')
_RANGE = re.compile(
    rf"[ \t]*({_TOKEN})/({_TOKEN})((?:[ \t]*;[ \t]*(?:{_TOKEN}=(?:{_TOKEN}|{_QUOTED}))?)*)[ \t]*"
)
_PARAMETER = re.compile(rf";[ \t]*({_TOKEN})=({_TOKEN}|{_QUOTED})")
_QUALITY = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")
_LONGEST = 2048


class Range(NamedTuple):
    """One media range of an ``Accept`` header; *charset* is the only parameter that is looked at."""

    type: str
    subtype: str
    quality: float
    charset: str | None = None

    def precision(self, type: str, subtype: str) -> int:
        """How precisely it names the media type: 3 exactly, 2 ``type/*``, 1 ``*/*``, 0 not at all."""
        if self.charset not in (None, "utf-8", "utf8", "us-ascii"):
            return 0
        if self.type == type:
            return 3 if self.subtype == subtype else 2 if self.subtype == "*" else 0
        return 1 if self.type == "*" and self.subtype == "*" else 0


def parse(accept: str) -> tuple[Range, ...]:
    """
    The media ranges of an ``Accept`` header, in its order; what is none is left out.

    Never raises, in time linear to the length; what is beyond 2048 characters is not read.
    """
    return tuple(filter(None, map(_range, _ELEMENT.findall(accept[:_LONGEST]))))


def _range(element: str) -> Range | None:
    found = _RANGE.fullmatch(element)
    if found is None:
        return None
    quality, charset = 1.0, None
    for name, value in _PARAMETER.findall(found[3]):
        if name.lower() == "q":
            if not _QUALITY.fullmatch(value):
                return None
            quality = float(value)
        elif name.lower() == "charset":
            charset = value.strip('"').lower()
    return Range(found[1].lower(), found[2].lower(), quality, charset)


def choose(accept: str | None, offers: tuple[str, ...]) -> str | None:
    """
    The one of *offers* that the client likes best, None when it accepts none of them.

    Between equally liked ones the more precisely named one wins, then the one that stands first in
    the header, then the one offered first. Without a (readable) header everything is acceptable.
    """
    # Cut before it is remembered, lest clients fill the memory with odd headers.
    return _choose(accept[:_LONGEST] if accept else "", offers)


@lru_cache(maxsize=512)
def _choose(accept: str, offers: tuple[str, ...]) -> str | None:
    ranges = parse(accept)
    if not ranges:
        return offers[0] if offers else None
    ranked = [(*_rank(offer, ranges), -index) for index, offer in enumerate(offers)]
    best = max(ranked, default=(0.0,))
    return offers[-int(best[-1])] if best[0] > 0 else None


def _rank(offer: str, ranges: Sequence[Range]) -> tuple[float, int, int]:
    """Quality, precision and (negative) place of the range that is most precise about *offer*."""
    type, _, subtype = offer.partition(";")[0].strip().lower().partition("/")
    matches = [(range.precision(type, subtype), -place, range.quality) for place, range in enumerate(ranges)]
    precision, place, quality = max(matches)
    return (quality, precision, place) if precision else (0.0, 0, 0)
