"""
The one instrumentation: an operation has a span, a correlation id, a timer, a counter and an outcome.

Servers, consumers and clients all go through it; it is on the path of every request and message.
"""

from __future__ import annotations

import contextvars
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from time import monotonic
from types import MappingProxyType, TracebackType
from typing import Any, Literal, TypeVar

from patron import correlation
from patron.errors import ConfigError
from patron.observe import capturing, incoming, metrics, propagation, trace
from patron.observe.metrics import MetricSet
from patron.observe.propagation import SAMPLED, TraceContext

__all__ = ["Instrument", "Kind", "Operation", "current_operation", "operation"]

Kind = Literal["server", "consumer", "client", "producer", "internal"]

T = TypeVar("T")

_current: contextvars.ContextVar[Operation | None] = contextvars.ContextVar("patron_operation", default=None)


class Operation:
    """
    One piece of work that is observed, from `Instrument.start` to `finish`.

    One thread at a time may use it. As a context manager it fails with what leaves the block.
    """

    # Not slots: what most operations never set costs nothing as an attribute of the class.
    outcome = "succeeded"
    error: BaseException | None = None
    started = 0.0
    _identifier: str | None = None
    _context: TraceContext | None = None
    _raw: incoming.Raw = incoming.NOTHING
    _headers: Mapping[str, str] = MappingProxyType({})
    _seconds: float | None = None
    _span: trace.LiveSpan | None = None
    _id_token: contextvars.Token[str | correlation.Identified | None] | None = None
    _forwarded_token: contextvars.Token[Mapping[str, str] | None] | None = None
    _token: contextvars.Token[Operation | None] | None = None

    def __init__(self, instrument: Instrument, count: int) -> None:
        self.instrument = instrument
        self.count = count

    @property
    def correlation_id(self) -> str:
        """The id that it came with, or a new one, which stays the same from the first look on."""
        return self._identifier or self._once("_identifier", correlation.accept(self._raw[0]))

    @property
    def context(self) -> TraceContext:
        """Its place in its trace."""
        return self._context or self._once("_context", self._place())

    @property
    def sampled(self) -> bool:
        """Whether its trace is sampled."""
        return bool(self.context.flags & SAMPLED)

    def tag(self, key: str, value: Any) -> None:
        """Put a tag on the span; costs nothing when the trace is not sampled."""
        if self._span is not None:
            self._span.tag(key, value)

    def become(self, instrument: Instrument) -> None:
        """What it is was found out only now: count it, and name its span, as *instrument* does."""
        self.instrument = instrument
        if self._span is not None:
            self._span.rename(instrument.name)

    def fail(self, error: BaseException) -> None:
        """The work failed with *error*; the outcome becomes ``failed`` unless it was set before."""
        self.error = error
        if self.outcome == "succeeded":
            self.outcome = "failed"
        if self._span is not None:
            self._span.error(error)

    def detach(self) -> None:
        """
        Stop being the current operation of this thread, without ending.

        For work that goes on elsewhere; `use` makes it current again there. May be called twice.
        """
        token, self._token = self._token, None
        if token is None:
            return
        try:
            _current.reset(token)
            if self._id_token is not None:
                correlation.id_variable.reset(self._id_token)
            if self._forwarded_token is not None:
                correlation.forwarded_variable.reset(self._forwarded_token)
        except ValueError:
            pass  # It was made current in another thread, whose context keeps it.

    def resume(self, forwarded: Mapping[str, str] | None = None) -> None:
        """
        Be the current operation of this thread again, until `detach`; also after the end.

        For what an operation leaves behind in its own thread. *forwarded* are the headers that came with it.
        """
        self._id_token = correlation.id_variable.set(self.correlation_id)
        self._forwarded_token = correlation.forwarded_variable.set(forwarded)
        self._token = _current.set(self)

    @contextmanager
    def use(self) -> Iterator[Operation]:
        """Be the current operation of this thread inside the block; for work that was detached."""
        token = _current.set(self)
        try:
            with correlation.use(self.correlation_id, correlation.forwarded()):
                yield self
        finally:
            _current.reset(token)

    def finish(self) -> float:
        """
        End the work: context, metrics and span. Returns its seconds; a second call changes nothing.

        Another thread than the one that started it may call it, but then that one keeps the context.
        """
        if self._seconds is not None:
            return self._seconds
        seconds = self._seconds = monotonic() - self.started
        if self._token is not None:
            self.detach()
        if self.instrument.counts:
            self.instrument.record(self.outcome, self.count, seconds)
        if self._span is not None:
            self._span.finish(seconds)
        if capturing.active is not None:
            capturing.active.operations.append(_captured(self, seconds))
        return seconds

    def _once(self, name: str, value: T) -> T:
        # Work that was handed to another thread may ask at the same moment: the first answer counts.
        kept: T = self.__dict__.setdefault(name, value)
        return kept

    def _place(self) -> TraceContext:
        try:
            parent = incoming.parent_of(self._raw, self._headers)
        except Exception:  # noqa: BLE001 - headers come from outside; no message fails because of them
            parent = None
        return propagation.new_root() if parent is None else propagation.child_of(parent)

    def __enter__(self) -> Operation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self.fail(error)
        self.finish()


