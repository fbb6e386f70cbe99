"""
Codecs by media type: what bytes mean, and how values become bytes.

JSON and Protocol Buffers are built in; `register` adds others. The JSON here is strict, because a
service should notice a broken client: UTF-8 only, no ``NaN`` or ``Infinity``, no number beyond a
float, no value coerced into another type (``"2"`` is no int). Of a repeated object key the last
one wins (RFC 8259, section 4, leaves that open).

Beside JSON's own types these can be written: dataclasses and pydantic models as objects, enums as
their value, ``datetime``, ``date`` and ``time`` in ISO 8601 (UTC as ``Z``), ``timedelta`` as
seconds, ``Decimal``, ``UUID`` and paths as strings, sets and other mappings. ``bytes`` are refused:
whether they are text or base64 is for the service to say.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import functools
import json
import math
import pathlib
import re
import sys
import uuid
from collections.abc import Callable, Mapping, Set
from typing import Any, Protocol, TypeVar, overload

from patron.errors import ConfigError, DecodeError, EncodeError, UnknownContentType

__all__ = [
    "JSON",
    "PROTOBUF",
    "Codec",
    "codec",
    "decode",
    "encode",
    "media_type",
    "media_types",
    "register",
    "unregister",
]

T = TypeVar("T")

JSON = "application/json"
PROTOBUF = "application/x-protobuf"
_GOOGLE_PROTOBUF = "application/x-google-protobuf"


class Codec(Protocol):
    """How the values of one format are read and written; shared by all threads, so without state."""

    @property
    def content_type(self) -> str | None:
        """The ``Content-Type`` of what `encode` writes; None: the name it was asked for by."""
        ...

    def encode(self, value: Any) -> bytes:
        """*value* as bytes. Raises `EncodeError`."""
        ...

    def decode(self, body: bytes, into: Any, parameters: Mapping[str, str]) -> Any:
        """
        The value in *body*, of type *into* unless that is None.

        *parameters* are those of the content type, names in lower case. Raises `DecodeError`, or
        `UnknownContentType` when *into* can never be read from this format.
        """
        ...


# ------------------------------------------------------------------ by content type


@overload
def decode(body: bytes, content_type: str | None = None, into: None = None) -> Any: ...
@overload
def decode(body: bytes, content_type: str | None, into: type[T]) -> T: ...
def decode(body: bytes, content_type: str | None = None, into: Any = None) -> Any:
    """
    The value in *body*, by its *content_type* (none means JSON), checked against *into*.

    *into* is a dataclass, a pydantic model, a Protocol Buffers message or any type that pydantic
    understands (``list[Order]``); fields that it does not know are ignored unless it forbids them.

    Raises:
        DecodeError: the bytes are broken, or of another shape; ``fields`` names the wrong fields.
        UnknownContentType: no codec reads that content type, or not into that type.
    """
    essence, parameters = media_type(content_type or JSON)
    return codec(essence).decode(body, into, parameters)


def encode(value: Any, content_type: str = JSON) -> bytes:
    """
    *value* in the format called *content_type*.

    Raises:
        EncodeError: the format has no form for the value.
        UnknownContentType: no codec writes that content type.
    """
    return codec(media_type(content_type)[0]).encode(value)


def media_type(content_type: str) -> tuple[str, Mapping[str, str]]:
    """
    The type in lower case and the parameters of a ``Content-Type`` (RFC 9110, section 8.3).

    Raises:
        UnknownContentType: it is no media type.
    """
    if len(content_type) > _LONGEST_TYPE:
        raise UnknownContentType(f"a content type of {len(content_type)} characters is not read")
    return _media_type(content_type)


@functools.lru_cache(maxsize=256)
def _media_type(content_type: str) -> tuple[str, Mapping[str, str]]:
    essence, _, rest = content_type.partition(";")
    essence = essence.strip(" \t").lower()
    if not _ESSENCE.fullmatch(essence):
        raise UnknownContentType(f"{content_type[:100]!r} is no media type: write type/subtype")
    return essence, {name.lower(): _unquoted(value) for name, value in _PARAMETER.findall(rest)}


_LONGEST_TYPE = 1000
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110's token
_ESSENCE = re.compile(rf"{_TOKEN}/{_TOKEN}")
_PARAMETER = re.compile(rf'({_TOKEN})=({_TOKEN}|"(?:[^"\\]|\\.)*")')


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


def codec(essence: str) -> Codec:
    """
    The codec of a media type without parameters; ``application/anything+json`` is JSON (RFC 6839).

    Raises:
        UnknownContentType: there is none; the message lists those that there are.
    """
    found = _codecs.get(essence)
    if found is None and essence.endswith("+json"):
        found = _codecs.get(JSON)
    if found is None:
        raise UnknownContentType(f"content type {essence!r} is not supported: use {', '.join(_codecs)}")
    return found


def media_types() -> tuple[str, ...]:
    """All media types that have a codec; the first is preferred when a client does not care."""
    return tuple(_codecs)


def register(codec: Codec, *names: str) -> None:
    """
    Let *codec* read and write the media types *names*; do it at import time, before the service runs.

    A name that is registered already gets the new codec.

    Raises:
        ConfigError: a name is no media type, or there is none.
    """
    global _codecs
    wrong = [name for name in names if not _ESSENCE.fullmatch(name)]
    if wrong or not names:
        raise ConfigError(f"register() needs media types such as 'application/cbor', not {wrong}")
    _codecs = _codecs | {name.lower(): codec for name in names}


def unregister(*names: str) -> None:
    """Forget the codecs of the media types *names*; unknown ones are no error."""
    global _codecs
    gone = {name.lower() for name in names}
    _codecs = {name: known for name, known in _codecs.items() if name not in gone}


# ------------------------------------------------------------------ JSON


class _Json:
    content_type = "application/json; charset=utf-8"

    def encode(self, value: Any) -> bytes:
        try:
            return _write(value).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise EncodeError(f"JSON has no form for it: {error}") from error

    def decode(self, body: bytes, into: Any, parameters: Mapping[str, str]) -> Any:
        if parameters and parameters.get("charset", "utf-8").lower() not in ("utf-8", "utf8", "us-ascii"):
            raise DecodeError(f"charset {parameters['charset'][:40]!r} is not supported: send JSON as utf-8")
        if into is None:
            return _parse(body)
        if _is_message(into):
            return _message_from_json(body, into)
        return _validate(body, into)


def _plain(value: Any) -> Any:
    """What the encoder asks for every value that JSON has no type for."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    for kind, write in _FORMS:
        if isinstance(value, kind):
            return write(value)
    if hasattr(type(value), "__pydantic_serializer__"):
        return value.model_dump(mode="json")
    if _is_message(type(value)):
        return _message_as_json(value)
    raise TypeError(f"{type(value).__name__} is not a JSON type: convert it first")


