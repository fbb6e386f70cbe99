"""What a subscription has read past: messages of lanes that it could not take when it saw them."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

__all__ = ["Passed"]

_REMEMBERED = 1000  # ids of one lane; beyond, the rest is read again when its turn comes


class _Lane:
    """The ids of one lane in order; *last* is the largest that was ever here, *more*: others follow it."""

    __slots__ = ("ids", "last", "more")

    def __init__(self) -> None:
        self.ids: deque[int] = deque()
        self.last = 0
        self.more = False


class Passed:
    """
    Lanes that were passed by, each with the ids that are to come first when it is free.

    A message must not be taken while an earlier one of its lane stands here. The memory is bounded
    for each lane, and there are only as many lanes as were taken by others or full of own messages.
    """

    def __init__(self) -> None:
        self._lanes: OrderedDict[str, _Lane] = OrderedDict()

    def __contains__(self, key: str) -> bool:
        return key in self._lanes

    def __len__(self) -> int:
        return len(self._lanes)

    def add(self, key: str, id_: int) -> None:
        """Pass by *id_*, which is larger than all ids of its lane before."""
        lane = self._lanes.setdefault(key, _Lane())
        if lane.more or len(lane.ids) >= _REMEMBERED:
            lane.more = True
        else:
            lane.ids.append(id_)
            lane.last = id_

    def some(self, count: int) -> list[str]:
        """At most *count* lanes, others each time."""
        keys = list(islice(self._lanes, count))
        if len(keys) < len(self._lanes):
            for key in keys:
                self._lanes.move_to_end(key)
        return keys

    def take(self, key: str, count: int, read: Callable[[str, int, int], Sequence[int]]) -> list[int]:
        """
        The first ids of lane *key*, at most *count*, which are no longer here then.

        *read(key, after, count)* reads ids of the lane from the file.
        """
        lane = self._lanes[key]
        if not lane.ids and lane.more:
            self._refill(key, lane, read)
        taken = [lane.ids.popleft() for _ in range(min(count, len(lane.ids)))]
        if not lane.ids and not lane.more:
            del self._lanes[key]
        return taken

    def back(self, key: str, ids: Iterable[int]) -> None:
        """Put *ids*, which `take` gave or which are new, before all others of their lane."""
        lane = self._lanes.setdefault(key, _Lane())
        lane.ids.extendleft(sorted(ids, reverse=True))
        if lane.ids:
            lane.last = max(lane.last, lane.ids[-1])

    def _refill(self, key: str, lane: _Lane, read: Callable[[str, int, int], Sequence[int]]) -> None:
        ids = read(key, lane.last, _REMEMBERED)
        lane.ids.extend(ids)
        lane.more = len(ids) == _REMEMBERED
        lane.last = ids[-1] if ids else lane.last
