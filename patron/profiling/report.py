"""Profiles as text: tables to read, and folded stacks for the tools that draw flame graphs."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator

from patron.profiling.model import Frame, Profile, Stack

__all__ = ["collapsed", "one_line", "readable", "text"]

_FUNCTIONS, _STACKS, _DEEP = 40, 10, 30


def text(profile: Profile) -> Iterator[str]:
    """The functions that count most, and the stacks."""
    total = profile.total()
    kind = profile.kinds[-1]
    seconds = f" in {profile.duration / 1e9:.2f} s" if profile.duration else ""
    yield f"{kind.type}: {readable(total, kind.unit)}{seconds}{_samples(profile)}\n"
    yield f"taken {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime(profile.start / 1e9))}\n"
    yield from (f"{one_line(comment)}\n" for comment in profile.comments)
    yield from _functions_table(profile, total)
    yield from _stacks_table(profile, total)


def _samples(profile: Profile) -> str:
    if len(profile.kinds) < 2:
        return ""
    return f", {sum(values[0] for values in profile.samples.values())} {profile.kinds[0].type}"


def _functions_table(profile: Profile, total: int) -> Iterator[str]:
    unit = profile.kinds[-1].unit
    flat, cumulated = _by_function(profile)
    ranked = sorted(cumulated, key=lambda key: (-flat[key], -cumulated[key]))
    yield "\n      flat   flat%    sum%        cum    cum%  function\n"
    so_far = 0
    for function, file in ranked[:_FUNCTIONS]:
        own, all_in = flat[function, file], cumulated[function, file]
        so_far += own
        numbers = f"{readable(own, unit):>10} {_percent(own, total)} {_percent(so_far, total)}"
        numbers += f" {readable(all_in, unit):>10} {_percent(all_in, total)}"
        yield f"{numbers}  {one_line(function)}  {one_line(file)}\n"
    if len(ranked) > _FUNCTIONS:
        yield f"... and {len(ranked) - _FUNCTIONS} more functions\n"


def _by_function(profile: Profile) -> tuple[dict[tuple[str, str], int], dict[tuple[str, str], int]]:
    """What each function counts for itself, and with all that it calls."""
    flat: dict[tuple[str, str], int] = defaultdict(int)
    cumulated: dict[tuple[str, str], int] = defaultdict(int)
    for (stack, _), values in profile.samples.items():
        for function in {frame[:2] for frame in stack}:  # once, however deep it calls itself
            cumulated[function] += values[-1]
        if stack:
            flat[stack[0][:2]] += values[-1]
    return flat, cumulated


def _stacks_table(profile: Profile, total: int) -> Iterator[str]:
    merged: dict[Stack, int] = defaultdict(int)
    for (stack, _), values in profile.samples.items():
        merged[stack] += values[-1]
    ranked = sorted(merged.items(), key=lambda item: -item[1])
    yield f"\nThe {min(_STACKS, len(ranked))} stacks that count most, the innermost call first:\n"
    for stack, value in ranked[:_STACKS]:
        yield f"\n{readable(value, profile.kinds[-1].unit):>10} {_percent(value, total)}\n"
        yield from (f"             {_place(frame)}\n" for frame in stack[:_DEEP])
        if len(stack) > _DEEP:
            yield f"             ... {len(stack) - _DEEP} more\n"


def _place(frame: Frame) -> str:
    where = f"  {one_line(frame.file)}:{frame.line}" if frame.file else ""
    return f"{one_line(frame.function)}{where}"


def collapsed(profile: Profile) -> Iterator[str]:
    """One line for each stack: thread and calls, the outermost first, with semicolons between, and its value."""
    merged: dict[str, int] = defaultdict(int)
    for (stack, labels), values in profile.samples.items():
        thread = dict(labels).get("thread")
        names = [frame.function for frame in reversed(stack)]
        merged[";".join(map(_part, [thread, *names] if thread else names))] += values[-1]
    yield from (f"{names} {value}\n" for names, value in merged.items() if value)


def _part(name: str) -> str:
    return one_line(name).replace(";", ",") or "?"


def one_line(name: str) -> str:
    """*name* without what would break a line, or hide in it."""
    return name if name.isprintable() else "".join(c if c.isprintable() else "�" for c in name)


def _percent(value: int, total: int) -> str:
    return f"{100 * value / total if total else 0:6.2f}%"


def readable(value: int, unit: str) -> str:
    """*value* in the largest *unit* that keeps it above 1."""
    scale = _SCALES.get(unit)
    if scale is None:
        return str(value)
    factor, name = next((pair for pair in scale if value >= pair[0]), scale[-1])
    return f"{value / factor:.2f} {name}" if factor > 1 else f"{value} {name}"


_SCALES = {
    "nanoseconds": ((10**9, "s"), (10**6, "ms"), (10**3, "us"), (1, "ns")),
    "bytes": ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B")),
}
