"""How dead letters look: as rows of a table, as JSON lines, and one of them in full."""

from __future__ import annotations

import base64
import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from patron.cli.output import paint

if TYPE_CHECKING:
    from patron.consumer.letters import Letter

__all__ = ["COLUMNS", "as_object", "body_object", "full", "reason_width", "row", "safe"]

COLUMNS = ("id", "when", "topic", "key", "attempts", "first failure", "size", "reason")

_LARGEST = 64 * 1024  # bytes of a body that are shown; `--raw` has all
_HEX_ROW = 16
_NO_TIME = (ValueError, OverflowError, OSError)  # of a number that somebody took for seconds
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def row(letter: Letter, width: int | None = None) -> dict[str, Any]:
    """The cells of a table; the reason has *width* characters at most."""
    message = letter.message
    return {
        "id": safe(letter.id),
        "when": _local(letter.since),
        "topic": safe(letter.origin),
        "key": safe(message.key),
        "attempts": letter.attempts,
        "first failure": safe(letter.about("first-failure")),
        "size": len(message.body),
        "reason": _cut(safe(letter.reason), width),
    }


def reason_width() -> int | None:
    """How many characters of a reason fit on the terminal; None: all of them, for there is no terminal."""
    return max(20, shutil.get_terminal_size().columns - 110) if sys.stdout.isatty() else None


def as_object(letter: Letter) -> dict[str, Any]:
    """What a program wants to know, without the body."""
    message = letter.message
    return {
        "id": letter.id,
        "when": None if letter.since is None else _utc(letter.since),
        "topic": letter.origin,
        "original_id": letter.about("id"),
        "key": message.key,
        "attempts": letter.attempts,
        "replays": letter.replays,
        "reason": letter.reason,
        "error": letter.about("error"),
        "first_failure": letter.about("first-failure"),
        "size": len(message.body),
        "headers": dict(message.headers),
    }


def body_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON value, else as text, else in base64."""
    try:
        return {"body": json.loads(body)}
    except (ValueError, RecursionError):
        pass
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode()}


def full(letter: Letter) -> Iterator[str]:
    """The lines that show everything of *letter*, fit for a terminal whatever it holds."""
    about = as_object(letter)
    for name in (
        "id",
        "when",
        "topic",
        "original_id",
        "key",
        "attempts",
        "replays",
        "error",
        "first_failure",
    ):
        if about[name] not in (None, 0):
            yield _labelled(name, safe(about[name]))
    if letter.reason:
        yield _labelled("reason", paint(safe(letter.reason), "red", sys.stdout))
    yield from _headers(letter.message.headers)
    yield ""
    yield from _body(letter.message.body)


def safe(value: Any) -> Any:
    """*value* for a terminal: control characters of a text, which could command it, are escaped."""
    if value is None:
        return None
    return _UNPRINTABLE.sub(lambda match: f"\\x{ord(match[0]):02x}", str(value)).replace("\n", "\\n")


def _headers(headers: Mapping[str, str]) -> Iterator[str]:
    own = {name: value for name, value in headers.items() if not name.lower().startswith("x-patron-")}
    for name, value in sorted(own.items()):
        yield _labelled("header", f"{safe(name)}: {safe(value)}")


def _labelled(label: str, text: str) -> str:
    return paint(f"{label.replace('_', ' '):<15}", "cyan", sys.stdout) + text


def _body(body: bytes) -> Iterator[str]:
    shown = body[:_LARGEST]
    yield from _json(body) or _text(shown) or _hex(shown)
    if len(body) > _LARGEST:
        yield f"... {len(body) - _LARGEST} of {len(body)} bytes are left out: --raw writes all of them"


def _json(body: bytes) -> list[str]:
    if len(body) > _LARGEST:
        return []
    try:
        text = json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return []
    return [safe(line) for line in text.splitlines()]


def _text(body: bytes) -> list[str]:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return []
    return [safe(line) for line in text.split("\n")] if _is_text(text) else []


def _is_text(text: str) -> bool:
    return len(_UNPRINTABLE.findall(text)) * 20 <= len(text)


def _hex(body: bytes) -> list[str]:
    return [_hex_row(body[start : start + _HEX_ROW], start) for start in range(0, len(body), _HEX_ROW)]


def _hex_row(part: bytes, start: int) -> str:
    signs = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
    return f"{start:08x}  {part.hex(' '):<{_HEX_ROW * 3}} {signs}"


def _cut(text: Any, width: int | None) -> Any:
    return text if text is None or width is None or len(text) <= width else text[: width - 1] + "…"


def _local(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")
    except _NO_TIME:
        return str(seconds)


def _utc(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except _NO_TIME:
        return str(seconds)