def _utc_as_z(value: datetime.datetime | datetime.time) -> str:
    text = value.isoformat()
    return text[:-6] + "Z" if text.endswith("+00:00") else text


_FORMS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (enum.Enum, lambda value: value.value),
    (datetime.datetime, _utc_as_z),
    (datetime.date, datetime.date.isoformat),
    (datetime.time, _utc_as_z),
    (datetime.timedelta, datetime.timedelta.total_seconds),
    (uuid.UUID, str),
    (decimal.Decimal, str),
    (Mapping, dict),
    (Set, list),
    (pathlib.PurePath, str),
)

_write = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain).encode


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _finite(number: str) -> float:
    value = float(number)
    return value if math.isfinite(value) else _refuse(f"a number as large as {number[:20]}")


_read = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite).decode


def _parse(body: bytes) -> Any:
    try:
        value = _read(body.decode("utf-8-sig"))  # a BOM may be ignored: RFC 8259, section 8.1
        if _SURROGATE.search(body):
            _write(value).encode()  # half a surrogate pair could not be written again, not even to the log
        return value
    except RecursionError:
        raise DecodeError("invalid JSON: nested too deeply") from None
    except (ValueError, UnicodeError) as error:
        raise DecodeError(f"invalid JSON: {error}") from error


_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
# What pydantic's parser lets through and ours does not: then ours has the first look.
_SUSPECT = re.compile(rb"NaN|Infinity|\d[eE]\+?\d{3}|\d{300}")


def _validate(body: bytes, into: Any) -> Any:
    from pydantic import ValidationError

    if _SUSPECT.search(body):
        _parse(body)
    try:
        return _adapter(into).validate_json(body, strict=True)
    except ValidationError as error:
        raise _decode_error(error) from error
    except RecursionError:
        raise DecodeError("invalid JSON: nested too deeply") from None


@functools.lru_cache(maxsize=512)
def _adapter(into: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(into)


def _decode_error(error: Any) -> DecodeError:
    problems = [
        (".".join(map(str, problem["loc"])), _sentence(problem["msg"]))
        for problem in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    text = "; ".join(f"{path}: {message}" if path else message for path, message in problems)
    return DecodeError(text, {path: message for path, message in problems if path})


def _sentence(message: str) -> str:
    """Pydantic's *message*, with our words for what every reader of JSON says."""
    return message.removeprefix("Value error, ").replace("Invalid JSON:", "invalid JSON:")


# ------------------------------------------------------------------ Protocol Buffers


class _Protobuf:
    """Its messages bring ``google.protobuf`` with them, so nothing is imported before there is one."""

    content_type = None

    def encode(self, value: Any) -> bytes:
        if not _is_message(type(value)):
            raise EncodeError(f"{type(value).__name__} is no Protocol Buffers message")
        try:
            return bytes(value.SerializeToString())
        except Exception as error:  # required fields are missing: driver's own EncodeError
            raise EncodeError(str(error)) from error

    def decode(self, body: bytes, into: Any, parameters: Mapping[str, str]) -> Any:
        if not _is_message(into):
            wanted = getattr(into, "__name__", into)
            raise UnknownContentType(f"Protocol Buffers cannot be read into {wanted}: send {JSON}")
        return _translated(into.FromString, body)


def _is_message(kind: Any) -> bool:
    module = sys.modules.get("google.protobuf.message")
    return module is not None and isinstance(kind, type) and issubclass(kind, module.Message)


def _message_from_json(body: bytes, into: Any) -> Any:
    from google.protobuf import json_format

    return _translated(lambda data: json_format.Parse(data, into(), ignore_unknown_fields=True), body)


def _message_as_json(value: Any) -> Any:
    from google.protobuf import json_format

    return json_format.MessageToDict(value)


def _translated(read: Callable[[bytes], Any], body: bytes) -> Any:
    from google.protobuf import json_format, message

    try:
        return read(body)
    except (message.DecodeError, json_format.ParseError, UnicodeError, RecursionError) as error:
        raise DecodeError(f"not such a message: {error}") from error


_protobuf = _Protobuf()
_codecs: dict[str, Codec] = {JSON: _Json(), PROTOBUF: _protobuf, _GOOGLE_PROTOBUF: _protobuf}
