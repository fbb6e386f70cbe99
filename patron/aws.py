"""
What SQS and SNS messages look like on the wire, whoever sends or reads them: bodies, attributes, limits, error codes.

A body is text and a header is a string attribute, so that any program can read what Patron sends. What
AWS does not take as it is (other bytes, empty values, an eleventh attribute) is wrapped, and the
attributes that start with ``X-Patron-`` say how. docs/sqs.md is the specification.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import re
import zlib
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from patron.errors import PublishFailed

__all__ = [
    "ENCODING",
    "HEADERS",
    "KEY",
    "MAX_ATTRIBUTES",
    "MAX_BYTES",
    "NO_REGION",
    "batches_of",
    "check_size",
    "code_of",
    "digest",
    "endpoint_problem",
    "group_of",
    "opened",
    "plain",
    "queue_name",
    "quieten",
    "size_of",
    "wrapped",
]

MAX_BYTES = 1024 * 1024
"""The largest message: its body and the names, types and values of its attributes together."""

MAX_ATTRIBUTES = 10
"""How many attributes a message may have."""

ENCODING = "X-Patron-Encoding"
"""How the body was wrapped: ``base64``, ``zlib`` (and base64) or ``empty``."""

HEADERS = "X-Patron-Headers"
"""A JSON object of the headers that are no attributes of their own."""

KEY = "X-Patron-Key"
"""The key of the message, where it is not the message group."""

KEYLESS = "patron.keyless."
"""What the group of a message without a key starts with, in a FIFO queue."""

_PACKED = MAX_ATTRIBUTES - 1

# What SQS takes as a body: the characters of XML 1.0 (API reference of SendMessage).
_not_text = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]").search
_attribute = re.compile(r"(?!(?i:aws|amazon)\.)[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*").fullmatch
_group = re.compile(r"[A-Za-z0-9!\"#$%&'()*+,./:;<=>?@\[\\\]^_`{|}~-]{1,128}").fullmatch
_no_queue = re.compile(r"[^A-Za-z0-9_-]")


# Out


def wrapped(
    body: bytes, headers: Mapping[str, str], key: str | None = None
) -> tuple[str, dict[str, dict[str, Any]]]:
    """
    The text and the attributes of a message.

    A body that is no text is written as base64; one that would be too large is compressed. Of more
    headers than attributes, the last ones are put into one.

    Raises:
        PublishFailed: it is larger than AWS allows.
    """
    named = dict(headers) if key is None else {**headers, KEY: key}
    text = _text(body)
    complete = named if text is not None else {**named, ENCODING: "base64" if body else "empty"}
    attributes = _attributes(complete)
    if text is None:
        text = base64.b64encode(body).decode() or "-"
    if size_of(text, attributes) > MAX_BYTES:
        text = base64.b64encode(zlib.compress(body)).decode()
        attributes = _attributes({**named, ENCODING: "zlib"})
    check_size(text, attributes)
    return text, attributes


def _text(body: bytes) -> str | None:
    """*body* as text that arrives as it was sent; None when it is not."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if not text or _not_text(text) else text


