"""Which content coding to answer with: ``Accept-Encoding`` against what there is (RFC 9110, section 12.5.3)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

__all__ = ["Wish", "wish"]

_ELEMENT = re.compile(
    r"[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*(?:;[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*)?"
)
#: A header that is longer than any client's is not read: what was cut from its end could be a refusal.
_LONGEST = 1024


class Wish(NamedTuple):
    """
    What a client wants of an answer.

    *coding* is the one of the offers that it likes better than no coding, None when there is none;
    *identity* tells whether an answer without a coding is acceptable.
    """

    coding: str | None
    identity: bool


_ANYTHING = Wish(None, True)


def wish(header: str | None, offers: tuple[str, ...]) -> Wish:
    """
    What the value of ``Accept-Encoding`` asks for; between equally liked *offers* the first one wins.

    Elements that are none are left out. Without a header nothing is coded: whoever can decode says so.
    Never raises, in time linear to the length; a header of more than 1024 characters counts as absent.
    """
    if header is None or len(header) > _LONGEST:
        return _ANYTHING
    return _wish(header, offers)


@lru_cache(maxsize=512)
def _wish(header: str, offers: tuple[str, ...]) -> Wish:
    weights = _weights(header)
    others = weights.get("*", 0.0)
    best = max(offers, key=lambda offer: weights.get(offer, others))
    quality = weights.get(best, others)
    # Not listed at all, identity is acceptable, but nobody asked for it.
    identity = weights.get("identity", weights.get("*"))
    if quality > 0 and quality >= (identity or 0.0):
        return Wish(best, identity != 0)
    return Wish(None, identity != 0)


def _weights(header: str) -> Mapping[str, float]:
    """Coding → weight, in small letters; of a coding that is listed twice the smaller one, for it may be a refusal."""
    weights: dict[str, float] = {}
    for element in header.split(","):
        if found := _ELEMENT.fullmatch(element):
            name = found[1].lower().removeprefix("x-")  # x-gzip: RFC 9110, section 8.4.1.3
            weight = float(found[2] or 1)
            weights[name] = min(weight, weights.get(name, weight))
    return weights
