"""What AMQP frames and properties mean: pure structures, held against what pika writes."""

from __future__ import annotations

import datetime
import gzip
import struct
import zlib
from typing import Any

import pika
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika.frame import Body, Header, Method

from patron.sources._amqp_frames import Deliveries, Frames
from patron.sources._amqp_messages import Delivery, fitting, message_of, properties_of
from patron.sources._amqp_properties import Properties
from patron.sources._amqp_tags import Tags

SHORT = st.text(max_size=40).filter(lambda text: len(text.encode()) < 200)
VALUES: Any = st.recursive(
    st.text() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.binary() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SHORT, inner, max_size=3),
    max_leaves=6,
)


def encoded(**properties: Any) -> bytes:
    return b"".join(pika.BasicProperties(**properties).encode())


def message(body: bytes = b"{}", *, exchange: str = "", redelivered: bool = False, **properties: Any) -> Any:
    return message_of(
        Delivery(7, redelivered, exchange, "rk", encoded(**properties)), body, "orders", 3, max_body=1000
    )


# Properties


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(SHORT, VALUES, max_size=5),
    SHORT | st.none(),
    SHORT | st.none(),
    st.integers(0, 2**63) | st.none(),
    st.integers(0, 255) | st.none(),
    SHORT | st.none(),
)
def test_whatever_pika_writes_is_read(headers, content_type, message_id, timestamp, priority, other):
    read = Properties(
        encoded(
            headers=headers,
            content_type=content_type,
            message_id=message_id,
            timestamp=timestamp,
            priority=priority,
            correlation_id=other,
            reply_to=other,
            expiration=other,
            delivery_mode=2,
            app_id=other,
        )
    )
    assert read.problem is None
    assert (read.content_type, read.message_id, read.timestamp) == (content_type, message_id, timestamp)
    assert {
        name: value for name, value in headers.items() if isinstance(value, str)
    }.items() <= read.headers.items()
    assert read.headers.keys() == headers.keys()


@given(st.binary(max_size=60))
def test_whatever_the_bytes_are_something_is_read(garbage):
    read = Properties(b"\xf0\x40" + garbage)
    assert isinstance(read.headers, dict)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (True, "true"),
        (42, "42"),
        (-(2**40), "-1099511627776"),
        (None, ""),
        (b"abc", "abc"),
        ([1, "a", None], '[1, "a", null]'),
        ({"x": {"y": False}}, '{"x": {"y": false}}'),
        (datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), "2026-01-02T00:00:00+00:00"),
    ],
)
def test_a_header_of_any_type_is_shown_as_text(value, shown):
    assert Properties(encoded(headers={"h": value})).headers == {"h": shown}


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"d" + struct.pack(">d", float("nan")), "nan"),
        (b"d" + struct.pack(">d", 1.5), "1.5"),
        (b"T" + struct.pack(">Q", 1_700_000_000_000_000), "1700000000000000"),
        (b"D" + struct.pack(">Bl", 2, 314), "3.14"),
        (b"s" + struct.pack(">h", -2), "-2"),
    ],
)
def test_what_pika_stumbles_over_is_read(raw, shown):
    table = b"\x01h" + raw
    assert Properties(b"\x20\x00" + struct.pack(">L", len(table)) + table).headers == {"h": shown}


def test_headers_that_are_no_utf8_are_a_problem_and_shown_with_backslashes():
    table = b"\x01aS\x00\x00\x00\x02\xff\xfe" + b"\x02\xc3(S\x00\x00\x00\x01x"
    read = Properties(b"\x20\x80" + struct.pack(">L", len(table)) + table + b"\x02id")
    assert read.headers == {"a": r"\xff\xfe", r"\xc3(": "x"}
    assert "utf-8" in str(read.problem)
    assert read.message_id == "id"


def test_a_header_of_unknown_type_is_a_problem_and_the_rest_is_read():
    table = b"\x01aS\x00\x00\x00\x01x" + b"\x01bZ1234"
    read = Properties(b"\x20\x80" + struct.pack(">L", len(table)) + table + b"\x02id")
    assert (read.headers, read.message_id) == ({"a": "x"}, "id")
    assert "type b'Z' is unknown" in str(read.problem)


