"""Messages of AMQP as messages of Patron, and the other way round."""

from __future__ import annotations

import time
import uuid
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from patron.consumer.source import Message
from patron.correlation import message_headers
from patron.sources._amqp_properties import Properties

__all__ = ["KEY_HEADER", "Delivery", "fitting", "message_of", "properties_of"]

KEY_HEADER = "X-Patron-Key"
"""The header that carries the key of a message, which AMQP does not know."""

_COUNT_HEADER = "x-delivery-count"
_DIGITS = 9  # of a count; a classic queue lets anybody write it
_OWN = {KEY_HEADER.lower(), _COUNT_HEADER}
_BROKERS = ("CC", "BCC", "x-death", "x-first-death-", "x-last-death-")
"""What the broker reads or writes itself, and refuses in the form of text."""

_PERSISTENT = 2
_LONGEST_SHORT = 255
_ENTRY = 6  # bytes of a header in its table, beside name and value


class Delivery(NamedTuple):
    """``Message.raw``: what came with the message, besides its body."""

    delivery_tag: int
    redelivered: bool
    exchange: str
    routing_key: str
    encoded: bytes

    @property
    def properties(self) -> Any:
        """The ``pika.BasicProperties``, with headers in their own types; decoding may raise."""
        from patron.sources._amqp_connection import decoded

        return decoded(self.encoded)


def message_of(delivery: Delivery, body: bytes, queue: str, generation: int, max_body: int) -> Message:
    """
    The message that was delivered; one whose body would have more than *max_body* bytes when unpacked stays packed.

    Its key is the header `KEY_HEADER`, else the routing key when it came through a named exchange. The properties
    content type and content encoding stand among its headers. `deliveries` is the broker's count where it has one
    (quorum queues), else 2 for what was given out before.
    """
    read = Properties(delivery.encoded)
    headers, problem, deliveries = read.headers, read.problem, 1
    if delivery.redelivered:
        count = headers.get(_COUNT_HEADER, "")
        deliveries = int(count) + 1 if count.isdecimal() and len(count) <= _DIGITS else 2
    headers.pop(_COUNT_HEADER, None)
    key = headers.pop(KEY_HEADER, None)
    if key is None and delivery.exchange:
        key = delivery.routing_key
    if read.content_type:
        _add(headers, "Content-Type", read.content_type)
    if read.content_encoding and read.content_encoding.lower() not in _PLAIN:
        body, unknown = _decompressed(body, read.content_encoding.lower(), max_body)
        problem = problem or unknown
        if unknown:
            _add(headers, "Content-Encoding", read.content_encoding)
    message = Message(
        body,
        queue,
        read.message_id or f"delivery-{generation}-{delivery.delivery_tag}",
        headers,
        key,
        None,
        None,
        deliveries,
        0,
        read.timestamp,
        generation,
        delivery,
    )
    if problem is not None:
        message.problem = problem
    return message


def properties_of(headers: Mapping[str, str] | None, key: str | None, **more: Any) -> dict[str, Any]:
    """
    The properties of a persistent message with *headers* and *key*, and an id of its own.

    What AMQP cannot carry, as half a surrogate in the text of an error, is written with backslashes.
    """
    table = {_carried(name): _carried(value) for name, value in message_headers(headers).items()}
    values: dict[str, Any] = {
        "message_id": uuid.uuid4().hex,
        "timestamp": int(time.time()),
        "delivery_mode": _PERSISTENT,
    }
    for name in [name for name in table if name.lower() == "content-type"]:
        if len(table[name].encode()) <= _LONGEST_SHORT:
            values["content_type"] = table[name]
            if name == "Content-Type":
                del table[name]
    for name in [name for name in table if name.lower() in _OWN or name.startswith(_BROKERS)]:
        del table[name]
    if key is not None:
        table[KEY_HEADER] = _carried(key)
    return {**values, "headers": table, **more}


def fitting(headers: Mapping[str, str], most: int) -> tuple[dict[str, str], list[str]]:
    """
    *headers* of *most* bytes at most, and the names of those that were cut for it, the longest first.

    All of them must fit into one frame, and the broker closes the connection of who sends a larger one.
    """
    kept, cut = dict(headers), []
    size = sum(len(name.encode()) + len(value.encode()) + _ENTRY for name, value in kept.items())
    while size > most and any(kept.values()):
        name = max(kept, key=lambda each: len(kept[each].encode()))
        value = kept[name].encode()
        kept[name] = value[: max(0, len(value) - (size - most))].decode("utf-8", "ignore")
        size -= len(value) - len(kept[name].encode())
        cut.append(name)
    return kept, cut


def _carried(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _add(headers: dict[str, str], name: str, value: str) -> None:
    """Add a property to *headers*, unless a header says it already."""
    if not headers or not any(known.lower() == name.lower() for known in headers):
        headers[name] = value


_PLAIN = {"identity", "utf-8", "utf8", "us-ascii", "ascii", "binary"}
"""Content encodings that leave a body as it is; some clients name the charset here."""

_COMPRESSED = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}


def _decompressed(body: bytes, encoding: str, most: int) -> tuple[bytes, str | None]:
    """The body as it was before *encoding*; or as it is, and what is wrong."""
    bits = _COMPRESSED.get(encoding)
    if bits is None:
        return body, f"unknown content encoding {encoding!r}"
    stream = zlib.decompressobj(bits)
    try:
        plain = stream.decompress(body, most + 1)
    except zlib.error as error:
        return body, f"not {encoding}: {error}"
    if len(plain) > most:
        return body, f"unpacks to more than {most} bytes (max_body)"
    return (plain, None) if stream.eof else (body, f"not {encoding}: cut off")
