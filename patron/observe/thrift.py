"""
Spans in Thrift's compact protocol, as a Jaeger agent takes them over UDP.

Written by hand, since the generated types take three times as long and their fast path refuses
them. The structures are those of jaeger.thrift and agent.thrift
(https://github.com/jaegertracing/jaeger-idl), the encoding is
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

from patron.varint import varint

__all__ = ["MOST_BYTES", "batches", "encode_process", "encode_span"]

MOST_BYTES = 65_000
"""The largest datagram; the agent's own limit, and that of UDP over IPv4, is 65,507 bytes."""

# Field types; the type of a boolean field is its value.
_true, _false, _i32, _i64, _double, _binary, _list, _struct = 1, 2, 5, 6, 7, 8, 9, 12
_stop = b"\x00"
_string_tag, _double_tag, _bool_tag, _long_tag, _binary_tag = range(5)
_pack_double = struct.Struct("<d").pack
_most_string = 16_384

# emitBatch, one-way, sequence 0; then field 1 of its arguments and field 1 of the batch: two structs.
_opening = b"\x82\x81\x00\x09emitBatch" + bytes((1 << 4 | _struct, 1 << 4 | _struct))
_spans_field = bytes((1 << 4 | _list,))
_closing = _stop + _stop
_overhead = len(_opening) + len(_spans_field) + 6 + len(_closing)


def batches(process: bytes, spans: Iterable[bytes]) -> Iterable[tuple[bytes, int]]:
    """Datagrams, each with the number of its spans, that hold *spans* in order; each one is small enough."""
    room = MOST_BYTES - _overhead - len(process)
    waiting: list[bytes] = []
    size = 0
    for span in spans:
        if waiting and size + len(span) > room:
            yield _batch(process, waiting), len(waiting)
            waiting, size = [], 0
        waiting.append(span)
        size += len(span)
    if waiting:
        yield _batch(process, waiting), len(waiting)


def encode_process(service: str, tags: Sequence[Any]) -> bytes:
    """A ``Process``: the name of the service and its tags."""
    return b"".join((b"\x18", _string(service), b"\x19", _tags(tags), _stop))


def encode_span(span: Any) -> bytes:
    """A ``Span``, from a finished span of jaeger-client."""
    start = int(span.start_time * 1_000_000)
    parts = [
        b"\x16" + _integer(_signed(span.trace_id)),
        b"\x16" + _integer(_signed(span.trace_id >> 64)),
        b"\x16" + _integer(_signed(span.span_id)),
        b"\x16" + _integer(_signed(span.parent_id or 0)),
        b"\x18" + _string(span.operation_name),
        b"\x25" + _integer(span.flags),
        b"\x16" + _integer(start),
        b"\x16" + _integer(max(0, int(span.end_time * 1_000_000) - start)),
        b"\x19" + _tags(span.tags),
    ]
    if span.logs:
        parts.append(b"\x19" + _list_header(len(span.logs)))
        parts.extend(
            b"\x16" + _integer(log.timestamp) + b"\x19" + _tags(log.fields) + _stop for log in span.logs
        )
    parts.append(_stop)
    return b"".join(parts)


def _batch(process: bytes, spans: Sequence[bytes]) -> bytes:
    return b"".join((_opening, process, _spans_field, _list_header(len(spans)), *spans, _closing))


def _tags(tags: Sequence[Any]) -> bytes:
    return _list_header(len(tags)) + b"".join(map(_tag, tags))


def _tag(tag: Any) -> bytes:
    """A ``Tag``; key is field 1, type field 2, and the value field 3 to 7, depending on the type."""
    key = b"\x18" + _string(tag.key) + b"\x15"
    kind = tag.vType
    if kind == _bool_tag:
        return key + b"\x04" + (b"\x31" if tag.vBool else b"\x32") + _stop
    if kind == _double_tag:
        return key + b"\x02\x27" + _pack_double(tag.vDouble) + _stop
    if kind == _long_tag and -(1 << 63) <= tag.vLong < 1 << 63:
        return key + b"\x06\x46" + _integer(tag.vLong) + _stop
    if kind == _binary_tag:
        return key + b"\x08\x58" + varint(len(tag.vBinary)) + bytes(tag.vBinary) + _stop
    return key + b"\x00\x18" + _string(str(tag.vLong) if kind == _long_tag else tag.vStr) + _stop


def _list_header(size: int) -> bytes:
    return bytes((size << 4 | _struct,)) if size < 15 else bytes((0xF0 | _struct,)) + varint(size)


def _string(value: str) -> bytes:
    encoded = value[:_most_string].encode("utf-8", "replace")
    return varint(len(encoded)) + encoded


def _integer(value: int) -> bytes:
    """Zigzag, then variable length."""
    return varint(value << 1 if value >= 0 else (-value << 1) - 1)


def _signed(identifier: int) -> int:
    """The lower 64 bits as the signed number that Thrift has for them."""
    low = identifier & 0xFFFFFFFFFFFFFFFF
    return low - (1 << 64) if low >> 63 else low
