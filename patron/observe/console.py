"""Log lines for reading by eye while developing."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from typing import Any

from patron import correlation
from patron.observe.lines import encode

__all__ = ["ConsoleLines"]

_colours = {"debug": "\x1b[2m", "info": "\x1b[32m", "warn": "\x1b[33m", "error": "\x1b[31m"}
_bold_red = "\x1b[1;31m"
_plain = "\x1b[0m"
_plain_value = re.compile(r"[A-Za-z0-9_./:+@%-]+").fullmatch
_control = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class ConsoleLines:
    """``12:03:04.567 info  event  key=value ...  (module:12)``; a traceback follows on lines of its own."""

    def __init__(self, limit: int | None = None, *, colours: bool = False) -> None:
        self._limit = limit
        self._colours = colours

    def render(self, level: str, event: str, src: str, nanoseconds: int, fields: Mapping[str, Any]) -> bytes:
        """The line, with its line feed; never raises."""
        seconds, rest = divmod(nanoseconds, 1_000_000_000)
        clock = time.strftime("%H:%M:%S", time.localtime(seconds))
        shown = {**correlation.shown(), **fields}
        trace = shown.pop("exception", None)
        pairs = "".join(f" {_shown_key(name)}={_shown(value)}" for name, value in shown.items())
        line = (
            f"{clock}.{rest // 1_000_000:03d} {self._coloured(level)} {_one_line(event)} {pairs}  ({src})\n"
        )
        if trace is not None:
            line += f"{_safe(str(trace))}\n"
        return _within(line.encode("utf-8", "replace"), self._limit)

    def _coloured(self, level: str) -> str:
        padded = f"{level:<5}"
        return f"{_colours.get(level, _bold_red)}{padded}{_plain}" if self._colours else padded


def on_terminal(descriptor: int = 2) -> bool:
    """Whether a person reads what is written to *descriptor*; ``NO_COLOR`` says no (https://no-color.org)."""
    try:
        return os.isatty(descriptor) and not os.environ.get("NO_COLOR")
    except OSError:
        return False


def _shown(value: Any) -> str:
    if isinstance(value, str) and _plain_value(value):
        return value
    return encode({"": value})[4:-1]


def _shown_key(name: Any) -> str:
    return _one_line(str(name))


def _one_line(value: Any) -> str:
    try:
        return _safe(str(value)).replace("\n", "\\n")
    except Exception as error:  # noqa: BLE001 - user code runs in `str`
        return f"<unprintable: {type(error).__qualname__}>"


def _safe(value: str) -> str:
    """*value* without characters that could steer a terminal."""
    return _control.sub(lambda match: match[0] if match[0] == "\t" else f"\\x{ord(match[0]):02x}", value)


def _within(line: bytes, limit: int | None) -> bytes:
    mark = b"...[cut]\n"
    return line if limit is None or len(line) <= limit else line[: limit - len(mark)] + mark
