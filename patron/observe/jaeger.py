"""
Sampled spans through jaeger-client: its samplers, its tracer and its spans, with a sender of our own.

The package is imported with the first trace that can be sampled, since it brings a web framework
along: a service that samples nothing and is asked for nothing does not pay for it.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping
from typing import Any

from patron.observe import log
from patron.observe.lines import text
from patron.observe.propagation import TraceContext
from patron.observe.sender import SpanSender
from patron.observe.trace import TraceSettings

__all__ = ["JaegerBackend"]


class JaegerSpan:
    """A span of jaeger-client, as `patron.observe.trace.LiveSpan`."""

    __slots__ = ("_span",)

    def __init__(self, span: Any) -> None:
        self._span = span

    def tag(self, key: str, value: Any) -> None:
        """Set one tag."""
        self._span.set_tag(key, value)

    def rename(self, name: str) -> None:
        """Set the operation's name."""
        self._span.set_operation_name(name)

    def error(self, error: BaseException) -> None:
        """Set the tag ``error`` and log what went wrong, by OpenTracing's conventions."""
        self._span.set_tag("error", True)
        message = text(error)[1:-1]
        self._span.log_kv({"event": "error", "error.kind": type(error).__qualname__, "message": message})

    def finish(self, seconds: float) -> None:
        """End the span and queue it."""
        self._span.finish(self._span.start_time + seconds)


class JaegerBackend:
    """Samples as *settings* say, and sends what is sampled as *service* to the agent."""

    def __init__(self, service: str, settings: TraceSettings) -> None:
        self._service = service
        self._settings = settings
        self.never = settings.sampler_type != "ratelimiting" and settings.sampler_param == 0
        self._sender = SpanSender(settings.agent_host, settings.agent_port, settings.queue)
        self._lock = threading.Lock()  # guards the making of the tracer
        self._made: Any = None
        self._warned = False
        if not self.never:
            self._try_package()

    def sample(self, context: TraceContext, name: str) -> Mapping[str, Any] | None:
        """Whether the new trace of *context* is sampled: the sampler's tags, or None."""
        if self.never:
            return None
        sampled, tags = self._tracer().sampler.is_sampled(context.trace_id, name)
        return tags if sampled else None

    def begin(self, context: TraceContext, name: str, tags: Mapping[str, Any]) -> JaegerSpan | None:
        """A span that began now; None when the package turns out to be broken."""
        try:
            from jaeger_client import Span, SpanContext
        except ImportError as error:
            self._give_up(error)
            return None
        ids = SpanContext(context.trace_id, context.span_id, context.parent_id, context.flags)
        return JaegerSpan(Span(ids, self._tracer(), name, dict(tags)))

    def close(self, timeout: float) -> None:
        """Send what is queued, within *timeout* seconds, and end the thread."""
        self._sender.close(timeout)

    def _try_package(self) -> None:
        try:
            self._tracer()
        except ImportError as error:
            self._give_up(error)

    def _give_up(self, error: ImportError) -> None:
        """Sample nothing any more: an installed package that does not import must not stop the service."""
        self.never = True
        if not self._warned:
            self._warned = True
            log.warn("no spans are sent", error=error, advice='pip install "patron[jaeger]"')

    def _tracer(self) -> Any:
        if self._made is None:
            with self._lock:
                self._made = self._made or self._make()
        return self._made

    def _make(self) -> Any:
        from jaeger_client import Tracer

        tags = {"ip": _own_address(self._settings), "hostname": socket.gethostname(), "pid": os.getpid()}
        return Tracer(self._service, self._sender, _sampler(self._settings), tags=tags)


def _sampler(settings: TraceSettings) -> Any:
    from jaeger_client import ConstSampler, ProbabilisticSampler, RateLimitingSampler

    if settings.sampler_type == "const":
        return ConstSampler(bool(settings.sampler_param))
    if settings.sampler_type == "ratelimiting":
        return RateLimitingSampler(settings.sampler_param)
    return ProbabilisticSampler(settings.sampler_param)


def _own_address(settings: TraceSettings) -> str:
    """The address that datagrams leave from; asking for it sends nothing."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((settings.agent_host, settings.agent_port))
            return str(probe.getsockname()[0])
    except OSError:
        return "127.0.0.1"
