"""Records of any Kafka driver as messages, with what is wrong with those that cannot be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from patron.consumer.source import Message

__all__ = ["NULL_BODY", "Flawed", "encode_headers", "encode_key", "message"]

NULL_BODY = "null body (a tombstone)"


class Flawed(list[tuple[str, "bytes | None"]]):
    """The headers of a record that could not be read in full; *problem* says why. True even when there are none."""

    def __init__(self, headers: Iterable[tuple[str, bytes | None]], problem: str) -> None:
        super().__init__(headers)
        self.problem = problem

    def __bool__(self) -> bool:
        return True


_NO_HEADERS: Mapping[str, str] = {}


def message(
    topic: str,
    partition: int,
    offset: int,
    key: bytes | None,
    value: bytes | None,
    headers: Sequence[tuple[str, bytes | None]] | None,
    timestamp: int | None,
    raw: Any,
    lane: tuple[str, int],
    generation: int = 0,
    deliveries: int = 1,
    tombstones: bool = False,
) -> Message:
    """
    The message of one record; *timestamp* in milliseconds, None or below 0 when it has none.

    A key that is no UTF-8 is text with surrogates, which `encode_key` makes the same bytes again. A
    header that is none is written with backslashes, and a `Message.problem`, as a null body is without
    *tombstones*.
    """
    problem = None
    decoded = _NO_HEADERS
    if headers:
        decoded, problem = _decode_headers(headers)
    if value is None:
        value = b""
        problem = problem or (None if tombstones else NULL_BODY)
    # Positional, for keywords cost a third of it: this runs once for each message.
    return Message(
        value,
        topic,
        f"{partition}:{offset}",
        decoded,
        None if key is None else key.decode("utf-8", "surrogateescape"),
        lane,
        offset,
        deliveries,
        0,
        None if timestamp is None or timestamp < 0 else timestamp / 1000,
        generation,
        raw,
        None,
        problem,
    )


def encode_headers(headers: Mapping[str, str]) -> list[tuple[str, bytes]]:
    """*headers* as a driver sends them."""
    return [(name, value.encode("utf-8", "backslashreplace")) for name, value in headers.items()]


def encode_key(key: str | None) -> bytes | None:
    """*key* as a driver sends it."""
    return None if key is None else key.encode("utf-8", "surrogateescape")


def _decode_headers(headers: Sequence[tuple[str, bytes | None]]) -> tuple[dict[str, str], str | None]:
    """The last value of each name, a null one as empty text; and what could not be read."""
    try:
        problem = headers.problem if isinstance(headers, Flawed) else None
        return {name: "" if value is None else value.decode() for name, value in headers}, problem
    except UnicodeDecodeError:
        bad = [name for name, value in headers if not _is_text(value)]
        return (
            {name: "" if value is None else _text(value) for name, value in headers},
            f"header {bad[0]!r} is not UTF-8",
        )


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _is_text(value: bytes | None) -> bool:
    try:
        return value is None or value.decode() is not None
    except UnicodeDecodeError:
        return False
