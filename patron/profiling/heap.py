"""What holds the memory: blocks that are in use, by where they were allocated, as tracemalloc knows it."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FunctionType

from patron.errors import Conflict
from patron.profiling.model import Frame, Kind, Profile
from patron.profiling.stacks import frame_of

__all__ = ["HOW_TO_START", "allocated", "in_use"]

HOW_TO_START = (
    "nothing traces allocations in this process: start the service with PYTHONTRACEMALLOC=16 (frames) in its "
    "environment, or ask for /debug/pprof/heap?seconds=30, which traces for so long and shows what was "
    "allocated meanwhile and is still in use\n"
)
_KINDS = (Kind("inuse_objects", "count"), Kind("inuse_space", "bytes"))
Place = tuple[str, int]
Blocks = Mapping[tuple[Place, ...], tuple[int, int]]


def in_use(*, collect: bool = False) -> Profile:
    """
    All blocks in use that were allocated since tracemalloc was started; *collect* runs the garbage collector first.

    Raises:
        Conflict: it was not; the payload tells how to.
    """
    if not tracemalloc.is_tracing():
        raise Conflict(HOW_TO_START)
    profile = _empty()
    if collect:
        gc.collect()
    _fill(profile, _blocks())
    return profile


def allocated(
    seconds: float, frames: int, wait: Callable[[float], bool], *, collect: bool = False
) -> Profile:
    """
    The blocks that were allocated during *seconds* and are still in use then; fewer seconds when *wait* says so.

    Traces with *frames* calls each, unless tracemalloc was started before: then with what it was started with.
    """
    profile = _empty()
    began = time.monotonic_ns()
    mine = not tracemalloc.is_tracing()
    before: Blocks = {}
    if mine:
        tracemalloc.start(frames)
    try:
        before = before if mine else _blocks()
        wait(seconds)
        if collect:
            gc.collect()
        after = _blocks()
    finally:
        if mine:
            tracemalloc.stop()
    profile.duration = time.monotonic_ns() - began
    _fill(profile, _grown(before, after))
    return profile


def _empty() -> Profile:
    return Profile(_KINDS, time.time_ns(), period_kind=Kind("space", "bytes"), period=1)


def _blocks() -> Blocks:
    """
    Where → number of blocks and their bytes.

    What is allocated here is traced as well, which takes ten times as long as all the rest: so the loop makes
    nothing, and neither do sums of a list.
    """
    sizes: dict[tuple[Place, ...], list[int]] = defaultdict(list)
    # The tuples behind snapshot.traces (domain, size, places, the innermost call first): no objects are made of them.
    for trace in tracemalloc.take_snapshot().traces._traces:  # type: ignore[attr-defined]
        sizes[trace[2]].append(trace[1])
    return {places: (len(those), sum(those)) for places, those in sizes.items()}


def _grown(before: Blocks, after: Blocks) -> Blocks:
    """What there is more of than before; what was freed meanwhile is not the question."""
    more = {}
    for places, (count, size) in after.items():
        old_count, old_size = before.get(places, (0, 0))
        if size > old_size:
            more[places] = max(0, count - old_count), size - old_size
    return more


def _fill(profile: Profile, blocks: Blocks) -> None:
    known = _functions({place for places in blocks for place in places})
    for places, values in blocks.items():
        stack = [known.get(place) or Frame("(module level)", *place) for place in places]
        profile.add(stack, values)


def _functions(wanted: set[Place]) -> Mapping[Place, Frame]:
    """Line → the call that it is in: tracemalloc keeps no names, but the functions are still there."""
    files = {file for file, _ in wanted}
    found: dict[Place, Frame] = {}
    by_module: dict[object, list[CodeType]] = defaultdict(list)
    for thing in gc.get_objects():
        if type(thing) is FunctionType and thing.__code__.co_filename in files:
            by_module[thing.__globals__.get("__name__")].append(thing.__code__)
    for module, codes in by_module.items():
        for code in _nested(codes):
            for _, _, line in code.co_lines():
                place = code.co_filename, line or 0
                if place in wanted and (place not in found or found[place].start < code.co_firstlineno):
                    found[place] = frame_of(code, module, line or 0)
    return found


def _nested(codes: list[CodeType]) -> Iterator[CodeType]:
    """*codes* and the functions inside them, each once."""
    left, seen = list(codes), set[int]()
    while left:
        code = left.pop()
        if id(code) not in seen:
            seen.add(id(code))
            left += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
            yield code
