"""
Messages of confluent-kafka, made quickly: what most processors never look at is worked out when it is asked for.

At tens of thousands of messages in a second each microsecond of this counts; benchmarks/consumers.py shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import methodcaller
from typing import Any, cast

from patron.consumer.source import Message
from patron.sources._kafka_lanes import Lane
from patron.sources._kafka_messages import NULL_BODY, Flawed
from patron.sources._kafka_messages import message as slow_message

__all__ = ["message_of", "unreadable"]

_NOT_AVAILABLE = 0  # confluent_kafka.TIMESTAMP_NOT_AVAILABLE


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
    """A `Message` whose id, key and time stamp are worked out when they are read."""

    __slots__ = ()

    id: Any = _Later("id", lambda record: f"{record.partition()}:{record.offset()}")
    key: Any = _Later("key", _key)
    timestamp: Any = _Later("timestamp", _timestamp)


_new = object.__new__

# Of a header whose name is no UTF-8, confluent-kafka 2.16 returns a list with a hole in it and an error
# set. A plain call would not notice once the interpreter has specialized it, and then crash; this one
# checks, and raises SystemError.
_headers = methodcaller("headers")
_no_headers: dict[str, str] = {}


def message_of(
    record: Any, lane: tuple[str, int], offset: int, generation: int, deliveries: int, tombstones: bool
) -> Message:
    """The message of *record*, as `patron.sources._kafka_messages.message` would make it."""
    body = record.value()
    headers = _no_headers
    try:
        pairs = _headers(record)
        if pairs:
            headers = {}
            for name, value in pairs:  # half the time of a comprehension
                headers[name] = value.decode()
    except (AttributeError, UnicodeDecodeError):  # a null value, or no text
        return _slowly(record, pairs, lane, generation, deliveries, tombstones)
    except SystemError:
        record.set_headers([])  # it keeps the list with the hole, for the next one to fall into
        bad = Flawed([], "the name of a header is not UTF-8")
        return _slowly(record, bad, lane, generation, deliveries, tombstones)
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
    record: Any, headers: Any, lane: tuple[str, int], generation: int, deliveries: int, tombstones: bool
) -> Message:
    kind, milliseconds = record.timestamp()
    return slow_message(
        lane[0],
        lane[1],
        record.offset(),
        record.key(),
        record.value(),
        headers,
        None if kind == _NOT_AVAILABLE else milliseconds,
        record,
        lane=lane,
        generation=generation,
        deliveries=deliveries,
        tombstones=tombstones,
    )


def unreadable(record: Any, lane: Lane, generation: int, why: str) -> Message:
    """The message of *record*, which the library could not read and left out; *why* says it."""
    offset = record.offset()
    topic, number = lane.partition
    lane.delivered = max(lane.delivered, offset + 1)
    return Message(
        b"",
        topic,
        f"{number}:{offset}",
        lane=lane.partition,
        position=offset,
        generation=generation,
        raw=record,
        problem=f"unreadable record: {why}",
    )
