"""Which letters of a partition were handled in any order: an offset, and a few words beside it in the commit."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["LONGEST", "Shelf", "decode", "encode"]

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


class Shelf:
    """
    One partition: everything before *base* was handled, and of the rest what is in *handled*.

    *shown* are the offsets that were given out and not handled, *next* is where reading goes on, *end*
    where the partition ended when it was opened.
    """

    def __init__(self, base: int, handled: set[int], end: int) -> None:
        self.base = self.next = base
        self.handled = handled
        self.end = end
        self.shown: set[int] = set()

    def merge(self, base: int, handled: set[int]) -> None:
        """Another reader committed this meanwhile."""
        self.base = max(self.base, base)
        self.handled |= handled

    def handle(self, offsets: set[int]) -> tuple[int, set[int]]:
        """The base and the handled ones beyond it, with *offsets* handled, too."""
        left = self.shown - offsets
        handled = self.handled | offsets
        base = max(self.base, min(left, default=self.next))
        return base, {offset for offset in handled if offset >= base}

    def waiting(self) -> int:
        """How many letters there are, as far as offsets tell."""
        return len(self.shown) + max(0, self.end - self.next - sum(at >= self.next for at in self.handled))
