"""Observing, once for all: operations, logs, metrics and traces of one process."""

from __future__ import annotations

import time
from pathlib import Path

from patron import correlation as _correlation
from patron.correlation import CorrelationSettings
from patron.observe import log, metrics, trace
from patron.observe.capturing import Capture, CapturedOperation, CapturedSpan, capture
from patron.observe.instrument import Instrument, Operation, current_operation, operation
from patron.observe.log import LogSettings
from patron.observe.metrics import MetricSet
from patron.observe.reporting import ErrorReporter, report_error, set_error_reporter
from patron.observe.spans import span, submit_with_span, traced
from patron.observe.trace import TraceSettings

__all__ = [
    "Capture",
    "CapturedOperation",
    "CapturedSpan",
    "ErrorReporter",
    "Instrument",
    "LogSettings",
    "MetricSet",
    "Operation",
    "TraceSettings",
    "capture",
    "current_operation",
    "log",
    "metrics",
    "operation",
    "report_error",
    "set_error_reporter",
    "span",
    "start",
    "stop",
    "submit_with_span",
    "trace",
    "traced",
]


def start(
    name: str,
    version: str,
    *,
    log: LogSettings,
    trace: TraceSettings,
    correlation: CorrelationSettings,
    slot: int = 0,
    metrics_directory: Path | None = None,
    error_reporter: ErrorReporter | None = None,
) -> None:
    """
    Observe this process as service *name* from now on.

    Call it once in the worker, after the fork and before the service is built. It starts no thread
    and opens no socket: the sender of spans begins with the first one.
    """
    set_error_reporter(error_reporter)
    _start_log(name, version, log)
    _correlation.configure(correlation)
    metrics.start(slot, metrics_directory)
    _start_trace(name, version, trace)


def stop(timeout: float) -> None:
    """Send what is queued and join what was started, in at most *timeout* seconds; then stop logging."""
    deadline = time.monotonic() + timeout
    trace.stop(max(0.0, deadline - time.monotonic()))
    set_error_reporter(None)
    log.stop()


_start_log = log.start
_start_trace = trace.start