def test_tables_nested_for_ever_are_a_problem():
    table = b""
    for _ in range(20_000):
        table = b"\x00F" + struct.pack(">L", len(table)) + table
    assert "recursion" in str(Properties(b"\x20\x00" + struct.pack(">L", len(table)) + table).problem)


# Messages


def test_properties_stand_among_the_headers_unless_a_header_says_it():
    assert message(content_type="text/plain").headers == {"Content-Type": "text/plain"}
    said = message(content_type="text/plain", headers={"content-type": "application/json"})
    assert said.headers == {"content-type": "application/json"}
    assert message().content_type is None
    assert message(content_type="").content_type is None


def test_the_key_is_a_header_of_ours_or_the_routing_key_of_a_named_exchange():
    assert message(headers={"X-Patron-Key": "k"}, exchange="e").key == "k"
    assert message(exchange="e").key == "rk"
    assert message().key is None
    assert "X-Patron-Key" not in message(headers={"X-Patron-Key": "k"}).headers


def test_deliveries_are_the_broker_s_count_or_what_it_says_of_a_second_time():
    assert message().deliveries == 1
    assert message(headers={"x-delivery-count": 5}).deliveries == 1  # carried along by somebody
    assert message(redelivered=True).deliveries == 2
    assert message(redelivered=True, headers={"x-delivery-count": 5}).deliveries == 6
    assert "x-delivery-count" not in message(headers={"x-delivery-count": 5}).headers


def test_a_message_without_id_has_one_of_its_delivery():
    assert message().id == "delivery-3-7"
    assert message(message_id="m1").id == "m1"


def test_compressed_bodies_are_unpacked_and_unknown_compression_is_a_problem():
    packed = message(gzip.compress(b"hello"), content_encoding="gzip")
    assert (packed.body, packed.headers, packed.problem) == (b"hello", {}, None)
    unknown = message(b"??", content_encoding="zip9")
    assert (unknown.body, unknown.problem) == (b"??", "unknown content encoding 'zip9'")
    assert message(b"no", content_encoding="gzip").problem.startswith("not gzip:")
    assert message(gzip.compress(b"hello")[:-4], content_encoding="gzip").problem == "not gzip: cut off"
    assert message(b"x", content_encoding="utf-8").problem is None


def test_a_compressed_body_may_not_be_a_bomb():
    for encoding, pack in (("gzip", gzip.compress), ("deflate", zlib.compress)):
        assert message(pack(bytes(1000)), content_encoding=encoding).body == bytes(1000)
        bomb = message(pack(bytes(1001)), content_encoding=encoding)
        assert bomb.problem == "unpacks to more than 1000 bytes (max_body)"
        assert bomb.body == pack(bytes(1001))
        assert bomb.headers["Content-Encoding"] == encoding
    assert message(bytes(1001)).problem is None, "what was not packed was never small"


def test_raw_has_the_driver_s_own_properties():
    raw = message(priority=3, headers={"n": 1}).raw
    assert (raw.delivery_tag, raw.properties.priority, raw.properties.headers) == (7, 3, {"n": 1})


def test_what_is_published_comes_back_as_it_was():
    headers = {"content-type": "a/b", "X": "y", "x-delivery-count": "7", "CC": "other", "x-death": "[]"}
    read = message(**properties_of(headers, "k"))
    assert (read.headers, read.key) == ({"content-type": "a/b", "X": "y"}, "k")
    properties = properties_of({"Content-Type": "a/b"}, None)
    assert (properties["headers"], properties["delivery_mode"]) == ({}, 2)


# Frames


def deliver(tag: int, body: bytes, channel: int = 1, pieces: int = 1) -> bytes:
    size = -(-len(body) // pieces) or 1
    frames = [
        Method(channel, pika.spec.Basic.Deliver("ctag", tag, True, "ex", "key")),
        Header(channel, len(body), pika.BasicProperties(message_id=str(tag))),
        *(Body(channel, body[at : at + size]) for at in range(0, len(body), size)),
    ]
    return b"".join(frame.marshal() for frame in frames)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=50), st.integers(1, 3)), max_size=5), st.data())
