"""What a fetch brought is read as kafka-python reads it, only faster; what it cannot read is given out, too."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as some
from kafka.consumer.fetcher import Fetcher
from kafka.protocol.consumer import IsolationLevel
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder
from kafka.record.util import calc_crc32c
from kafka.structs import TopicPartition

from patron.sources._kafka_batches import guard

AT = TopicPartition("orders", 3)
APPEND_TIME, CONTROL = 0x08, 0x20
NONE, GZIP = 0, 1


class Aborted(NamedTuple):
    """A transaction that was, as the answer to a fetch names it."""

    producer_id: int
    first_offset: int


class Parts:
    """In the place of a consumer and of its fetcher."""

    def __init__(self) -> None:
        self.PartitionRecords = Fetcher.PartitionRecords
        self._fetcher = self


def guarded() -> Any:
    parts = Parts()
    guard(parts)
    return parts.PartitionRecords


def batch(records: Sequence[tuple[Any, ...]], base: int = 0, *, codec: int = NONE, **about: Any) -> bytearray:
    """The bytes of a batch of (offset in it, timestamp, key, value, headers)."""
    builder = MemoryRecordsBuilder(2, codec, 1 << 30, **about)
    for offset, timestamp, key, value, headers in records:
        builder.skip(offset - builder._next_offset)
        builder.append(timestamp, key, value, headers)
    builder.close()
    made = bytearray(builder.buffer())
    struct.pack_into(">q", made, 0, base)
    return made


def sealed(made: bytearray, *, epoch: int = -1, attributes: int = 0) -> bytearray:
    """*made* with this epoch, with *attributes* more, and with the checksum that it has then."""
    struct.pack_into(">i", made, DefaultRecordBatch.AFTER_LEN_OFFSET, epoch)
    (before,) = struct.unpack_from(">h", made, DefaultRecordBatch.ATTRIBUTES_OFFSET)
    struct.pack_into(">h", made, DefaultRecordBatch.ATTRIBUTES_OFFSET, before | attributes)
    checksum = calc_crc32c(memoryview(made)[DefaultRecordBatch.ATTRIBUTES_OFFSET :])
    struct.pack_into(">I", made, DefaultRecordBatch.CRC_OFFSET, checksum)
    return made


def part(kind: Any, data: bytes, start: int = 0, **options: Any) -> Any:
    return kind(start, AT, MemoryRecords(bytes(data)), **options)


def read(found: Any, at_once: int = 7) -> Iterator[tuple[Any, ...]]:
    """What *found* gives out, and what it keeps up to date for the driver."""
    while found:
        yield found.take(at_once), found.next_fetch_offset, found.leader_epoch, bool(found.bytes_read)


def ends(aborted: bool) -> bytearray:
    """The batch that ends a transaction of producer 9."""
    marker = [(0, 5, struct.pack(">hh", 0, 0 if aborted else 1), b"\0\0\0\0\0\0", [])]
    return batch(marker, producer_id=9, producer_epoch=0, base_sequence=0, transactional=True)


def some_bytes(random: Random) -> bytes | None:
    return random.choice([None, b"", random.randbytes(random.randint(1, 300)), b"short"])


def some_batch(random: Random, base: int = 0) -> bytearray:
    """Records with gaps between their offsets, with or without compression, stamped by producer or broker."""
    offset, records = -1, []
    for _ in range(random.randint(1, 6)):
        offset += random.choice([1, 1, 1, 2, 90])
        names = random.choices(["name", "", "n" * 70, "größe"], k=random.randint(0, 4))
        headers = [(name, some_bytes(random)) for name in names]
        stamp = random.choice([0, 1, 1000, 2**40])
        records.append((offset, stamp, some_bytes(random), some_bytes(random), headers))
    made = batch(records, base, codec=random.choice([NONE, GZIP]))
    return sealed(made, epoch=random.randint(0, 9), attributes=random.choice([0, APPEND_TIME]))


@given(some.integers(0, 2**32))
def test_every_fetch_is_read_as_the_driver_reads_it(seed: int) -> None:
    random = Random(seed)
    base, data = 0, b""
    for _ in range(random.randint(0, 4)):
        made = some_batch(random, base)
        base += 1 + struct.unpack_from(">i", made, DefaultRecordBatch.ATTRIBUTES_OFFSET + 2)[0]
        data += made
    start, at_once = random.randint(0, base), random.randint(1, 9)
    driver, ours = part(Fetcher.PartitionRecords, data, start), part(guarded(), data, start)
    assert list(read(ours, at_once)) == list(read(driver, at_once))


@pytest.mark.parametrize("magic", [0, 1])
def test_a_fetch_in_an_old_format_is_read_as_the_driver_reads_it(magic: int) -> None:
    builder = MemoryRecordsBuilder(magic, NONE, 1 << 20)
    for number in range(9):
        builder.append(number, b"key" if number % 2 else None, b"%d" % number)
    builder.close()
    data = bytes(builder.buffer())
    ours = list(read(part(guarded(), data), 4))
    assert ours == list(read(part(Fetcher.PartitionRecords, data), 4))
    assert [record.value for given in ours for record in given[0]] == [b"%d" % number for number in range(9)]


@pytest.mark.parametrize("codec", [NONE, GZIP])
@pytest.mark.parametrize("magic", [0, 1])
def test_a_batch_in_an_old_format_with_a_wrong_checksum_is_one_record_with_its_bytes(
    magic: int, codec: int
) -> None:
    made = []
    for offset, kind in ((40, codec), (41, NONE)):
        builder = MemoryRecordsBuilder(magic, kind, 1 << 20)
        builder.append(5, None, b"v%d" % offset)
        builder.close()
        made.append(bytearray(builder.buffer()))
        struct.pack_into(">q", made[-1], 0, offset)
    made[0][-9] ^= 1
    ((records, following, *_),) = read(part(guarded(), made[0] + made[1], 40))
    assert [record.value for record in records] == [bytes(made[0]), b"v41"]
    assert records[0].offset == 40
    assert records[0].headers.problem == "batch at offset 40 cannot be read: its checksum is wrong"
    assert following == 42


@pytest.mark.parametrize("aborts", [True, False])
@pytest.mark.parametrize("level", [IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED])
def test_transactions_are_left_out_where_the_driver_leaves_them_out(aborts: bool, level: Any) -> None:
    producer = {"producer_id": 9, "producer_epoch": 0, "base_sequence": 0}
    batches = [
        batch([(0, 1, None, b"before", [])]),
        batch([(0, 2, None, b"inside", [])], transactional=True, **producer),
        sealed(ends(aborts), attributes=CONTROL),
        batch([(0, 3, None, b"after", [])], transactional=True, **producer),
        sealed(ends(False), attributes=CONTROL),
    ]
    for number, made in enumerate(batches):
        struct.pack_into(">q", made, 0, number)
    aborted = [Aborted(9, 1)] if aborts else []
    data = b"".join(map(bytes, batches))
    ours, driver = (
        list(read(part(kind, data, isolation_level=level, aborted_transactions=aborted), 9))
        for kind in (guarded(), Fetcher.PartitionRecords)
    )
    assert ours == driver
    left_out = aborts and level == IsolationLevel.READ_COMMITTED
    expected = [b"before", b"after"] if left_out else [b"before", b"inside", b"after"]
    assert [record.value for record in ours[0][0]] == expected


def test_a_record_that_cannot_be_read_is_given_out_and_those_around_it_are_as_they_were() -> None:
    made = batch([(number, number, b"k", b"v%d" % number, [("name", b"x")]) for number in range(5)], base=40)
    made[made.index(b"v2") + 4] = 0xFF  # the first letter of its header's name
    ((records, following, *_),) = read(part(guarded(), sealed(made), 40))
    assert [record.offset for record in records] == [40, 41, 42, 43, 44]
    assert [record.value for record in records] == [b"v0", b"v1", b"v2", b"v3", b"v4"]
    assert records[2].headers == [("\\xffame", b"x")]
    assert "record cannot be read" in records[2].headers.problem
    assert records[3].headers == [("name", b"x")]
    assert following == 45


def test_a_record_that_lies_about_its_length_is_not_believed() -> None:
    made = batch([(number, number, b"k", b"v%d" % number, []) for number in range(3)])
    made[DefaultRecordBatch.HEADER_STRUCT.size] += 2  # one byte more
    ((records, following, *_),) = read(part(guarded(), sealed(made)))
    assert "Invalid record size" in records[0].headers.problem
    assert following == 3


@given(some.integers(0, 2**32))
def test_a_batch_with_a_wrong_byte_is_read_to_its_end(seed: int) -> None:
    """A producer can send it like that, with a checksum that is right."""
    random = Random(seed)
    made = some_batch(random)
    made[random.randrange(DefaultRecordBatch.HEADER_STRUCT.size, len(made))] ^= random.randint(1, 255)
    found = part(guarded(), sealed(made) + sealed(batch([(0, 1, None, b"next", [])], base=10_000)))
    values = [record.value for given in read(found, 1000) for record in given[0]]
    assert values[-1] == b"next"
    assert found.next_fetch_offset == 10_001


def test_a_batch_with_a_wrong_checksum_is_one_record_with_its_bytes() -> None:
    made = batch([(number, 1, None, b"v%d" % number, []) for number in range(3)], base=40)
    made[made.index(b"v1")] = ord("w")
    ((records, following, *_),) = read(
        part(guarded(), made + batch([(0, 1, None, b"next", [])], base=43), 40)
    )
    assert [record.offset for record in records] == [42, 43]
    assert records[0].value == bytes(made)
    assert records[0].headers.problem == "batch at offset 40 cannot be read: its checksum is wrong"
    assert following == 44


def test_deserializers_that_somebody_gives_the_driver_are_used() -> None:
    class Upper:
        def deserialize(self, topic: str, headers: Any, data: bytes) -> bytes:
            return topic.encode() + data.upper()

    data = batch([(0, 1, b"key", b"value", [])])
    found = part(guarded(), data, key_deserializer=Upper(), value_deserializer=Upper())
    (record,) = found.take(5)
    assert (record.key, record.value) == (b"ordersKEY", b"ordersVALUE")
