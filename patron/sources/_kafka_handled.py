"""Which letters of a partition were handled in any order: an offset, and a few words beside it in the commit."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["LONGEST", "decode", "encode"]

LONGEST = 4096
"""Bytes that a broker stores with an offset (``offset.metadata.max.bytes``), unless it is told otherwise."""

_PREFIX = "patron1:"


def encode(base: int, handled: Iterable[int]) -> str:
    """
    The offsets *handled* above *base*, as runs of offsets from it; "" when there are none.

    >>> encode(100, [103, 101, 102, 200])
    'patron1:1-3,100'
    """
    runs: list[list[int]] = []
    for offset in sorted(offset - base for offset in handled if offset >= base):
        if runs and offset <= runs[-1][1] + 1:
            runs[-1][1] = offset
        else:
            runs.append([offset, offset])
    text = ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
    return _PREFIX + text if text else ""


def decode(base: int, metadata: str | None) -> set[int]:
    """
    The offsets that `encode` wrote; nothing for what somebody else committed.

    >>> sorted(decode(100, "patron1:1-3,100"))
    [101, 102, 103, 200]
    """
    if not metadata or not metadata.startswith(_PREFIX):
        return set()
    handled: set[int] = set()
    for run in metadata.removeprefix(_PREFIX).split(","):
        first, _, last = run.partition("-")
        handled.update(range(base + int(first), base + int(last or first) + 1))
    return handled
