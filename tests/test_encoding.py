"""Bodies are read strictly and written exactly."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import pathlib
import uuid
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from patron import encoding
from patron.errors import ConfigError, DecodeError, EncodeError, UnknownContentType


@dataclass
class Item:
    sku: str
    quantity: int


@dataclass
class Order:
    customer: str
    items: list[Item]
    at: datetime.datetime | None = None
    price: decimal.Decimal | None = None
    weight: float = 0.0
    id: uuid.UUID | None = None


class Model(BaseModel):
    quantity: int = Field(gt=0)
    at: datetime.datetime | None = None


class Colour(enum.Enum):
    RED = "red"


# ------------------------------------------------------------------ reading JSON


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        "application/problem+json",
    ],
)
def test_these_content_types_mean_json(content_type):
    assert encoding.decode(b'{"a": [1, 2.5, "\xc3\xa9", null]}', content_type) == {"a": [1, 2.5, "é", None]}


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/xml", "json", "", "a/b/c", "*/*", "a/b;c=" + "d" * 1000, "\xff/\xff"],
)
def test_other_content_types_are_unknown(content_type):
    if content_type == "":
        assert encoding.decode(b"1", content_type) == 1  # an empty header is none
        return
    with pytest.raises(UnknownContentType):
        encoding.decode(b"1", content_type)


BROKEN = [
    b"",
    b"{",
    b"{'a': 1}",
    b"[1] 2",
    b"\xff",
    b'"\xff"',
    b"NaN",
    b"[Infinity]",
    b"-Infinity",
    b"1e999",
    b"1" * 5000,
    b'"\\ud800"',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'"\x00"',
]


@pytest.mark.parametrize("body", BROKEN, ids=lambda body: repr(body[:12]))
@pytest.mark.parametrize("into", [None, Order, Any, list[int]], ids=str)
def test_broken_json_is_a_decode_error_whatever_it_is_read_into(body, into):
    with pytest.raises(DecodeError):
        encoding.decode(body, None, into)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"1e999", b"9" * 400 + b".0"])
def test_a_field_cannot_be_no_number(number):
    with pytest.raises(DecodeError):
        encoding.decode(b'{"customer":"c","items":[],"weight":' + number + b"}", None, Order)


def test_words_that_look_like_no_numbers_are_fine_inside_strings():
    order = encoding.decode(b'{"customer":"NaN Infinity 1e999","items":[]}', None, Order)
    assert order.customer == "NaN Infinity 1e999"


def test_a_repeated_key_means_its_last_value():
    assert encoding.decode(b'{"a": 1, "a": 2}') == {"a": 2}


def test_another_charset_is_refused():
    with pytest.raises(DecodeError, match="utf-8"):
        encoding.decode(b'"a"', "application/json; charset=latin-1")


def test_a_pair_of_surrogates_is_one_character():
    assert encoding.decode(b'"\\ud83d\\ude00"') == "\N{GRINNING FACE}"


# ------------------------------------------------------------------ shapes


def test_a_body_becomes_a_dataclass_with_its_nested_types():
    body = (
        b'{"customer":"c1","items":[{"sku":"A","quantity":2}],"at":"2024-02-03T04:05:06Z",'
        b'"price":"1.50","id":"00000000-0000-0000-0000-000000000001","more":1}'
    )
    assert encoding.decode(body, None, Order) == Order(
        "c1",
        [Item("A", 2)],
        datetime.datetime(2024, 2, 3, 4, 5, 6, tzinfo=datetime.UTC),
        decimal.Decimal("1.50"),
        id=uuid.UUID(int=1),
    )


@pytest.mark.parametrize("quantity", [b'"2"', b"2.0", b"true", b"null", b"[]"])
def test_values_are_not_coerced_and_the_wrong_field_is_named(quantity):
    body = b'{"customer":"c","items":[{"sku":"A","quantity":%s}]}' % quantity
    with pytest.raises(DecodeError) as caught:
        encoding.decode(body, None, Order)
    assert list(caught.value.fields) == ["items.0.quantity"]


def test_every_wrong_field_is_named_at_once():
    with pytest.raises(DecodeError) as caught:
        encoding.decode(b'{"items":[{"sku":1,"quantity":2},{"sku":"A"}]}', None, Order)
    assert set(caught.value.fields) == {"customer", "items.0.sku", "items.1.quantity"}


def test_models_and_plain_types_are_checked_too():
    assert encoding.decode(b'{"quantity":1}', None, Model) == Model(quantity=1)
    assert encoding.decode(b'[{"sku":"A","quantity":1}]', None, list[Item]) == [Item("A", 1)]
    with pytest.raises(DecodeError, match="greater than 0") as caught:
        encoding.decode(b'{"quantity":0}', None, Model)
    assert set(caught.value.fields) == {"quantity"}


def test_what_a_dataclass_refuses_itself_is_a_decode_error():
    @dataclass
    class Even:
        number: int

        def __post_init__(self) -> None:
            if self.number % 2:
                raise ValueError("the number is odd")

    with pytest.raises(DecodeError, match="the number is odd"):
        encoding.decode(b'{"number":1}', None, Even)


def test_the_message_does_not_repeat_what_was_sent():
    with pytest.raises(DecodeError) as caught:
        encoding.decode(b'{"customer":{"password":"secret"},"items":[]}', None, Order)
    assert "secret" not in str(caught.value)


# ------------------------------------------------------------------ writing JSON


@dataclass
class Everything:
    at: datetime.datetime = datetime.datetime(2024, 1, 2, 3, 4, 5, 600, tzinfo=datetime.UTC)
    naive: datetime.datetime = datetime.datetime(2024, 1, 2)
    day: datetime.date = datetime.date(2024, 1, 2)
    time: datetime.time = datetime.time(3, 4)
    wait: datetime.timedelta = datetime.timedelta(seconds=90)
    price: decimal.Decimal = decimal.Decimal("1.50")
    id: uuid.UUID = field(default_factory=lambda: uuid.UUID(int=1))
    colour: Colour = Colour.RED
    tags: frozenset[str] = frozenset(["a"])
    path: pathlib.PurePosixPath = field(default_factory=lambda: pathlib.PurePosixPath("/x"))
    model: Model = field(default_factory=lambda: Model(quantity=1))
    items: tuple[Item, ...] = (Item("A", 1),)


def test_what_services_use_every_day_has_a_form_in_json():
    assert json.loads(encoding.encode(Everything())) == {
        "at": "2024-01-02T03:04:05.000600Z",
        "naive": "2024-01-02T00:00:00",
        "day": "2024-01-02",
        "time": "03:04:00",
        "wait": 90.0,
        "price": "1.50",
        "id": "00000000-0000-0000-0000-000000000001",
        "colour": "red",
        "tags": ["a"],
        "path": "/x",
        "model": {"quantity": 1, "at": None},
        "items": [{"sku": "A", "quantity": 1}],
    }


def test_json_is_compact_utf_8():
    assert encoding.encode({"a": ["é", 1]}) == '{"a":["é",1]}'.encode()


def _circle() -> list[Any]:
    circle: list[Any] = []
    circle.append(circle)
    return circle


def _deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [b"bytes", object(), float("nan"), float("inf"), "\ud800", {(1, 2): 3}, _circle(), Item, 1j],
)
def test_what_has_no_form_is_an_encode_error(value):
    with pytest.raises(EncodeError):
        encoding.encode({"value": value})


def test_a_value_that_is_too_deep_is_an_encode_error():
    with pytest.raises(EncodeError):
        encoding.encode(_deep())


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner)))
def test_what_was_written_reads_back_as_it_was(value):
    assert encoding.decode(encoding.encode(value)) == value


@given(
    st.builds(
        Order, customer=st.text(), items=st.lists(st.builds(Item, sku=st.text(), quantity=st.integers()))
    )
)
def test_a_dataclass_survives_the_way_there_and_back(order):
    order = dataclasses.replace(order, weight=1.5)
    assert encoding.decode(encoding.encode(order), encoding.JSON, Order) == order


@given(st.binary(), st.none() | st.text(), st.sampled_from([None, Order, Model]))
def test_reading_raises_codec_errors_only(body, content_type, into):
    try:
        encoding.decode(body, content_type, into)
    except (DecodeError, UnknownContentType):
        pass


# ------------------------------------------------------------------ other formats


class Upper:
    """A codec for shouted text."""

    content_type = "text/x-upper"

    def encode(self, value: Any) -> bytes:
        return str(value).upper().encode()

    def decode(self, body: bytes, into: Any, parameters: Any) -> Any:
        return body.decode(parameters.get("charset", "utf-8")).lower()


@pytest.fixture
def upper():
    encoding.register(Upper(), "text/x-upper", "text/X-Shout")
    yield
    encoding.unregister("text/x-upper", "text/x-shout")


def test_an_own_codec_is_used_by_all_its_names_and_gets_the_parameters(upper):
    assert encoding.encode("a", "text/x-upper") == b"A"
    assert encoding.decode("É".encode("latin-1"), 'TEXT/x-shout; Charset="latin-1"') == "é"
    assert encoding.media_types()[0] == encoding.JSON
    assert {"text/x-upper", "text/x-shout"} <= set(encoding.media_types())


def test_a_codec_that_is_forgotten_is_unknown_again(upper):
    encoding.unregister("text/x-upper")
    with pytest.raises(UnknownContentType, match="application/json"):
        encoding.encode("a", "text/x-upper")


@pytest.mark.parametrize("names", [(), ("nonsense",), ("a/b", "c d/e")])
def test_registering_under_no_media_type_is_refused(names):
    with pytest.raises(ConfigError):
        encoding.register(Upper(), *names)


def test_protocol_buffers_go_both_ways_and_through_json():
    struct_pb2 = pytest.importorskip("google.protobuf.struct_pb2")
    message = struct_pb2.Struct()
    message["a"] = "b"
    for name in ("application/x-protobuf", "application/x-google-protobuf"):
        body = encoding.encode(message, name)
        assert encoding.decode(body, name, struct_pb2.Struct) == message
    assert encoding.encode(message) == b'{"a":"b"}'
    assert encoding.decode(b'{"a":"b"}', encoding.JSON, struct_pb2.Struct) == message
    for body, name in ((b"\xff\xff", encoding.PROTOBUF), (b"[]", encoding.JSON)):
        with pytest.raises(DecodeError):
            encoding.decode(body, name, struct_pb2.Struct)


def test_fields_of_json_that_a_message_of_protocol_buffers_does_not_know_are_ignored():
    """As those of dataclasses are: a client that is newer than the service must not fail."""
    source_context_pb2 = pytest.importorskip("google.protobuf.source_context_pb2")
    read = encoding.decode(
        b'{"fileName":"a","since":{"v":2}}', encoding.JSON, source_context_pb2.SourceContext
    )
    assert read.file_name == "a"


def test_protocol_buffers_need_a_message():
    with pytest.raises(EncodeError):
        encoding.encode({"a": 1}, encoding.PROTOBUF)
    with pytest.raises(UnknownContentType, match="application/json"):
        encoding.decode(b"", encoding.PROTOBUF, Order)
