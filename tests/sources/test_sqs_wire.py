"""What goes through SQS comes out as it went in, within AWS's limits, whatever it is."""

from __future__ import annotations

import base64
import re
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patron import aws
from patron.errors import PublishFailed
from patron.sources._sqs_message import message_of

MOST = 4 * 1024 * 1024

names = st.one_of(
    st.from_regex(r"[A-Za-z0-9_-]{1,12}(\.[A-Za-z0-9]{1,4})?", fullmatch=True),
    st.text(min_size=1, max_size=8),
    st.sampled_from(["AWS.x", "amazon.y", "a..b", ".a", "a.", "x" * 257, "X-Patron-Headers"]),
).filter(lambda name: name not in (aws.KEY, aws.ENCODING))
headers = st.dictionaries(names, st.text(max_size=20), max_size=15)
keys = st.one_of(st.none(), st.text(max_size=20))


def accepted(text: str, attributes: dict[str, dict[str, Any]]) -> None:
    """Check what AWS would check."""
    legal = re.compile("[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+").fullmatch
    assert legal(text)
    assert len(attributes) <= 10
    assert aws.size_of(text, attributes) <= 1_048_576
    for name, attribute in attributes.items():
        assert re.fullmatch(r"[A-Za-z0-9_.-]{1,256}", name)
        assert not re.match(r"(aws|amazon)\.|\.|.*\.$|.*\.\.", name, re.IGNORECASE)
        assert legal(attribute["StringValue"])


@given(
    st.binary(max_size=200) | st.text(max_size=50).map(lambda text: text.encode("utf-8", "ignore")),
    headers,
    keys,
)
@settings(max_examples=60, deadline=None)
def test_any_body_headers_and_key_survive(
    body: bytes, given_headers: dict[str, str], key: str | None
) -> None:
    text, attributes = aws.wrapped(body, given_headers, key)
    accepted(text, attributes)
    assert aws.opened(text, attributes, MOST) == (body, given_headers, key, None)


@given(keys, st.text(alphabet="abc0", min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_a_group_is_one_for_each_key_and_one_that_sqs_takes(key: str | None, unique: str) -> None:
    group = aws.group_of(key, unique)
    assert re.fullmatch(r"[\x21-\x7e]{1,128}", group)
    assert group == aws.group_of(key, unique)
    assert (group == aws.group_of(key, unique + "1")) is (key is not None)


@given(st.text(max_size=30), st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=3))
@settings(max_examples=60, deadline=None)
def test_nothing_that_somebody_sends_breaks_the_reading(text: str, values: dict[str, str]) -> None:
    attributes = {name: {"StringValue": value} for name, value in values.items()}
    for encoding in ("base64", "zlib", "empty", text):
        body, *_ = aws.opened(text, {**attributes, aws.ENCODING: {"StringValue": encoding}}, MOST)
        assert isinstance(body, bytes)


def test_a_small_message_that_inflates_to_a_large_one_is_not_inflated() -> None:
    packed = base64.b64encode(zlib.compress(bytes(1001))).decode()
    raw = {
        "MessageId": "1",
        "Body": packed,
        "MessageAttributes": {aws.ENCODING: {"StringValue": "zlib"}, "tenant": {"StringValue": "t1"}},
    }
    bomb = message_of(raw, "orders", 1, unwrap_sns=False, max_body=1000)
    assert bomb.problem == "unpacks to more than 1000 bytes (max_body)"
    again, attributes = aws.wrapped(bomb.body, bomb.headers)
    assert again == packed
    assert attributes[aws.ENCODING]["StringValue"] == "zlib", "it can be published again as it came"
    whole = message_of(raw, "orders", 1, unwrap_sns=False, max_body=1001)
    assert (whole.problem, whole.body, whole.headers) == (None, bytes(1001), {"tenant": "t1"})


@given(
    st.dictionaries(
        names, st.text(max_size=10) | st.integers() | st.floats() | st.binary(max_size=5), max_size=12
    )
)
@settings(max_examples=60, deadline=None)
def test_what_a_client_sends_is_plain_or_refused(values: dict[str, Any]) -> None:
    try:
        text, attributes = aws.plain(b"x", {}, values)
    except PublishFailed:
        return
    assert text == "x"
    assert len(attributes) == len(values) <= 10
    assert {each["DataType"] for each in attributes.values()} <= {"String", "Number", "Binary"}


@pytest.mark.parametrize(
    ("topic", "queue"),
    [("orders", "orders"), ("orders.dlq", "orders-dlq"), ("orders.fifo", "orders.fifo"), ("a/b c", "a-b-c")],
)
def test_a_topic_has_a_name_that_a_queue_may_have(topic: str, queue: str) -> None:
    assert aws.queue_name(topic) == queue


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"Type": "Notification", "Message": "x", "MessageAttributes": [1]}',
        '{"Type": "Notification", "Message": "x", "MessageAttributes": "no"}',
    ],
    ids=["deep", "list", "text"],
)
def test_what_only_looks_like_an_envelope_of_sns_ends_no_consumer(text: str) -> None:
    raw = {"MessageId": "1", "ReceiptHandle": "h", "Body": text}
    assert message_of(raw, "orders", 1, unwrap_sns=True, max_body=MOST).id == "1"


def test_packed_headers_that_are_too_deep_are_a_header() -> None:
    bomb = "[" * 100_000
    assert aws.opened("x", {aws.HEADERS: {"StringValue": bomb}}, MOST) == (
        b"x",
        {aws.HEADERS: bomb},
        None,
        None,
    )
