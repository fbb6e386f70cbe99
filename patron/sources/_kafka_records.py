"""
The records of a batch, read in one loop: about half the work of a bare kafka-python consumer is its own reading.

A record with a header name that is no UTF-8 becomes itself, as far as it can be read. The format:
https://kafka.apache.org/documentation/#record
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from patron.sources._kafka_library import (
    ConsumerRecord,
    DefaultRecord,
    DefaultRecordBatch,
    decode_varint,
    errors,
)
from patron.sources._kafka_messages import Flawed

__all__ = ["Part", "records_of"]

Part = Any
"""What kafka-python has fetched of one partition; it must know at each moment which offset comes next."""


def records_of(batch: Any, tp: Any, part: Part) -> Iterator[Any]:
    """
    The records of *batch*, which is uncompressed, as kafka-python gives them out.

    Raises:
        CorruptRecordError: the checksum of a record of an old format is wrong.
    """
    if isinstance(batch, DefaultRecordBatch):
        yield from _modern(batch, tp, part)
        return
    for record in batch:
        if part.check_crcs and not record.validate_crc():
            raise errors.CorruptRecordError(f"record of {tp} at offset {record.offset} has a wrong checksum")
        yield _given_out(record, tp, part)


def _modern(batch: Any, tp: Any, part: Part) -> Iterator[Any]:
    part.bytes_read += batch.size_in_bytes
    data = bytes(batch._buffer)  # whose slices are bytes, as everybody wants them
    while True:
        yield from _plain(batch, data, tp, part)
        # At the end, or at what is not plain: the driver says which.
        try:
            record = next(batch)
        except StopIteration:
            return
        except Exception as error:  # noqa: BLE001 - what the driver could not read
            record = _as_far_as_possible(batch, str(error))
        yield _given_out(record, tp, part)


def _plain(batch: Any, data: bytes, tp: Any, part: Part) -> Iterator[Any]:
    """The next records of *batch* in its *data*, up to one that has something wrong, which it stands at afterwards."""
    topic, partition = tp
    base, began, kind = batch.base_offset, batch.first_timestamp, batch.timestamp_type
    epoch, appended = batch.leader_epoch, batch.max_timestamp if kind else None
    names: dict[bytes, str] = {}
    record, make = ConsumerRecord, tuple.__new__
    at, number, limit = batch._pos, batch._next_record_index, len(data)
    while number < batch._num_records:
        start = at
        # A varint of one byte and not below 0, as most are, is twice its value. Asked here, for calls are slow.
        try:
            length, at = decode_varint(data, at)
            end = at + length
            if (elapsed := data[at + 1]) & 0x81:  # behind the attributes
                elapsed, at = decode_varint(data, at + 1)
            else:
                elapsed, at = elapsed >> 1, at + 2
            if (offset := data[at]) & 0x81:
                offset, at = decode_varint(data, at)
            else:
                offset, at = offset >> 1, at + 1
            if (key_size := data[at]) & 0x81:
                key_size, at = decode_varint(data, at)
            else:
                key_size, at = key_size >> 1, at + 1
            key = data[at : (at := at + key_size)] if key_size >= 0 else None
            value_size, at = decode_varint(data, at)
            value = data[at : (at := at + value_size)] if value_size >= 0 else None
            headers, headers_size, at = _headers(data, at, names)
            if at != end or end > limit:
                raise ValueError("record has another length than it says")
        except (ValueError, IndexError):
            at = start
            break
        number += 1
        offset += base
        part.next_fetch_offset = offset + 1
        timestamp = began + elapsed if appended is None else appended
        yield make(
            record,
            (
                topic,
                partition,
                epoch,
                offset,
                timestamp,
                kind,
                key,
                value,
                headers,
                None,
                key_size if key_size >= 0 else -1,
                value_size if value_size >= 0 else -1,
                headers_size,
            ),
        )
    batch._pos, batch._next_record_index = at, number


def _headers(
    data: bytes, at: int, names: dict[bytes, str]
) -> tuple[list[tuple[str, bytes | None]], int, int]:
    """The headers that begin at *at*, their size (-1: there are none), and their end; *names* are those known."""
    if (count := data[at]) & 0x81:
        count, at = decode_varint(data, at)
    else:
        count, at = count >> 1, at + 1
    if count <= 0:
        if count:
            raise ValueError("number of headers is below 0")
        return [], -1, at
    headers: list[tuple[str, bytes | None]] = []
    total = 0
    for _ in range(count):
        if (size := data[at]) & 0x81:
            size, at = decode_varint(data, at)
        else:
            size, at = size >> 1, at + 1
        if size < 0:
            raise ValueError("name of a header has a length below 0")
        total += size
        name = names.get(raw := data[at : (at := at + size)])
        if name is None:
            name = names[raw] = raw.decode()
        if (size := data[at]) & 0x81:
            size, at = decode_varint(data, at)
        else:
            size, at = size >> 1, at + 1
        if size < 0:
            headers.append((name, None))
        else:
            headers.append((name, data[at : (at := at + size)]))
            total += size
    return headers, total, at


def _given_out(record: Any, tp: Any, part: Part) -> Any:
    """*record* of the driver's inner side as it gives it out; *part* goes on behind it."""
    part.next_fetch_offset = record.offset + 1
    part.bytes_read += record.size_in_bytes
    key, value, headers = record.key, record.value, record.headers
    return ConsumerRecord(
        *tp,
        part.leader_epoch,
        record.offset,
        record.timestamp,
        record.timestamp_type,
        key,
        value,
        headers,
        record.checksum,
        -1 if key is None else len(key),
        -1 if value is None else len(value),
        sum(len(name.encode()) + len(content or b"") for name, content in headers) if headers else -1,
    )


def _as_far_as_possible(batch: Any, problem: str) -> Any:
    """The next record of *batch*, which is then behind it; the rest of the batch when not even that can be found."""
    start = batch._pos
    try:
        length, at = decode_varint(batch._buffer, start)
        record = _record(batch, at, length, problem)
    except Exception:  # noqa: BLE001 - nothing can be read from here on
        rest = bytes(batch._buffer[start:])
        batch._pos, batch._next_record_index = len(batch._buffer), batch._num_records
        return DefaultRecord(
            len(rest), batch.last_offset, batch.max_timestamp, 0, None, rest, Flawed((), problem)
        )
    batch._pos = at + length
    batch._next_record_index += 1
    return record


def _record(batch: Any, at: int, length: int, problem: str) -> Any:
    buffer, end = batch._buffer, at + length
    if end > len(buffer):
        raise ValueError("record is longer than its batch")
    delta, at = decode_varint(buffer, at + 1)  # behind the attributes
    offset, at = decode_varint(buffer, at)
    key, at = _bytes(buffer, at)
    value, at = _bytes(buffer, at)
    count, at = decode_varint(buffer, at)
    headers = []
    for _ in range(count):
        name, at = _bytes(buffer, at)
        content, at = _bytes(buffer, at)
        headers.append(((name or b"").decode("utf-8", "backslashreplace"), content))
    if at != end:
        raise ValueError("record has another length than it says")
    timestamp = batch.max_timestamp if batch.timestamp_type else batch.first_timestamp + delta
    flawed = Flawed(headers, f"record cannot be read: {problem}")
    return DefaultRecord(
        length, batch.base_offset + offset, timestamp, batch.timestamp_type, key, value, flawed
    )


def _bytes(buffer: bytearray, at: int) -> tuple[bytes | None, int]:
    length, at = decode_varint(buffer, at)
    return (None, at) if length < 0 else (bytes(buffer[at : at + length]), at + length)
