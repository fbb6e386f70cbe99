"""The settings of the HTTP component, checked completely when they are built."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from patron.errors import ConfigError
from patron.http.compression import Compression
from patron.http.cors import Cors
from patron.http.remote import listed, proxy_problems
from patron.http.tls import Tls

__all__ = ["AccessLog", "HttpSettings", "status_list", "statuses"]

LEVELS = ("debug", "info", "warn", "error")


@dataclass(frozen=True, slots=True)
class AccessLog:
    """
    One log line for each request.

    Args:
        enabled: whether there are any.
        level: of lines whose status *levels* does not name.
        statuses: which statuses are logged; empty means all. ``404``, ``5xx`` and ``400-499`` are understood.
        levels: status → level, for example ``{"5xx": "error"}``; the narrowest one wins.
        admin: whether requests of the admin routes are logged too.
    """

    enabled: bool = True
    level: Literal["debug", "info", "warn", "error"] = "info"
    statuses: tuple[str, ...] = ()
    levels: Mapping[str, Literal["debug", "info", "warn", "error"]] = field(default_factory=dict)
    admin: bool = False

    def __post_init__(self) -> None:
        problems = [
            f"access log: level {level!r} is unknown: use {', '.join(LEVELS)}"
            for level in (self.level, *self.levels.values())
            if level not in LEVELS
        ]
        problems += [
            f"access log: {text!r} is no status: write 404, 5xx or 400-499"
            for text in (*self.statuses, *self.levels)
            if not isinstance(text, str) or not statuses(text)
        ]
        if problems:
            raise ConfigError(*problems)

    def level_of(self, status: int) -> str | None:
        """The level of a line about *status*, None for no line."""
        if not self.enabled or (
            self.statuses and not any(status in statuses(text) for text in self.statuses)
        ):
            return None
        narrowest_first = sorted(self.levels, key=lambda text: len(statuses(text)))
        return next((self.levels[text] for text in narrowest_first if status in statuses(text)), self.level)


def statuses(text: str) -> range:
    """The statuses that *text* means; empty when it means none."""
    if re.fullmatch(r"[1-5]xx", text):
        return range(int(text[0]) * 100, int(text[0]) * 100 + 100)
    found = re.fullmatch(r"([1-5]\d\d)(?:-([1-5]\d\d))?", text)
    return range(int(found[1]), int(found[2] or found[1]) + 1) if found else range(0)


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """
    Where the HTTP component listens and what it lets in.

    Args:
        host: the address to listen on.
        port: the port; 0 takes any free one, which is for tests.
        threads: requests that are worked on at the same time, in each worker process.
        backlog: connections that the kernel holds before they are accepted.
        max_connections: open connections of one worker process, idle ones included.
        max_body: bytes of a request's body; more is answered with 413.
        max_header: bytes of a request's head.
        max_header_fields: header lines of a request.
        max_request_line: bytes of the request line.
        read_timeout: seconds for the head and for the body of a request to arrive.
        write_timeout: seconds that a client may take nothing of its answer; after them it must take 1 kB a second.
        keepalive: seconds that an idle connection stays open; longer than the load balancer's own.
        timeout: seconds that an answer may take, where the route does not say it; None sets no limit.
            Nothing is interrupted: it is what clients and loops ask ``remaining()`` for.
        access_log: which requests are logged, and how.
        log_bodies: statuses whose answers' bodies are logged, the first 2 kB of text: ``404``, ``5xx``
            and ``400-499`` are understood.
        tls: serve HTTPS instead of HTTP; None: HTTP.
        trusted_proxies: addresses and networks (``10.0.0.0/8``) of our own proxies, whose
            ``X-Forwarded-For`` is believed: ``request.client``, limits by address and the access log's
            ``remote`` are then the client. Without any they are the peer.
        compression: which answers are compressed; None: none.
        cors: which other sites' pages may call the service; None: none.
        admin: ``open`` serves all admin routes, ``health`` only ``/alive`` and ``/ready``, ``closed`` none.
        admin_prefix: what the paths of the admin routes begin with, for example ``/-``.
        debug: who may see ``/debug``: ``local`` is a peer on a loopback address without any forwarding
            header, ``open`` is everybody, ``closed`` is nobody. The others are told 404.
    """

    host: str = "0.0.0.0"  # noqa: S104 - a service in a container is reached from outside
    port: int = 50000
    threads: int = 8
    backlog: int = 2048
    max_connections: int = 1000
    max_body: int = 1024 * 1024
    max_header: int = 65536
    max_header_fields: int = 100
    max_request_line: int = 8190
    read_timeout: float = 10.0
    write_timeout: float = 60.0
    keepalive: float = 75.0
    timeout: float | None = None
    access_log: AccessLog = field(default_factory=AccessLog)
    log_bodies: tuple[str, ...] = ()
    tls: Tls | None = None
    trusted_proxies: tuple[str, ...] = ()
    compression: Compression | None = None
    cors: Cors | None = None
    admin: Literal["open", "health", "closed"] = "open"
    admin_prefix: str = ""
    debug: Literal["local", "open", "closed"] = "local"

    def __post_init__(self) -> None:
        object.__setattr__(self, "log_bodies", tuple(self.log_bodies))
        object.__setattr__(self, "trusted_proxies", listed(self.trusted_proxies))
        problems = [problem for find in _PROBLEMS for problem in find(self)]
        if problems:
            raise ConfigError(*problems)

    @classmethod
    def from_env(cls, environ: Mapping[str, str], base: HttpSettings | None = None) -> HttpSettings:
        """
        *base* with what the ``PATRON_HTTP_...`` variables say on top.

        An empty variable counts as absent. ``PATRON_HTTP_DEFAULT_PORT`` is a number. A time-out
        (``PATRON_HTTP_READ_TIMEOUT``) is in seconds (``5``, ``0.5``) or written as in Go (``5s``,
        ``1m30s``, ``500ms``). ``PATRON_HTTP_STATUS_ERROR_LOGGING`` lists statuses and ranges of them
        as in Go (``404;[500,600)``), or as *log_bodies* does (``5xx``).

        Raises:
            ConfigError: a value is wrong; it names the variable and the value.
        """
        changes: dict[str, Any] = {}
        problems: list[str] = []
        for name, (variable, read) in _VARIABLES.items():
            text = environ.get(variable, "").strip()
            if text:
                try:
                    changes[name] = read(text)
                except ValueError as error:
                    problems.append(f"{variable}={text[:100]!r}: {error}")
        if problems:
            raise ConfigError(*problems)
        return replace(base or cls(), **changes)


# Field → smallest and largest value. gunicorn's own ceilings are 32768 fields and 8190 bytes of request line.
_INTEGERS = {
    "port": (0, 65535),
    "threads": (1, 10_000),
    "backlog": (1, 65535),
    "max_connections": (1, 1_000_000),
    "max_body": (0, 2**40),
    "max_header": (1024, 2**24),
    "max_header_fields": (1, 32768),
    "max_request_line": (64, 8190),
}
#: A week: what the system waits at most in one call is not much more (24 days).
MOST_SECONDS = 604_800
_WORDS = {"admin": ("open", "health", "closed"), "debug": ("local", "open", "closed")}


def is_time_out(value: object) -> bool:
    """Whether *value* is a number of seconds that the system can wait."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= MOST_SECONDS