class Instrument:
    """
    How one endpoint is observed; made once, shared by all threads.

    Args:
        kind: ``server`` and ``consumer`` take correlation and trace from the headers of what comes in,
            the others from what is being done now.
        system: ``"http"``, ``"kafka"`` ...; the span's tag ``component``.
        target: what is called: route, topic, host.
        name: the span's name; ``"system target"`` without one.
        metrics: what counts it; needs *labels* for all their labels but the outcome.
        tags: further tags of the span.
    """

    def __init__(
        self,
        kind: Kind,
        system: str,
        target: str,
        *,
        name: str | None = None,
        metrics: MetricSet | None = None,
        labels: Mapping[str, str] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        self.kind = kind
        self.system = system
        self.target = target
        self.name = name or f"{system} {target}"
        self._inbound = kind in ("server", "consumer")
        self._lazily = kind == "consumer"
        self.counts = metrics is not None
        self._metrics = metrics
        self._labels = {key: str(value) for key, value in (labels or {}).items()}
        self._tags = dict(tags or {})
        self._bound: dict[str, tuple[Any, Any]] = {}
        self._epoch = -1
        _check_labels(self.name, metrics, self._labels)

    def start(self, headers: Mapping[str, str] | None = None, *, count: int = 1) -> Operation:
        """
        Begin to observe *count* things that are done as one, and make it the current operation.

        *headers* came in with it; the kinds that go out take none. Never raises because of them.
        """
        if self._lazily:
            return self._start_message(headers, count)
        return self._start_inbound(headers, count) if self._inbound else self._start_inside(count)

    def record(self, outcome: str, count: int, seconds: float) -> None:
        """Count *count* things that ended with *outcome* after *seconds*, without an operation."""
        if self._metrics is None:
            return
        if self._epoch != metrics.epoch:
            self._bound = {}
            self._epoch = metrics.epoch
        bound = self._bound.get(outcome)
        if bound is None:
            bound = self._bind(self._metrics, outcome)
        counter, histogram = bound
        if counter is not None:
            counter(count)
        if histogram is not None:
            histogram(seconds)

    def _start_message(self, headers: Mapping[str, str] | None, count: int) -> Operation:
        """As `_start_inbound`, but what *headers* say is read when somebody asks."""
        operation = Operation(self, count)
        if headers:
            try:
                raw = incoming.pick(headers)
            except Exception:  # noqa: BLE001 - headers come from outside; no message fails because of them
                raw = None
            if raw is None:
                return self._start_inbound(headers, count)
            operation._raw = raw
            operation._headers = headers
        elif not trace.starts_none:
            return self._start_inbound(headers, count)
        operation._id_token = correlation.id_variable.set(operation)
        if correlation.forwarded_variable.get():
            operation._forwarded_token = correlation.forwarded_variable.set(None)
        operation._token = _current.set(operation)
        operation.started = monotonic()
        return operation

    def _start_inbound(self, headers: Mapping[str, str] | None, count: int) -> Operation:
        identifier, parent, carried = _read(headers) if headers else (correlation.new_id(), None, None)
        id_token = correlation.id_variable.set(identifier)
        forwarded_token = None
        if carried or correlation.forwarded_variable.get():
            forwarded_token = correlation.forwarded_variable.set(carried)
        operation = self._begin(identifier, parent, count)
        operation._id_token = id_token
        operation._forwarded_token = forwarded_token
        return operation

    def _start_inside(self, count: int) -> Operation:
        outer = _current.get()
        parent = None if outer is None else outer.context
        identifier = correlation.current()
        if identifier is not None:
            return self._begin(identifier, parent, count)
        identifier = correlation.new_id()
        id_token = correlation.id_variable.set(identifier)
        operation = self._begin(identifier, parent, count)
        operation._id_token = id_token
        return operation

    def _begin(self, identifier: str, parent: TraceContext | None, count: int) -> Operation:
        context, sampling = trace.context_for(parent, self.name)
        operation = Operation(self, count)
        operation._identifier = identifier
        operation._context = context
        if context.flags & SAMPLED and trace.backend is not None:
            operation._span = trace.backend.begin(context, self.name, self._span_tags(sampling))
        operation._token = _current.set(operation)
        operation.started = monotonic()
        return operation

    def _span_tags(self, sampling: Mapping[str, Any] | None) -> dict[str, Any]:
        tags: dict[str, Any] = {
            "component": self.system,
            "version": trace.version,
            **correlation.shown(),
        }
        if self.kind != "internal":
            tags["span.kind"] = self.kind
        tags.update(self._tags)
        tags.update(sampling or {})
        return tags

    def _bind(self, chosen: MetricSet, outcome: str) -> tuple[Any, Any]:
        values = {**self._labels, chosen.outcome_label: outcome}
        counter, histogram = (
            None if each is None else each.bind_values(tuple(values[name] for name in each.labels))
            for each in (chosen.counter, chosen.histogram)
        )
        bound = (counter and counter.inc, histogram and histogram.observe)
        self._bound[outcome] = bound
        return bound


def current_operation() -> Operation | None:
    """The innermost operation that this thread works on, or None."""
    return _current.get()


def current_context() -> TraceContext | None:
    """The trace context of the innermost operation, or None."""
    operation = _current.get()
    return None if operation is None else operation.context


def operation(
    kind: Kind, system: str, target: str, headers: Mapping[str, str] | None = None, *, name: str | None = None
) -> Operation:
    """Begin an operation without metrics, whose instrument is made on the fly and remembered."""
    return _instrument(kind, system, target, name).start(headers)


@lru_cache(maxsize=1024)
def _instrument(kind: Kind, system: str, target: str, name: str | None) -> Instrument:
    return Instrument(kind, system, target, name=name)


def _read(headers: Mapping[str, str]) -> tuple[str, TraceContext | None, Mapping[str, str] | None]:
    """Correlation id, trace and forwarded headers of what came in, as far as they make sense."""
    try:
        read = correlation.lowered(headers)
        identifier = correlation.extract(read, headers)
        return identifier, propagation.extract(read, trace.w3c_first), correlation.extract_forwarded(read)
    except Exception:  # noqa: BLE001 - headers come from outside; no request fails because of them
        return correlation.new_id(), None, None


def _check_labels(name: str, chosen: MetricSet | None, labels: Mapping[str, str]) -> None:
    if chosen is None:
        return
    for definition in (chosen.counter, chosen.histogram):
        missing = (
            set(definition.labels) - {*labels, chosen.outcome_label} if definition is not None else set()
        )
        if definition is not None and missing:
            raise ConfigError(
                f"instrument {name!r} must give {definition.name} the labels {', '.join(sorted(missing))}"
            )


def _captured(operation: Operation, seconds: float) -> capturing.CapturedOperation:
    made_by = operation.instrument
    return capturing.CapturedOperation(
        made_by.kind,
        made_by.system,
        made_by.target,
        made_by.name,
        operation.correlation_id,
        operation.outcome,
        operation.count,
        seconds,
        operation.error,
        operation.context,
    )


def _contribute(headers: dict[str, str]) -> None:
    operation = _current.get()
    if operation is not None:
        trace.inject(operation.context, headers)


correlation.add_contributor(_contribute)
