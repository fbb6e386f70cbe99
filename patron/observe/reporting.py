"""The hook that gets every unexpected exception, for error trackers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from patron import correlation
from patron.observe import log

__all__ = ["ErrorReporter", "report_error", "set_error_reporter"]

ErrorReporter = Callable[[BaseException, Mapping[str, Any]], None]

_reporter: ErrorReporter | None = None


def set_error_reporter(reporter: ErrorReporter | None) -> ErrorReporter | None:
    """
    Call *reporter* with every unexpected exception and its context; returns the one before.

    It is called in the thread that caught the exception, so it should only queue. What it raises is logged.
    """
    global _reporter
    before, _reporter = _reporter, reporter
    return before


def report_error(error: BaseException, **context: Any) -> None:
    """Tell the reporter of *error*, with *context* and the correlation id. Never raises."""
    if _reporter is None:
        return
    try:
        _reporter(error, {"correlationID": correlation.current(), **context})
    except Exception as failure:  # noqa: BLE001 - a broken reporter must not break what it reports on
        log.warn("error reporter failed", exc_info=failure)
