"""
Structured logging: an event is a constant phrase, the data are fields.

Until `setup` is called nothing is configured, and what is logged goes to the standard logger
``patron``, which the application may configure as it likes.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol, get_args

from patron import correlation
from patron.errors import ConfigError, Panic
from patron.observe import capturing

if TYPE_CHECKING:
    from patron.observe.jsonlog import Lines

__all__ = [
    "LEVELS",
    "Factory",
    "Level",
    "LogSettings",
    "Logger",
    "Writer",
    "debug",
    "enabled",
    "error",
    "fatal",
    "from_context",
    "info",
    "level",
    "on_fatal",
    "panic",
    "set_level",
    "setup",
    "start",
    "stop",
    "sub",
    "warn",
    "with_context",
]

Level = Literal["debug", "info", "warn", "error", "fatal", "panic"]
Format = Literal["json", "console"]

LEVELS: Mapping[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
    "panic": logging.CRITICAL + 10,
}
"""The levels by name, as numbers of the standard `logging` module."""
_debug, _info, _warn, _error, _fatal, _panic = LEVELS.values()


@dataclass(frozen=True, slots=True)
class LogSettings:
    """
    How to log.

    Args:
        level: the lowest level that is written.
        format: ``json``, one object on each line, or ``console`` for reading by eye.
        fields: further fields of every line.
        context_filter: gets ``correlationID`` and the forwarded headers and returns what logs and
            spans may show of them; hides or changes what is secret.
    """

    level: Level = "info"
    format: Format = "json"
    fields: Mapping[str, Any] = field(default_factory=dict)
    context_filter: correlation.ContextFilter | None = None

    def __post_init__(self) -> None:
        problems = [
            _unknown("level", self.level, get_args(Level)),
            _unknown("format", self.format, get_args(Format)),
        ]
        if any(problems):
            raise ConfigError(*filter(None, problems))

    @classmethod
    def from_env(cls, environ: Mapping[str, str], base: LogSettings | None = None) -> LogSettings:
        """
        *base* with ``PATRON_LOG_LEVEL`` and ``PATRON_LOG_FORMAT`` on top; an empty variable counts as absent.

        Raises:
            ConfigError: with one line for each variable that is wrong.
        """
        level = environ.get("PATRON_LOG_LEVEL", "").strip().lower()
        form = environ.get("PATRON_LOG_FORMAT", "").strip().lower()
        problems = [
            level and _unknown("PATRON_LOG_LEVEL", level, get_args(Level)),
            form and _unknown("PATRON_LOG_FORMAT", form, get_args(Format)),
        ]
        if any(problems):
            raise ConfigError(*filter(None, problems))
        changes: dict[str, Any] = {"level": level, "format": form}
        return replace(base or cls(), **{name: value for name, value in changes.items() if value})


def _unknown(place: str, value: str, known: tuple[str, ...]) -> str:
    return "" if value in known else f"{place} {value!r} is unknown: use one of {', '.join(known)}"


class Writer(Protocol):
    """What a factory makes: it turns one event into a line."""

    def __call__(self, level: str, event: str, src: str, fields: Mapping[str, Any]) -> None:
        """Write one line; must not raise. *src* is ``module:line`` of the caller."""
        ...


Factory = Callable[[Mapping[str, Any]], Writer]


class Logger:
    """
    Logs with the *fields* it was made with. Any thread may use it.

    Every method takes the event and the fields of this line; ``exc_info=error`` (or True for the
    exception being handled) adds its traceback.
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[str, Any] | None = None) -> None:
        self._fields = dict(fields or {})

    def sub(self, **fields: Any) -> Logger:
        """A logger with *fields* besides the ones of this one; the new ones win."""
        return Logger({**self._fields, **fields})

    def enabled(self, level: Level) -> bool:
        """Whether *level* is written now."""
        return LEVELS[level] >= _level

    def debug(self, event: str, /, **fields: Any) -> None:
        """For who looks into this very service."""
        if _level <= _debug:
            _emit("debug", event, self._fields, fields)

    def info(self, event: str, /, **fields: Any) -> None:
        """What happens in a healthy service."""
        if _level <= _info:
            _emit("info", event, self._fields, fields)

    def warn(self, event: str, /, **fields: Any) -> None:
        """What somebody should look at, some day."""
        if _level <= _warn:
            _emit("warn", event, self._fields, fields)

    def error(self, event: str, /, **fields: Any) -> None:
        """What failed."""
        if _level <= _error:
            _emit("error", event, self._fields, fields)

    def panic(self, event: str, /, **fields: Any) -> NoReturn:
        """Log, then raise `patron.errors.Panic`."""
        _emit("panic", event, self._fields, fields)
        raise Panic(event)

    def fatal(self, event: str, /, **fields: Any) -> NoReturn:
        """Log, then end the application with status 1; inside a service through its stop budget."""
        _emit("fatal", event, self._fields, fields)
        _end(event)
        raise SystemExit(1)


def _raise_exit(event: str) -> None:
    raise SystemExit(1)


_root = Logger()
_context: contextvars.ContextVar[Logger | None] = contextvars.ContextVar("patron_logger", default=None)
_level: int = _debug
_write: Writer | None = None
_end: Callable[[str], None] = _raise_exit


def setup(
    factory: Factory | None = None, fields: Mapping[str, Any] | None = None, *, level: Level = "info"
) -> None:
    """
    Log through what *factory* makes of *fields*; None stands for JSON lines on standard error.

    *fields* stand on every line. Calling it again replaces what was set up.
    """
    global _write, _level
    _write = (factory or _json_factory())(dict(fields or {}))
    _level = LEVELS[level]


