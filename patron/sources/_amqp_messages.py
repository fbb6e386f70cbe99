"""Messages of AMQP as messages of Patron, and the other way round."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

from patron.consumer.source import Message
from patron.correlation import message_headers

__all__ = ["KEY_HEADER", "Delivery", "message_of", "properties_of"]

KEY_HEADER = "X-Patron-Key"
"""The header that carries the key of a message, which AMQP does not know."""

_COUNT_HEADER = "x-delivery-count"
_OWN = {KEY_HEADER.lower(), _COUNT_HEADER}
_BROKERS = ("CC", "BCC", "x-death", "x-first-death-", "x-last-death-")
"""What the broker reads or writes itself, and refuses in the form of text."""

_PERSISTENT = 2
_LONGEST_SHORT = 255


class Delivery(NamedTuple):
    """What the driver gave: ``Message.raw``. *method* has the delivery tag, *properties* all of the rest."""

    method: Any
    properties: Any


def message_of(method: Any, properties: Any, body: bytes, queue: str, generation: int) -> Message:
    """
    The message that was delivered.

    Its key is the header `KEY_HEADER`, else the routing key when it came through a named exchange. The properties
    content type and content encoding stand among its headers. `deliveries` is the broker's count where it has one
    (quorum queues), else 2 for what was given out before.
    """
    headers, deliveries = {}, 2 if method.redelivered else 1
    key = method.routing_key if method.exchange else None
    if properties.headers:
        for name, value in properties.headers.items():
            if type(name) is not str:
                name = text(name)
            if name in _NOTED or name.lower() in _OWN:
                if name.lower() == _COUNT_HEADER:
                    if method.redelivered and isinstance(value, int):
                        deliveries = value + 1
                else:
                    key = text(value)
            else:
                headers[name] = value if type(value) is str else text(value)
    if properties.content_type:
        _add(headers, "Content-Type", properties.content_type)
    if properties.content_encoding:
        _add(headers, "Content-Encoding", properties.content_encoding)
    return Message(
        body,
        queue,
        text(properties.message_id)
        if properties.message_id
        else f"delivery-{generation}-{method.delivery_tag}",
        headers,
        key,
        None,
        None,
        deliveries,
        0,
        properties.timestamp,
        generation,
        Delivery(method, properties),
    )


def properties_of(headers: Mapping[str, str] | None, key: str | None, **more: Any) -> dict[str, Any]:
    """The properties of a persistent message with *headers* and *key*, and an id of its own."""
    table = message_headers(headers)
    values = {"message_id": uuid.uuid4().hex, "timestamp": int(time.time()), "delivery_mode": _PERSISTENT}
    for name in [name for name in table if name.lower() in _PROPERTIES]:
        if len(table[name].encode()) <= _LONGEST_SHORT:
            values[_PROPERTIES[name.lower()]] = table[name]
            if name in _CANONICAL:
                del table[name]
    for name in [name for name in table if name.lower() in _OWN or name.startswith(_BROKERS)]:
        del table[name]
    if key is not None:
        table[KEY_HEADER] = key
    return {**values, "headers": table, **more}


def text(value: Any) -> str:
    """The value of a header, which may be of many types in AMQP, as text; bytes that are no UTF-8 as ``\\xff``."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if value is None:
        return ""
    if isinstance(value, (bool, dict, list)):
        return json.dumps(value, default=text, ensure_ascii=False)
    return str(value)


_PROPERTIES = {"content-type": "content_type", "content-encoding": "content_encoding"}
_CANONICAL = {"Content-Type", "Content-Encoding"}
_NOTED = {KEY_HEADER, _COUNT_HEADER}


def _add(headers: dict[str, str], name: str, value: Any) -> None:
    """Add a property to *headers*, unless a header says it already."""
    if name not in headers and not any(known.lower() == name.lower() for known in headers):
        headers[name] = text(value)
