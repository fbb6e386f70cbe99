"""
The frames of AMQP 0-9-1 that carry messages, taken out of the stream before the driver decodes them.

pika goes through its callbacks for every frame of a message and decodes each property, which costs several times what
there is to do, and breaks the connection over a header that it cannot decode: the message comes again, for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct

__all__ = ["Deliveries", "Frames", "OnDelivery"]

OnDelivery = Callable[[int, bool, str, str, bytes, bytes], None]
"""Called with delivery tag, redelivered, exchange, routing key, encoded properties and body."""

_METHOD, _HEADER, _BODY = 1, 2, 3
_DELIVER = b"\x00\x3c\x00\x3c"  # class 60, method 60
_END = 0xCE
_OVERHEAD = 8

_head = Struct(">BHL").unpack_from
_tag = Struct(">Q?").unpack_from
_size = Struct(">Q").unpack_from


class Frames:
    """
    Cuts the stream into frames (specification, 4.2.3) and gives each to whom it concerns.

    Args:
        other: gets every frame that is not part of a delivery, whole, and what is no frame at all.
    """

    def __init__(self, other: Callable[[bytes], None]) -> None:
        self._other = other
        self._rest = b""
        self.deliveries: dict[int, Deliveries] = {}

    def feed(self, data: bytes) -> None:
        """Take the next piece of the stream."""
        if self._rest:
            data = self._rest + data
        if data.startswith(b"AMQP"):  # a broker of another version
            self._rest = b""
            self._other(data)
            return
        start, size, deliveries = 0, len(data), self.deliveries
        while start + _OVERHEAD <= size:
            kind, number, length = _head(data, start)
            end = start + length + _OVERHEAD
            if end > size:
                break
            taker = deliveries.get(number)
            if taker is None or data[end - 1] != _END or not taker.take(kind, data, start + 7, end - 1):
                self._other(data[start:end])
            start = end
        self._rest = data[start:]


class Deliveries:
    """Puts together what one channel delivers: a method, a header and the frames of the body."""

    def __init__(self, deliver: OnDelivery) -> None:
        self._deliver = deliver
        self._method: tuple[int, bool, str, str] | None = None
        self._properties = b""
        self._body: list[bytes] = []
        self._missing = 0

    def take(self, kind: int, data: bytes, start: int, end: int) -> bool:
        """Take the payload of a frame, ``data[start:end]``; returns False when it belongs to no delivery."""
        if kind == _METHOD:
            if not data.startswith(_DELIVER, start):
                return False
            self._method = _delivered(data, start + 4)
            return True
        if self._method is None:
            return False
        if kind == _HEADER:
            self._missing = _size(data, start + 4)[0]
            self._properties = data[start + 12 : end]
        elif kind == _BODY:
            self._body.append(data[start:end])
            self._missing -= end - start
        else:
            return False
        if self._missing <= 0:
            self._finish(self._method)
        return True

    def _finish(self, method: tuple[int, bool, str, str]) -> None:
        fragments, self._body, self._method = self._body, [], None
        self._deliver(*method, self._properties, fragments[0] if len(fragments) == 1 else b"".join(fragments))


def _delivered(data: bytes, at: int) -> tuple[int, bool, str, str]:
    """Delivery tag, redelivered, exchange and routing key of a basic.deliver whose arguments start *at*."""
    at += data[at] + 1  # the consumer's tag: a channel has one consumer
    tag, redelivered = _tag(data, at)
    at += 9
    middle = at + data[at] + 1
    exchange = data[at + 1 : middle].decode("utf-8", "backslashreplace")
    end = middle + data[middle] + 1
    return tag, redelivered, exchange, data[middle + 1 : end].decode("utf-8", "backslashreplace")