def start(name: str, version: str, settings: LogSettings) -> None:
    """
    Log as *settings* say, for service *name*: our own lines and, on the root logger, everyone else's.

    Lines have ``srv``, ``ver`` and ``host``.
    """
    from patron.observe import rootlog
    from patron.observe.jsonlog import LineWriter
    from patron.observe.sink import FileSink

    sink = FileSink()
    fields = {"srv": name, "ver": version, "host": os.uname().nodename, **settings.fields}
    lines = _lines(settings, fields, sink.limit)
    correlation.show_through(settings.context_filter)
    setup(lambda _: LineWriter(lines, sink), level=settings.level)
    rootlog.install(lines, sink, LEVELS[settings.level])


def stop() -> None:
    """Take the handler off the root logger again, and forget the set-up."""
    global _write, _level
    from patron.observe import rootlog

    rootlog.remove()
    correlation.show_through(None)
    _write, _level = None, _debug


def _json_factory() -> Factory:
    from patron.observe.jsonlog import json_factory

    return json_factory


def _lines(settings: LogSettings, fields: Mapping[str, Any], limit: int | None) -> Lines:
    from patron.observe import console, jsonlog

    if settings.format == "console":
        return console.ConsoleLines(limit, colours=console.on_terminal())
    return jsonlog.JsonLines(fields, limit)


def set_level(level: Level, logger: str | None = None) -> None:
    """
    Write *level* and above from now on, in this process.

    With *logger*, only for the standard logger of that name and the ones under it; without, for our
    own lines and, when `start` put its handler there, for the root logger.

    Raises:
        ConfigError: there is no such level.
    """
    global _level
    problem = _unknown("level", level, get_args(Level))
    if problem:
        raise ConfigError(problem)
    if logger is not None:
        logging.getLogger(logger).setLevel(LEVELS[level])
        return
    from patron.observe import rootlog

    _level = LEVELS[level]
    rootlog.set_level(_level)


def level() -> Level:
    """The lowest level that our own lines are written with now."""
    return next(name for name in get_args(Level) if LEVELS[name] >= _level)


def on_fatal(end: Callable[[str], None] | None) -> Callable[[str], None]:
    """Let `fatal` call *end* with the event (None: raise `SystemExit`); returns what it called before."""
    global _end
    before, _end = _end, end or _raise_exit
    return before


def from_context() -> Logger:
    """The logger of what is being done now, the plain one without `with_context`."""
    return _context.get() or _root


@contextlib.contextmanager
def with_context(logger: Logger | None = None, /, **fields: Any) -> Iterator[Logger]:
    """Make *logger* (or the current one) with *fields* the one that everything inside the block logs with."""
    chosen = logger or from_context()
    if fields:
        chosen = chosen.sub(**fields)
    token = _context.set(chosen)
    try:
        yield chosen
    finally:
        _context.reset(token)


def sub(**fields: Any) -> Logger:
    """A logger with *fields* besides the ones of the context."""
    return from_context().sub(**fields)


def enabled(level: Level) -> bool:
    """Whether *level* is written now."""
    return LEVELS[level] >= _level


def debug(event: str, /, **fields: Any) -> None:
    """For who looks into this very service."""
    if _level <= _debug:
        _emit("debug", event, from_context()._fields, fields)


def info(event: str, /, **fields: Any) -> None:
    """What happens in a healthy service."""
    if _level <= _info:
        _emit("info", event, from_context()._fields, fields)


def warn(event: str, /, **fields: Any) -> None:
    """What somebody should look at, some day."""
    if _level <= _warn:
        _emit("warn", event, from_context()._fields, fields)


def error(event: str, /, **fields: Any) -> None:
    """What failed."""
    if _level <= _error:
        _emit("error", event, from_context()._fields, fields)


def panic(event: str, /, **fields: Any) -> NoReturn:
    """Log, then raise `patron.errors.Panic`."""
    _emit("panic", event, from_context()._fields, fields)
    raise Panic(event)


def fatal(event: str, /, **fields: Any) -> NoReturn:
    """Log, then end the application with status 1; inside a service through its stop budget."""
    _emit("fatal", event, from_context()._fields, fields)
    _end(event)
    raise SystemExit(1)


def _emit(level: str, event: str, bound: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
    """Write one line; its caller's caller is who logs."""
    frame = sys._getframe(2)
    if bound:
        fields = {**bound, **fields} if fields else bound
    if "exc_info" in fields:
        fields = _with_traceback(fields)
    src = f"{frame.f_globals.get('__name__', '?')}:{frame.f_lineno}"
    if capturing.active is not None:
        line = {"lvl": level, "src": src, "msg": event, "correlationID": correlation.current(), **fields}
        capturing.active.lines.append(line)
    (_write or _to_standard_logger)(level, event, src, fields)


def _with_traceback(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """*fields* with ``error`` and ``exception`` in the place of ``exc_info``."""
    from patron.observe.lines import traceback_text

    rest = {name: value for name, value in fields.items() if name != "exc_info"}
    given = fields["exc_info"]
    failure = given if isinstance(given, BaseException) else sys.exc_info()[1] if given else None
    if failure is not None:
        rest.setdefault("error", failure)
        rest["exception"] = traceback_text(failure)
    return rest


def _to_standard_logger(level: str, event: str, src: str, fields: Mapping[str, Any]) -> None:
    logger = logging.getLogger("patron")
    if logger.isEnabledFor(LEVELS[level]):
        from patron.observe.lines import encode

        text = f"{event} {encode(fields)}" if fields else event
        logger.log(LEVELS[level], "%s", text, extra={"src": src, "fields": fields})