def _attributes(headers: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    plain = [name for name, value in headers.items() if _fits(name, value)]
    if len(plain) == len(headers) <= MAX_ATTRIBUTES:
        return {name: _string(headers[name]) for name in plain}
    chosen = sorted(plain, key=_last)[:_PACKED]
    rest = {name: value for name, value in headers.items() if name not in chosen}
    packed = _string(json.dumps(rest, ensure_ascii=True, separators=(",", ":")))
    return {**{name: _string(headers[name]) for name in chosen}, HEADERS: packed}


def _last(name: str) -> bool:
    """What other programs hardly read gives way first: where a dead letter comes from."""
    return name.lower().startswith("x-patron-")


def _fits(name: str, value: str) -> bool:
    return bool(value and len(name) <= 256 and name != HEADERS and _attribute(name) and not _not_text(value))


def _string(value: str) -> dict[str, Any]:
    return {"DataType": "String", "StringValue": value}


def size_of(text: str, attributes: Mapping[str, Mapping[str, Any]]) -> int:
    """The bytes that AWS counts."""
    return len(text.encode()) + sum(
        len(name.encode())
        + len(value["DataType"])
        + len(value.get("BinaryValue") or value.get("StringValue", "").encode())
        for name, value in attributes.items()
    )


def check_size(text: str, attributes: Mapping[str, Mapping[str, Any]], most: int = MAX_BYTES) -> None:
    """Raise PublishFailed when AWS would refuse the message because of its size."""
    size = size_of(text, attributes)
    if size > most:
        raise PublishFailed(
            f"the message has {size} bytes with its attributes and AWS takes {most}: "
            "put the payload elsewhere (S3) and send where it is"
        )


def plain(
    body: bytes, headers: Mapping[str, str], attributes: Mapping[str, Any], most: int = MAX_BYTES
) -> tuple[str, dict[str, dict[str, Any]]]:
    """
    The text and the attributes of a message for any reader: each header is an attribute, and nothing is packed.

    *attributes* are the typed ones: text, numbers, bytes, and sequences, which only SNS knows.

    Raises:
        PublishFailed: they are too many, one has a name or a value that AWS refuses, or all is too large.
    """
    text = _text(body)
    own = {ENCODING: "base64" if body else "empty"} if text is None else {}
    written = {name: _typed(name, value) for name, value in {**headers, **own, **attributes}.items()}
    if len(written) > MAX_ATTRIBUTES:
        raise PublishFailed(
            f"the message has {len(written)} attributes and AWS takes {MAX_ATTRIBUTES}: "
            f"{', '.join(sorted(written))} (correlation id, trace and content type count, too)"
        )
    text = base64.b64encode(body).decode() or "-" if text is None else text
    check_size(text, written, most)
    return text, written


def _typed(name: str, value: Any) -> dict[str, Any]:
    if not _attribute(name) or len(name) > 256:
        raise PublishFailed(
            f"{name!r} is no attribute name for AWS: use letters, digits, _, - and single dots inside"
        )
    if isinstance(value, bytes | bytearray | memoryview) and value:
        return {"DataType": "Binary", "BinaryValue": bytes(value)}
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return {"DataType": "Number", "StringValue": str(value)}
    if isinstance(value, list | tuple):
        return {"DataType": "String.Array", "StringValue": _array(name, value)}
    text = str(value).lower() if isinstance(value, bool) else value
    if not isinstance(text, str) or not text or _not_text(text):
        raise PublishFailed(
            f"attribute {name} is {value!r}: AWS takes text that is not empty and has no control characters, "
            "numbers, bytes that are not empty, and, in SNS, lists of these"
        )
    return _string(text)


def _array(name: str, values: Iterable[Any]) -> str:
    wrong = [each for each in values if not isinstance(each, str | int | float | bool | None)]
    if wrong:
        raise PublishFailed(
            f"attribute {name} has {wrong[0]!r} in its list: use text, numbers, booleans and None"
        )
    return json.dumps(list(values))


def group_of(key: str | None, unique: str) -> str:
    """The message group for *key*: itself where AWS takes it, else an id that stands for it; *unique* for none."""
    if key is None:
        return KEYLESS + unique
    return key if _group(key) and not key.startswith(KEYLESS) else f"patron.key.{digest(key)}"


def digest(text: str) -> str:
    """A name of 32 characters for *text*, always the same."""
    import hashlib

    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def queue_name(topic: str) -> str:
    """The name of the queue for *topic*; what AWS does not take in a name, as the dot in ``orders.dlq``, is a dash."""
    stem, fifo = (topic[:-5], ".fifo") if topic.endswith(".fifo") else (topic, "")
    return _no_queue.sub("-", stem) + fifo


def batches_of(size: int, items: Iterable[Any]) -> list[list[Any]]:
    """*items* in lists of at most *size*."""
    every = list(items)
    return [every[at : at + size] for at in range(0, len(every), size)]


# In


def opened(
    text: str, attributes: Mapping[str, Mapping[str, Any]], max_body: int, group: str | None = None
) -> tuple[bytes, dict[str, str], str | None, str | None]:
    """
    The body, headers and key of what was received, and its problem; never raises, whatever somebody has sent.

    A problem is a body of more than *max_body* bytes when it is unpacked: it stays packed.
    """
    headers = {name: _value(attribute) for name, attribute in attributes.items()}
    if HEADERS in headers:
        headers.update(_unpacked(headers.pop(HEADERS)))
    encoding = headers.pop(ENCODING, None)
    key = headers.pop(KEY, None)
    if key is None and group is not None and not group.startswith(KEYLESS):
        key = group
    try:
        return _bytes(text, encoding, max_body), headers, key, None
    except OverflowError as error:
        return text.encode(), {**headers, ENCODING: str(encoding)}, key, str(error)


def _value(attribute: Mapping[str, Any]) -> str:
    value = attribute.get("StringValue")
    if value is not None:
        return str(value)
    return base64.b64encode(attribute.get("BinaryValue") or b"").decode()


def _unpacked(text: str) -> dict[str, str]:
    try:
        packed = json.loads(text)
    except (ValueError, RecursionError):
        return {HEADERS: text}
    return {str(name): str(value) for name, value in packed.items()} if isinstance(packed, dict) else {}


def _bytes(text: str, encoding: str | None, max_body: int) -> bytes:
    """The body; text that is not what its encoding says stays as it is, for decoding it will tell."""
    try:
        if encoding == "empty":
            return b""
        if encoding == "base64":
            return base64.b64decode(text, validate=True)
        if encoding == "zlib":
            return _inflated(base64.b64decode(text, validate=True), max_body)
    except (binascii.Error, ValueError, zlib.error):
        pass
    return text.encode("utf-8", "surrogatepass")


def _inflated(data: bytes, most: int) -> bytes:
    """What *data* holds; OverflowError when that has more than *most* bytes."""
    inflater = zlib.decompressobj()
    body = inflater.decompress(data, most + 1)
    if len(body) > most:
        raise OverflowError(f"unpacks to more than {most} bytes (max_body)")
    if not inflater.eof:
        raise ValueError("cut off")
    return body


# Errors


def code_of(error: BaseException) -> str:
    """The code of an error of botocore, without the ``AWS.SimpleQueueService.`` before some; "" when it has none."""
    response = getattr(error, "response", None)
    code = response.get("Error", {}).get("Code", "") if isinstance(response, Mapping) else ""
    return str(code).rpartition(".")[2]


# Connecting

NO_REGION = "no region is known: give the setting `region`, or the variable AWS_DEFAULT_REGION"


def endpoint_problem(endpoint_url: str | None) -> str | None:
    """What is wrong with the address of a local service, if anything; None stands for AWS."""
    if endpoint_url is None:
        return None
    try:
        parts = urlsplit(endpoint_url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return None
    except ValueError:
        pass
    return (
        f"endpoint_url {endpoint_url!r} is no URL: give it with http:// or https://, as http://localhost:4566"
    )


def quieten() -> None:
    """Keep botocore from telling at each new client where it found what, unless somebody has set its level."""
    logger = logging.getLogger("botocore")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.WARNING)
