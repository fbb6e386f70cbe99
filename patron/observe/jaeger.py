"""Sampled spans, sent to a Jaeger agent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from patron.observe.propagation import TraceContext
from patron.observe.trace import LiveSpan, TraceSettings


class JaegerBackend:
    """Sends nothing yet."""

    def __init__(self, service: str, settings: TraceSettings) -> None:
        pass

    def sample(self, context: TraceContext, name: str) -> Mapping[str, Any] | None:
        """Sample nothing."""
        return None

    def begin(self, context: TraceContext, name: str, tags: Mapping[str, Any]) -> LiveSpan | None:
        """No span."""
        return None

    def close(self, timeout: float) -> None:
        """Nothing to close."""
