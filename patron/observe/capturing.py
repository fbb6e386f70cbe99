"""Collecting what was observed, so that a test can assert on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from patron.observe import trace
from patron.observe.propagation import TraceContext

__all__ = ["Capture", "CapturedOperation", "CapturedSpan", "capture"]


@dataclass(frozen=True, slots=True)
class CapturedOperation:
    """An operation that ended."""

    kind: str
    system: str
    target: str
    name: str
    correlation_id: str
    outcome: str
    count: int
    seconds: float
    error: BaseException | None
    context: TraceContext


@dataclass(slots=True)
class CapturedSpan:
    """A sampled span; *seconds* is None until it ends."""

    name: str
    context: TraceContext
    tags: dict[str, Any]
    failure: BaseException | None = None
    seconds: float | None = None

    def tag(self, key: str, value: Any) -> None:
        """Set one tag."""
        self.tags[key] = value

    def rename(self, name: str) -> None:
        """Give it another name."""
        self.name = name

    def error(self, error: BaseException) -> None:
        """Note on the span what went wrong."""
        self.tags["error"] = True
        self.failure = error

    def finish(self, seconds: float) -> None:
        """End the span."""
        self.seconds = seconds


@dataclass(slots=True)
class Capture:
    """
    What ended, in order: operations, spans, and log lines as the dictionaries that they were encoded from.

    Lists only grow, and appending is atomic, so every thread may be captured.
    """

    operations: list[CapturedOperation] = field(default_factory=list)
    spans: list[CapturedSpan] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)

    def sample(self, context: TraceContext, name: str) -> Mapping[str, Any]:
        """Sample every trace."""
        return {}

    def begin(self, context: TraceContext, name: str, tags: Mapping[str, Any]) -> CapturedSpan:
        """A span that is kept here."""
        span = CapturedSpan(name, context, dict(tags))
        self.spans.append(span)
        return span

    def close(self, timeout: float) -> None:
        """Keep everything."""


active: Capture | None = None


@contextlib.contextmanager
def capture() -> Iterator[Capture]:
    """
    Collect the operations, spans and log lines of all threads inside the block.

    Every trace is sampled meanwhile, and its spans stay here. One capture at a time.
    """
    global active
    outer, active = active, Capture()
    before = trace.use_backend(active)
    try:
        yield active
    finally:
        trace.use_backend(before)
        active = outer
