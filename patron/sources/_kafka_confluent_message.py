"""
Messages of confluent-kafka, made quickly: what most processors never look at is worked out when it is asked for.

At tens of thousands of messages in a second each microsecond of this counts; benchmarks/consumers.py shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from patron.consumer.source import Message
from patron.sources._kafka_messages import NULL_BODY
from patron.sources._kafka_messages import message as slow_message

__all__ = ["Headers", "message_of"]

_NOT_AVAILABLE = 0  # confluent_kafka.TIMESTAMP_NOT_AVAILABLE


class Headers(Mapping[str, str]):
    """
    Headers with their names as they came, looked up without regard to case; the last of a name counts.

    Raises:
        UnicodeDecodeError: a value is no UTF-8.
    """

    __slots__ = ("_found", "_pairs")

    case_insensitive = True  # `patron.correlation.lookup` need not search

    def __init__(self, pairs: list[tuple[str, bytes | None]]) -> None:
        self._found = {name.lower(): value.decode() if value else "" for name, value in pairs}
        self._pairs = pairs

    def get(self, key: str, default: Any = None) -> Any:
        return self._found.get(key.lower(), default)

    def __getitem__(self, key: str) -> str:
        return self._found[key.lower()]

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and key.lower() in self._found

    def __iter__(self) -> Iterator[str]:
        return iter({name.lower(): name for name, _ in self._pairs}.values())

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        return repr(dict(self))


class _Later:
    """A field of `Message` that is worked out of the raw record when it is first read, and then kept in its slot."""

    def __init__(self, name: str, work_out: Callable[[Any], Any]) -> None:
        self._slot = Message.__dict__[name]
        self._work_out = work_out

    def __get__(self, message: Any, owner: Any = None) -> Any:
        if message is None:
            return self
        try:
            return self._slot.__get__(message)
        except AttributeError:
            value = self._work_out(message.raw)
            self._slot.__set__(message, value)
            return value

    def __set__(self, message: Any, value: Any) -> None:
        self._slot.__set__(message, value)


def _key(record: Any) -> str | None:
    key = record.key()
    return None if key is None else cast(bytes, key).decode("utf-8", "surrogateescape")


def _timestamp(record: Any) -> float | None:
    kind, milliseconds = record.timestamp()
    return None if kind == _NOT_AVAILABLE or milliseconds < 0 else milliseconds / 1000


class ConfluentMessage(Message):
    __slots__ = ()

    id: Any = _Later("id", lambda record: f"{record.partition()}:{record.offset()}")
    key: Any = _Later("key", _key)
    timestamp: Any = _Later("timestamp", _timestamp)


_new = object.__new__
_no_headers: Mapping[str, str] = {}


def message_of(
    record: Any, lane: tuple[str, int], offset: int, generation: int, deliveries: int, tombstones: bool
) -> Message:
    """The message of *record*, as `patron.sources._kafka_messages.message` would make it."""
    body = record.value()
    pairs = record.headers()
    headers = _no_headers
    if pairs:
        try:
            headers = Headers(pairs)
        except UnicodeDecodeError:
            return _slowly(record, lane, generation, deliveries, tombstones)
    made = _new(ConfluentMessage)
    made.body = b"" if body is None else body
    made.topic = lane[0]
    made.headers = headers
    made.lane = lane
    made.position = offset
    made.deliveries = deliveries
    made.attempts = 0
    made.generation = generation
    made.raw = record
    made.decode_as = None
    made.problem = NULL_BODY if body is None and not tombstones else None
    return made


def _slowly(
    record: Any, lane: tuple[str, int], generation: int, deliveries: int, tombstones: bool
) -> Message:
    kind, milliseconds = record.timestamp()
    return slow_message(
        lane[0],
        lane[1],
        record.offset(),
        record.key(),
        record.value(),
        record.headers(),
        None if kind == _NOT_AVAILABLE else milliseconds,
        record,
        lane=lane,
        generation=generation,
        deliveries=deliveries,
        tombstones=tombstones,
    )
