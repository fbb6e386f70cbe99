"""Correlation ids: what is accepted, what is made, and what travels with them."""

from __future__ import annotations

import os
import re
import threading
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patron import correlation
from patron.correlation import CorrelationSettings
from patron.errors import ConfigError

UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}").fullmatch


@pytest.mark.parametrize(
    "given_id", ["a", "7f1c6a52-5d0e-4f0b-9c1e-2a9d0c9b7e11", "R4Kx_9-Zq", "a/b+c=d@e:f~g", "x" * 128]
)
def test_a_sane_id_is_kept(given_id: str) -> None:
    assert correlation.accept(given_id) == given_id


@pytest.mark.parametrize(
    "given_id",
    [
        "",
        " ",
        "a b",
        "x" * 129,
        "x" * 10_000,
        "a\nb",
        "a\n",
        "a\x00",
        "é",
        "\ud800",
        '"',
        "<script>",
        None,
        7,
        b"abc",
    ],
)
def test_anything_else_is_replaced_by_a_new_id(given_id: object) -> None:
    assert UUID4(correlation.accept(given_id))


@given(st.text())
def test_what_is_accepted_can_stand_in_a_header_line(given_id: str) -> None:
    assert re.fullmatch(r"[!-~]{1,128}", correlation.accept(given_id))


def test_a_new_id_is_a_uuid_of_version_4() -> None:
    made = [correlation.new_id() for _ in range(1000)]
    assert len(set(made)) == 1000
    assert {uuid.UUID(each).version for each in made} == {4}
    assert {uuid.UUID(each).variant for each in made} == {uuid.RFC_4122}


def test_a_flow_id_has_22_characters_and_begins_with_R() -> None:
    correlation.configure(CorrelationSettings(generator="flow-id"))
    made = {correlation.new_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch(r"R[A-Za-z0-9_-]{21}", each) for each in made)
    assert all(correlation.accept(each) == each for each in made)


def test_a_generator_can_be_a_function() -> None:
    correlation.configure(CorrelationSettings(generator=lambda: "mine"))
    assert correlation.new_id() == "mine"


def test_an_unknown_generator_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'uuid5' is unknown: use uuid4 or flow-id"):
        CorrelationSettings(generator="uuid5")


@pytest.mark.parametrize("name", ["", "X Y", "X:Y", "X\r\nSet-Cookie"])
def test_a_header_name_that_is_none_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match="is no header name"):
        CorrelationSettings(header=name)


@pytest.mark.parametrize("name", ["X-Correlation-Id", "x-correlation-id", "X-CORRELATION-ID"])
def test_the_header_is_found_in_any_case(name: str) -> None:
    assert correlation.extract({"Other": "1", name: "abc"}) == "abc"


def test_the_header_can_have_another_name() -> None:
    correlation.configure(CorrelationSettings(header="X-Flow-Id"))
    assert correlation.extract({"x-flow-id": "abc", "X-Correlation-Id": "no"}) == "abc"
    with correlation.use("abc"):
        assert correlation.outgoing()["X-Flow-Id"] == "abc"


def test_the_extraction_can_be_replaced_and_its_result_is_checked_too() -> None:
    correlation.configure(CorrelationSettings(extract=lambda headers: headers["Cookie"].removeprefix("id=")))
    assert correlation.extract({"Cookie": "id=abc"}) == "abc"
    assert UUID4(correlation.extract({"Cookie": "id=\n"}))
    assert UUID4(correlation.extract({"no": "cookie"})), (
        "an extraction that raises costs the id, not the request"
    )


def test_outside_of_everything_there_is_no_id_but_what_goes_out_has_one() -> None:
    assert correlation.current() is None
    assert UUID4(correlation.outgoing()["X-Correlation-Id"])


def test_the_id_lasts_for_its_block_and_blocks_nest() -> None:
    with correlation.use("outer"):
        with correlation.use("inner"):
            assert correlation.current() == "inner"
            assert correlation.outgoing()["X-Correlation-Id"] == "inner"
        assert correlation.current() == "outer"
    assert correlation.current() is None


def test_an_id_is_not_seen_by_other_threads() -> None:
    seen: list[str | None] = []
    with correlation.use("here"):
        thread = threading.Thread(target=lambda: seen.append(correlation.current()))
        thread.start()
        thread.join()
    assert seen == [None]


def test_forwarded_headers_go_on_unless_they_could_break_a_header_line() -> None:
    correlation.configure(CorrelationSettings(forward=("X-Flow-Id", "X-App-Version", "X-Absent")))
    found = correlation.extract_forwarded({"x-flow-id": "F 1", "X-App-Version": "1\r\nEvil: 1"})
    assert found == {"X-Flow-Id": "F 1"}
    with correlation.use("a", found):
        assert correlation.forwarded() == {"X-Flow-Id": "F 1"}
        assert correlation.outgoing()["X-Flow-Id"] == "F 1"
        assert "x-flow-id" not in {name.lower() for name in correlation.outgoing(skip=["X-FLOW-ID"])}
    assert correlation.forwarded() == {}


def test_forked_siblings_make_different_ids() -> None:
    made = {_in_fork(correlation.new_id) for _ in range(8)}
    assert len(made) == 8


def _in_fork(function: object) -> bytes:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, str(function()).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as result:
        answer = result.read()
    os.waitpid(child, 0)
    return answer
