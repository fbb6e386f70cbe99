"""URLs of Redis: what may stand in them, and how they are shown."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import SplitResult, parse_qs, urlsplit

__all__ = ["SCHEMES", "is_url", "shown", "url_problems"]

SCHEMES = ("redis://", "rediss://", "unix://")

_ENCODED = "special characters in a password are percent-encoded"
_NUMBERS = ("socket_timeout", "socket_connect_timeout")


def is_url(text: str) -> bool:
    """Whether *text* is meant as a URL."""
    return "://" in text


def shown(url: str) -> str:
    """
    *url* without user, password and options; for messages, logs and spans.

    >>> shown("rediss://:hunter2@cache:6380/1?socket_timeout=0.5")
    'rediss://cache:6380/1'
    """
    scheme, _, rest = url.partition("://")
    # A password that nobody escaped may hold slashes and question marks: the last @ ends it.
    place = rest.rpartition("@")[2].partition("?")[0]
    return f"{scheme}://{place}"


def url_problems(url: str) -> list[str]:
    """What is wrong with *url*; it is never in the messages as it is."""
    if not url.startswith(SCHEMES):
        return [f"{shown(url)}: use {', '.join(SCHEMES)}"]
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # whose text may show a piece of the password
        return [f"{shown(url)} is no URL: the port is a number from 0 to 65535, and {_ENCODED}"]
    if "@" in parts.path + parts.query + parts.fragment:
        return [f"{shown(url)} is no URL: {_ENCODED}"]
    return [f"{shown(url)}: {problem}" for problem in _part_problems(parts)]


def _part_problems(parts: SplitResult) -> Iterator[str]:
    if parts.scheme == "unix":
        if not parts.path:
            yield "name the socket, as in unix:///run/redis.sock"
    elif parts.path.strip("/") and not parts.path.strip("/").isdigit():
        yield f"{parts.path.strip('/')!r} is no database: use a number, as in redis://host:6379/0"
    elif not parts.hostname:
        yield "name the host, as in redis://host:6379/0"
    options = parse_qs(parts.query, keep_blank_values=True)
    for name in _NUMBERS:
        if name in options and not _is_seconds(options[name][-1]):
            yield f"{name} is {options[name][-1]!r}: use seconds above 0"
    if "db" in options and not options["db"][-1].isdigit():
        yield f"db is {options['db'][-1]!r}: use a number"


def _is_seconds(text: str) -> bool:
    try:
        return 0 < float(text) < 3600
    except ValueError:
        return False
