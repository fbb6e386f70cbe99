"""
Which batches of a fetch count, and what becomes of those that are damaged, which kafka-python leaves to the user.

A batch whose checksum is wrong or whose compression is unknown becomes one record with the bytes as
they came. The format: https://kafka.apache.org/documentation/#recordbatch
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from patron.sources._kafka_library import READ_COMMITTED, Client, DefaultRecord
from patron.sources._kafka_messages import Flawed
from patron.sources._kafka_records import Part, records_of

__all__ = ["guard"]


def guard(consumer: Client) -> None:
    """Let *consumer* read fast, and give out what it cannot read, with `Flawed` headers, instead of raising."""
    fetcher = consumer._fetcher

    class Guarded(fetcher.PartitionRecords):  # type: ignore[misc, name-defined]
        def _unpack_records(self, tp: Any, records: Any, *deserializers: Any) -> Iterator[Any]:
            found = _unpacked(self, tp, _Readable(records, self.fetch_offset, self.check_crcs))
            return _deserialized(self, found, *deserializers) if any(deserializers) else found

    fetcher.PartitionRecords = Guarded


def _unpacked(part: Part, tp: Any, batches: _Readable) -> Iterator[Any]:
    """The records of *batches* that are to be given out; keeps *part* up to date as the driver does."""
    while (batch := batches.next_batch()) is not None:
        if batch.magic < 2:
            yield from records_of(batch, tp, part)
            continue
        part.leader_epoch = batch.leader_epoch
        if not (_aborted(part, batch) or batch.is_control_batch):
            yield from records_of(batch, tp, part)
        # Compaction may have taken the last records of it.
        part.next_fetch_offset = batch.next_offset
    part.drain()


def _aborted(part: Part, batch: Any) -> bool:
    """Whether *batch* is of a transaction that was aborted, or says so, and only committed ones are wanted."""
    if part.isolation_level != READ_COMMITTED or not batch.has_producer_id():
        return False
    part._consume_aborted_transactions_up_to(batch.last_offset)
    if part._contains_abort_marker(batch):
        part.aborted_producer_ids.discard(batch.producer_id)
        return True
    return bool(part._is_batch_aborted(batch))


def _deserialized(part: Part, records: Iterator[Any], key: Any, value: Any) -> Iterator[Any]:
    """*records* as deserializers make them that somebody has given in ``options``."""
    for record in records:
        about = record.topic, record.headers
        yield record._replace(
            key=part._deserialize(key, *about, record.key),
            value=part._deserialize(value, *about, record.value),
        )


class _Readable:
    """The batches of one fetch; one that cannot be read is replaced."""

    def __init__(self, records: Any, start: int, check: bool) -> None:
        self._records = records
        self._start = start
        self._check = check

    def next_batch(self) -> Any:
        """The next one, None at the end."""
        batch = self._records.next_batch()
        if batch is None:
            return None
        if self._check and not batch.validate_crc():
            return _Lost(batch, self._start, "its checksum is wrong")
        if batch.magic < 2 or batch.is_control_batch:
            return batch
        try:
            iter(batch)  # uncompresses
        except Exception as error:  # noqa: BLE001 - a codec may raise anything
            return _Lost(batch, self._start, f"it cannot be uncompressed: {error}")
        return batch


class _Lost:
    """In place of a batch that cannot be read at all: one record at its last offset, with its bytes."""

    magic = 2
    is_control_batch = False
    is_transactional = False
    producer_id = -1

    def __init__(self, batch: Any, start: int, problem: str) -> None:
        # One in an old format has the offset of its last record, and no more.
        old = batch.magic < 2
        self.leader_epoch = -1 if old else batch.leader_epoch
        self.base_offset = batch.base_offset
        # At least one further than where we are, whatever the damaged header says.
        self.last_offset = max(batch.base_offset if old else batch.last_offset, start)
        self.next_offset = self.last_offset + 1
        self._timestamp = batch._timestamp if old else batch.max_timestamp
        self._bytes = bytes(batch._buffer)
        self._problem = f"batch at offset {batch.base_offset} cannot be read: {problem}"

    def has_producer_id(self) -> bool:
        return False

    def __iter__(self) -> Iterator[Any]:
        headers = Flawed((), self._problem)
        yield DefaultRecord(
            len(self._bytes), self.last_offset, self._timestamp, 0, None, self._bytes, headers
        )
