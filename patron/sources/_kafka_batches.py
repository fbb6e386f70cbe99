"""
Reading batches of records that are damaged, which kafka-python leaves to the user, and then turns round for ever.

A batch whose checksum is wrong or whose compression is unknown becomes one record with the bytes
as they came; a record with a header name that is no UTF-8 becomes itself, as far as it can be read.
The format: https://kafka.apache.org/documentation/#recordbatch
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from patron.sources._kafka_library import Client, DefaultRecord, decode_varint
from patron.sources._kafka_messages import Flawed

__all__ = ["guard"]


def guard(consumer: Client) -> None:
    """Let *consumer* give out what it cannot read, with `Flawed` headers, instead of raising."""
    fetcher = consumer._fetcher

    class Guarded(fetcher.PartitionRecords):  # type: ignore[misc, name-defined]
        def _unpack_records(self, tp: Any, records: Any, *deserializers: Any) -> Iterator[Any]:
            readable = _Readable(records, self.fetch_offset, self.check_crcs)
            unpacked: Iterator[Any] = super()._unpack_records(tp, readable, *deserializers)
            return unpacked

    fetcher.PartitionRecords = Guarded


class _Readable:
    """The batches of one fetch; what cannot be read is replaced."""

    def __init__(self, records: Any, start: int, check: bool) -> None:
        self._records = records
        self._start = start
        self._check = check

    def next_batch(self) -> Any:
        batch = self._records.next_batch()
        if batch is None or batch.magic < 2:
            return batch
        if self._check and not batch.validate_crc():
            return _Lost(batch, self._start, "its checksum is wrong")
        if batch.is_control_batch:
            return batch
        try:
            iter(batch)
        except Exception as error:  # noqa: BLE001 - a codec may raise anything
            return _Lost(batch, self._start, f"it cannot be uncompressed: {error}")
        return _Batch(batch)


class _Batch:
    """A batch that can be read, but for single records."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def validate_crc(self) -> bool:
        """That was done."""
        return True

    def __iter__(self) -> Iterator[Any]:
        records = self._batch
        while True:
            try:
                yield from records
                return
            except Exception as error:  # noqa: BLE001 - what the driver could not read
                record = _as_far_as_possible(records, str(error))
            yield record


class _Lost:
    """In place of a batch that cannot be read at all: one record at its last offset, with its bytes."""

    magic = 2
    is_control_batch = False
    is_transactional = False
    producer_id = -1

    def __init__(self, batch: Any, start: int, problem: str) -> None:
        self.leader_epoch = batch.leader_epoch
        self.base_offset = batch.base_offset
        # At least one further than where we are, whatever the damaged header says.
        self.last_offset = max(batch.last_offset, start)
        self.next_offset = self.last_offset + 1
        self._timestamp = batch.max_timestamp
        self._bytes = bytes(batch._buffer)
        self._problem = f"batch at offset {batch.base_offset} cannot be read: {problem}"

    def validate_crc(self) -> bool:
        return True

    def has_producer_id(self) -> bool:
        return False

    def __iter__(self) -> Iterator[Any]:
        headers = Flawed((), self._problem)
        yield DefaultRecord(
            len(self._bytes), self.last_offset, self._timestamp, 0, None, self._bytes, headers
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