def _number_problems(settings: HttpSettings) -> list[str]:
    problems = []
    for name, (least, most) in _INTEGERS.items():
        value = getattr(settings, name)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            problems.append(f"http: {name} is {value!r}: use a whole number from {least} to {most}")
    for name in ("read_timeout", "write_timeout", "keepalive", "timeout"):
        value = getattr(settings, name)
        if name == "timeout" and value is None:
            continue
        if not is_time_out(value):
            problems.append(f"http: {name} is {value!r}: use seconds above 0, and at most {MOST_SECONDS}")
    return problems


def _word_problems(settings: Any) -> list[str]:
    problems = [
        f"http: {name} is {getattr(settings, name)!r}: use {', '.join(words)}"
        for name, words in _WORDS.items()
        if getattr(settings, name) not in words
    ]
    if not isinstance(settings.host, str) or not settings.host.strip():
        problems.append(f"http: host is {settings.host!r}: use an address such as 0.0.0.0")
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", str(settings.admin_prefix)):
        problems.append(
            f"http: admin_prefix is {settings.admin_prefix!r}: use a path such as /-, without a / at its end"
        )
    return problems


def _list_problems(settings: Any) -> list[str]:
    problems = [
        f"http: log_bodies has {text!r}, which is no status: write 404, 5xx or 400-499"
        for text in settings.log_bodies
        if not isinstance(text, str) or not statuses(text)
    ]
    return [*problems, *(f"http: {problem}" for problem in proxy_problems(settings.trusted_proxies))]


_PARTS = {"tls": Tls, "compression": Compression, "cors": Cors}


def _part_problems(settings: Any) -> list[str]:
    """What is wrong with the parts that are settings of their own; of these only the access log is always there."""
    problems = [
        f"http: {name} is {getattr(settings, name)!r}: use a {kind.__name__}"
        for name, kind in _PARTS.items()
        if not isinstance(getattr(settings, name), kind | None)
    ]
    if not isinstance(settings.access_log, AccessLog):
        problems.append(f"http: access_log is {settings.access_log!r}: use an AccessLog")
    return problems


_PROBLEMS = (_number_problems, _word_problems, _list_problems, _part_problems)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= 65535:
        raise ValueError("use a port from 1 to 65535")
    return int(text)


_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|us|µs|ns|m|s)", re.ASCII)


def _seconds(text: str) -> float:
    parts = _PART.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        value = sum(float(number) * _UNITS[unit] for number, unit in parts)
    elif re.fullmatch(r"\d+(\.\d*)?|\.\d+", text, re.ASCII):
        value = float(text)
    else:
        raise ValueError("use seconds (5, 0.5) or a duration (5s, 1m30s)")
    if not is_time_out(value):
        raise ValueError(f"use more than 0 seconds, and at most {MOST_SECONDS}")
    return value


_RANGE = re.compile(r"([\[(])([1-6]\d\d),([1-6]\d\d)([\])])", re.ASCII)


def status_list(text: str) -> tuple[str, ...]:
    """
    The statuses in ``404;[500,600)``, as the Go original writes them: a round bracket leaves its end out.

    Raises:
        ValueError: a part of it means none.
    """
    return tuple(_status_range(part) for part in text.split(";"))


def _status_range(part: str) -> str:
    found = _RANGE.fullmatch(part)
    if found is None and statuses(part):
        return part
    if found is not None:
        first, last = int(found[2]) + (found[1] == "("), int(found[3]) - (found[4] == ")")
        if first <= last and statuses(f"{first}-{last}"):
            return f"{first}-{last}"
    raise ValueError(f"{part!r} is no status: write 404, 5xx or [500,600), with a ; between two of them")


_VARIABLES: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "port": ("PATRON_HTTP_DEFAULT_PORT", _port),
    "read_timeout": ("PATRON_HTTP_READ_TIMEOUT", _seconds),
    "log_bodies": ("PATRON_HTTP_STATUS_ERROR_LOGGING", status_list),
}