def test_deliveries_are_put_together_however_the_stream_is_cut(bodies, data):
    other, seen = [], []
    frames = Frames(other.append)
    frames.deliveries[1] = Deliveries(lambda *delivery: seen.append(delivery))
    heartbeat, elsewhere = b"\x08\0\0\0\0\0\0\xce", deliver(1, b"x", channel=2)
    stream = b"".join(
        deliver(number, body, pieces=pieces) + heartbeat for number, (body, pieces) in enumerate(bodies)
    )
    stream += elsewhere
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        frames.feed(stream[start:end])
    assert [(tag, body) for tag, _, _, _, _, body in seen] == [
        (number, body) for number, (body, _) in enumerate(bodies)
    ]
    assert all(each[1:4] == (True, "ex", "key") for each in seen)
    assert b"".join(other) == heartbeat * len(bodies) + elsewhere


def test_what_is_no_delivery_is_the_driver_s():
    other: list[bytes] = []
    frames = Frames(other.append)
    frames.deliveries[1] = Deliveries(lambda *delivery: pytest.fail("no delivery"))
    returned = Method(1, pika.spec.Basic.Return(312, "NO_ROUTE", "e", "r")).marshal()
    content = Header(1, 1, pika.BasicProperties()).marshal() + Body(1, b"x").marshal()
    frames.feed(returned + content)
    assert b"".join(other) == returned + content
    frames.feed(b"AMQP\x00\x00\x09\x01")
    assert other[-1] == b"AMQP\x00\x00\x09\x01"
    broken = deliver(1, b"x")[:-1] + b"?"
    frames.feed(broken)
    assert other[-1].endswith(b"?")


# Tags


@settings(max_examples=50, deadline=None)
@given(st.permutations(range(1, 25)), st.lists(st.integers(1, 6), min_size=24))
def test_every_tag_is_settled_once_and_multiple_never_covers_what_is_not(order, sizes):
    tags, open_on_broker, left = Tags(), set(range(1, 25)), list(order)
    for tag in range(1, 25):
        tags.give(tag)
    for size in sizes:
        batch, left = left[:size], left[size:]
        upto, single = tags.settle(batch)
        if upto:
            assert upto in open_on_broker  # else the broker closes the channel
            covered = {tag for tag in open_on_broker if tag <= upto}
            assert covered <= set(batch)
            open_on_broker -= covered
        assert set(single) <= open_on_broker
        open_on_broker -= set(single)
        assert open_on_broker == set(left)
        assert len(tags) == len(left)


def test_tags_that_were_never_given_or_are_settled_are_left_out():
    tags = Tags()
    for tag in (1, 2, 3):
        tags.give(tag)
    assert tags.settle([1, 9]) == (1, [])
    assert tags.settle([1, 3]) == (0, [3])
    assert tags.settle([3, 2]) == (2, [])
    assert len(tags) == 0


def test_a_delivery_count_that_is_no_count_is_not_believed():
    assert message(redelivered=True, headers={"x-delivery-count": "9" * 5000}).deliveries == 2


def test_what_no_utf8_can_hold_is_published_with_backslashes():
    values = properties_of({"x-patron-reason": "bad \ud800"}, "key \udfff")
    assert values["headers"]["x-patron-reason"] == "bad \\ud800"
    assert values["headers"]["X-Patron-Key"] == "key \\udfff"
    encoded(**values)


def test_of_headers_that_do_not_fit_the_longest_are_cut():
    given = {"short": "s", "long": "é" * 500, "longer": "x" * 2000}
    headers, cut = fitting(given, 1500)
    assert cut == ["longer"]
    assert (headers["short"], headers["long"]) == ("s", "é" * 500)
    assert len(encoded(headers=headers)) <= 1500 + 20
    assert fitting(given, 10_000) == (given, [])
    assert fitting({"name": ""}, 1) == ({"name": ""}, [])
