"""Lines of third-party loggers, in the same format as our own: a handler on the root logger."""

from __future__ import annotations

import logging
from typing import Any

from pythonjsonlogger.core import BaseJsonFormatter

from patron.observe.jsonlog import Lines
from patron.observe.sink import FileSink

__all__ = ["LineHandler", "install", "remove", "set_level"]


class _Formatter(BaseJsonFormatter):  # type: ignore[misc]
    """Collects what is in a record, extras and traceback included, and lets *lines* render it."""

    def __init__(self, lines: Lines) -> None:
        super().__init__(rename_fields={"exc_info": "exception", "stack_info": "stack"})
        self._lines = lines

    def line(self, record: logging.LogRecord) -> bytes:
        fields: dict[str, Any] = {}
        try:
            record.message = record.getMessage()
            self.add_fields(fields, record, self._traceback(record))
            fields.pop("message", None)
        except Exception as error:  # noqa: BLE001 - arguments that do not fit the message
            record.message = str(record.msg)
            fields = {"args": record.args, "formatting": error}
        src = f"{record.module if record.name == 'root' else record.name}:{record.lineno}"
        nanoseconds = int(record.created * 1_000_000_000)
        return self._lines.render(_level(record.levelno), record.message, src, nanoseconds, fields)

    def _traceback(self, record: logging.LogRecord) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if record.exc_info and record.exc_info[0] is not None:
            found["exc_info"] = self.formatException(record.exc_info)
        elif record.exc_text:
            found["exc_info"] = record.exc_text
        if record.stack_info:
            found["stack_info"] = self.formatStack(record.stack_info)
        return found


class LineHandler(logging.Handler):
    """Writes each record at once; never raises, never prints tracebacks of its own."""

    def __init__(self, lines: Lines, sink: FileSink) -> None:
        super().__init__()
        self._formatter = _Formatter(lines)
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            self._sink(self._formatter.line(record))
        except Exception:  # noqa: BLE001 - logging must not break what logs
            self._sink.lost += 1


_installed: tuple[LineHandler, int] | None = None


def install(lines: Lines, sink: FileSink, level: int) -> None:
    """Put a handler on the root logger, in the place of the one that was installed before."""
    global _installed
    remove()
    root = logging.getLogger()
    handler = LineHandler(lines, sink)
    _installed = handler, root.level
    root.addHandler(handler)
    root.setLevel(level)


def remove() -> None:
    """Take the handler off, and give the root logger its level back."""
    global _installed
    if _installed is None:
        return
    handler, level = _installed
    _installed = None
    root = logging.getLogger()
    root.removeHandler(handler)
    root.setLevel(level)


def set_level(level: int) -> None:
    """Let the root logger write *level* and above, if our handler is there."""
    if _installed is not None:
        logging.getLogger().setLevel(level)


def _level(number: int) -> str:
    for name, most in (("debug", logging.DEBUG), ("info", logging.INFO), ("warn", logging.WARNING)):
        if number <= most:
            return name
    return "error" if number <= logging.ERROR else "fatal"
