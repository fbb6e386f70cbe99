"""What every client that publishes shares: payload, headers, observing, time, connection and errors."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from patron import encoding
from patron.correlation import lookup, message_headers
from patron.errors import ConfigError, DeadlineExceeded, PublishFailed
from patron.observe import Instrument, Operation
from patron.reliability import remaining

__all__ = ["CONTENT_TYPE", "PerProcess", "budget", "check_timeout", "encoded", "observed", "translated"]

T = TypeVar("T")

CONTENT_TYPE = "Content-Type"


def encoded(
    payload: Any, headers: Mapping[str, str] | None = None, content_type: str = encoding.JSON
) -> tuple[bytes, dict[str, str]]:
    """
    The body and all headers of a message that is sent now; call it inside the operation.

    Bytes stay as they are; anything else is encoded by the ``Content-Type`` in *headers*, else by
    *content_type*, which then becomes that header. Correlation id and trace are added to *headers*.

    Raises:
        EncodeError: the format has no form for *payload*. UnknownContentType: there is no such format.
    """
    complete = message_headers(headers)
    chosen = lookup(complete, CONTENT_TYPE.lower())
    if chosen is None:
        chosen = complete[CONTENT_TYPE] = content_type
    if isinstance(payload, bytes | bytearray | memoryview):
        return bytes(payload), complete
    return encoding.encode(payload, chosen), complete


@contextmanager
def observed(
    instrument: Instrument, *, succeeded: str = "true", failed: str = "false", count: int = 1
) -> Iterator[Operation]:
    """Observe the block as one operation of *instrument*, whose outcome is called *succeeded* or *failed*."""
    with instrument.start(count=count) as operation:
        operation.outcome = failed
        yield operation
        operation.outcome = succeeded


def budget(timeout: float) -> float:
    """
    Seconds that a call may take: *timeout*, or what the deadline of the work at hand leaves of it.

    Raises:
        DeadlineExceeded: nothing is left, so nothing should be sent.
    """
    left = remaining()
    if left is None or left > timeout:
        return timeout
    if left <= 0:
        raise DeadlineExceeded("the deadline passed before the message was sent")
    return left


def check_timeout(name: str, seconds: float) -> None:
    """Raise ConfigError unless *seconds* are above 0."""
    if not seconds > 0:
        raise ConfigError(f"{name} {seconds} is not above 0: give it in seconds")


@contextmanager
def translated(doing: str, *errors: type[BaseException]) -> Iterator[None]:
    """Raise `PublishFailed` (``<doing>: <what the driver said>``) from any of *errors* in the block."""
    try:
        yield
    except PublishFailed:
        raise
    except errors as error:
        raise PublishFailed(f"{doing}: {error or type(error).__name__}") from error


class _Slot(Generic[T]):
    """One process's value; *lock* guards *value* while it is opened, replaced or closed."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.value: T | None = None


class PerProcess(Generic[T]):
    """
    A value that is opened when it is first needed, once in each process, and shared by its threads.

    A forked child opens its own. What it inherited it neither uses nor closes, and it keeps it from
    the garbage collector, because the socket behind it is the parent's.

    Args:
        opened: makes the value, within the seconds that it is given.
        closed: ends it; what it raises comes out of `close`.
        what: what it is, for messages (``"Kafka producer"``).
    """

    def __init__(self, opened: Callable[[float], T], closed: Callable[[T], None], what: str) -> None:
        self._opened = opened
        self._close = closed
        self._what = what
        self._ended = False
        self._slots: dict[int, _Slot[T]] = {}

    def get(self, timeout: float) -> T:
        """
        The value of this process, opened if need be within *timeout* seconds. Any thread may call.

        Raises:
            PublishFailed: it was closed, or another thread is opening it all the time.
        """
        slot = self._slot()
        value = slot.value
        return value if value is not None and not self._ended else self._get(slot, timeout)

    def peek(self) -> T | None:
        """The value of this process if it is open."""
        return self._slot().value

    def discard(self, value: T) -> None:
        """Close *value*, which is broken; the next `get` opens another. Nothing if that was done already."""
        slot = self._slot()
        with slot.lock:
            mine = slot.value is value
            if mine:
                slot.value = None
        if mine:
            self._close(value)

    def close(self) -> None:
        """Close the value of this process for good. May be called twice."""
        self._ended = True
        slot = self._slot()
        with slot.lock:
            value, slot.value = slot.value, None
        if value is not None:
            self._close(value)

    def _slot(self) -> _Slot[T]:
        pid = os.getpid()
        # A lock that another thread held at the fork stays held in the child: hence a new slot, not a new value.
        return self._slots.get(pid) or self._slots.setdefault(pid, _Slot())

    def _get(self, slot: _Slot[T], timeout: float) -> T:
        until = time.monotonic() + timeout
        if not slot.lock.acquire(timeout=timeout):
            raise PublishFailed(f"the {self._what} could not be opened within {timeout:g} s")
        try:
            if self._ended:
                raise PublishFailed(f"the {self._what} is closed")
            if slot.value is None:
                slot.value = self._opened(max(0.001, until - time.monotonic()))
            return slot.value
        finally:
            slot.lock.release()
