"""What every thread does now."""

from __future__ import annotations

import linecache
import threading
import time
from collections.abc import Iterator

from patron.profiling.model import Kind, Profile, Stack
from patron.profiling.report import one_line
from patron.profiling.stacks import Stacks, current

__all__ = ["dump", "snapshot"]


def snapshot() -> Profile:
    """One sample for each thread that runs Python."""
    profile = Profile(
        (Kind("threads", "count"),), time.time_ns(), period_kind=Kind("threads", "count"), period=1
    )
    known = {thread.ident: thread for thread in threading.enumerate()}
    for ident, stack in current(Stacks()).items():
        thread = known.get(ident)
        name = thread.name if thread else "not started by threading"
        daemon = {"daemon": "yes"} if thread and thread.daemon else {}
        profile.add(stack, [1], thread=name, ident=str(ident), **daemon)
    return profile


def dump(profile: Profile) -> Iterator[str]:
    """*profile*, made by `snapshot`, as text with the lines of the source."""
    yield f"{len(profile.samples)} threads\n"
    yield from (f"{one_line(reason)}\n" for reason in profile.missing)
    for stack, pairs in profile.samples:
        labels = dict(pairs)
        worker = f" worker {labels['worker']}" if "worker" in labels else ""
        daemon = " (daemon)" if "daemon" in labels else ""
        yield f"\nthread {labels['ident']} {labels['thread']}{daemon}{worker}\n"
        yield from _calls(stack)


def _calls(stack: Stack) -> Iterator[str]:
    """As a traceback shows them: the innermost call last."""
    for frame in reversed(stack):
        yield f'  File "{frame.file}", line {frame.line}, in {frame.function}\n'
        if source := linecache.getline(frame.file, frame.line).strip():
            yield f"    {source}\n"
