"""The headers that carry a trace."""

from __future__ import annotations

import os
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patron import correlation
from patron.observe import TraceSettings, capture, operation, propagation, trace
from patron.observe.propagation import TraceContext, inject_jaeger, inject_w3c

ids64 = st.integers(1, 2**64 - 1)
ids128 = st.integers(1, 2**128 - 1)


def extract(headers: Mapping[str, str], *, w3c_first: bool = False) -> TraceContext | None:
    return propagation.extract(correlation.lowered(headers), w3c_first)


def ids(context: TraceContext | None) -> tuple[int, int, int, int]:
    assert context is not None
    return context.trace_id, context.span_id, context.parent_id, context.flags


@given(ids128, ids64, st.integers(0, 2**64 - 1), st.integers(0, 255))
def test_what_jaegers_header_says_is_read_back(
    trace_id: int, span_id: int, parent_id: int, flags: int
) -> None:
    headers: dict[str, str] = {}
    inject_jaeger(TraceContext(trace_id, span_id, parent_id, flags), headers)
    assert ids(extract(headers)) == (trace_id, span_id, parent_id, flags)


@given(ids128, ids64, st.integers(0, 1))
def test_what_w3cs_header_says_is_read_back(trace_id: int, span_id: int, flags: int) -> None:
    headers: dict[str, str] = {}
    inject_w3c(TraceContext(trace_id, span_id, 7, flags), headers)
    assert ids(extract(headers)) == (trace_id, span_id, 0, flags)


@pytest.mark.parametrize(
    "value",
    [
        "", "1", "1:2:3", "1:2:3:4:5", "g:2:3:1", "0:2:0:1", "1:0:0:1", "-1:2:0:1", "1:2:0:100", "1_0:2:0:1",
        " 1:2:0:1", "1:2:0:1\n", "1" * 33 + ":2:0:1", "1:" + "2" * 17 + ":0:1", "\ud800", "\u0661:2:0:1", "%3A%3A%3A",
        "x" * 100_000,
    ],
)  # fmt: skip
def test_a_malformed_jaeger_header_is_as_good_as_none(value: str) -> None:
    assert extract({"uber-trace-id": value}) is None


@pytest.mark.parametrize(
    "value",
    [
        "", "00", "00-" + "0" * 32 + "-" + "1" * 16 + "-01", "00-" + "1" * 32 + "-" + "0" * 16 + "-01",
        "ff-" + "1" * 32 + "-" + "1" * 16 + "-01", "00-" + "A" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "1" * 32 + "-" + "1" * 16 + "-01-more", "00-" + "1" * 31 + "-" + "1" * 16 + "-01",
        "00-" + "1" * 32 + "-" + "1" * 16 + "-1", "\ud800",
    ],
)  # fmt: skip
def test_a_malformed_traceparent_is_as_good_as_none(value: str) -> None:
    assert extract({"traceparent": value}) is None


def test_a_future_version_of_traceparent_may_be_longer() -> None:
    value = "01-" + "1" * 32 + "-" + "2" * 16 + "-01-more"
    assert ids(extract({"Traceparent": value})) == (int("1" * 32, 16), int("2" * 16, 16), 0, 1)


def test_escaped_colons_are_understood() -> None:
    assert ids(extract({"Uber-Trace-Id": "1%3A2%3a0%3A1"})) == (1, 2, 0, 1)


def test_with_both_headers_the_configured_format_wins_and_a_malformed_one_gives_way() -> None:
    both = {"uber-trace-id": "1:2:0:1", "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-00"}
    assert ids(extract(both))[0] == 1
    assert ids(extract(both, w3c_first=True))[0] == int("a" * 32, 16)
    assert ids(extract({**both, "uber-trace-id": "broken"}))[0] == int("a" * 32, 16)


@given(
    st.dictionaries(
        st.sampled_from(["uber-trace-id", "traceparent", "tracestate", "X-Correlation-Id"]), st.text()
    )
)
def test_no_header_value_makes_an_operation_fail(headers: dict[str, str]) -> None:
    with operation("server", "http", "/", headers):
        assert "uber-trace-id" in correlation.outgoing()


@pytest.mark.parametrize(
    "headers", [{1: 2}, {"uber-trace-id": b"1:2:0:1"}, {None: None}, {"traceparent": None}]
)
def test_headers_of_wrong_types_make_no_operation_fail(headers: dict[str, str]) -> None:
    with operation("consumer", "kafka", "orders", headers) as running:
        assert running.correlation_id


def test_an_unsampled_trace_goes_on_with_its_ids() -> None:
    with operation("server", "http", "/", {"uber-trace-id": "abc:def:0:0"}) as running:
        sent = correlation.outgoing()["uber-trace-id"]
        assert sent == f"0000000000000abc:{running.context.span_id:016x}:0000000000000def:0"
        with operation("client", "http", "there") as inner:
            assert (
                correlation.outgoing()["uber-trace-id"]
                == f"0000000000000abc:{inner.context.span_id:016x}:{running.context.span_id:016x}:0"
            )


def test_a_new_trace_that_is_not_sampled_has_ids_all_the_same() -> None:
    with operation("server", "http", "/") as running:
        trace_id, span_id, parent_id, flags = correlation.outgoing()["uber-trace-id"].split(":")
    assert (int(trace_id, 16), int(span_id, 16)) == (running.context.trace_id, running.context.span_id)
    assert (parent_id, flags) == ("0" * 16, "0")


def test_outside_of_any_operation_no_trace_header_is_sent() -> None:
    assert set(correlation.outgoing()) == {"X-Correlation-Id"}


def test_the_chosen_formats_are_written() -> None:
    trace.start("shop", "1", TraceSettings(propagation=("w3c", "jaeger")))
    with operation("server", "http", "/", {"uber-trace-id": "1:2:0:1"}) as running:
        sent = correlation.outgoing()
    assert sent["traceparent"] == f"00-{1:032x}-{running.context.span_id:016x}-01"
    assert sent["uber-trace-id"].startswith("0000000000000001:")


def test_baggage_and_trace_state_go_on_unless_they_could_break_a_header_line() -> None:
    headers = {
        "Uber-Trace-Id": "1:2:0:0",
        "UberCtx-Customer": "c1",
        "uberctx-evil": "a\r\nSet-Cookie: b",
        "Tracestate": "a=1",
        "Other": "x",
    }
    with operation("server", "http", "/", headers), operation("client", "http", "there"):
        sent = correlation.outgoing()
    assert {
        name: value for name, value in sent.items() if name not in ("uber-trace-id", "X-Correlation-Id")
    } == {
        "uberctx-customer": "c1",
        "tracestate": "a=1",
    }


def test_forked_siblings_make_different_span_ids() -> None:
    def child(write: int) -> None:
        os.write(write, f"{propagation.new_root().trace_id}".encode())
        os._exit(0)

    made = set()
    for _ in range(8):
        read, write = os.pipe()
        if (pid := os.fork()) == 0:
            child(write)
        os.close(write)
        with os.fdopen(read, "rb") as result:
            made.add(result.read())
        os.waitpid(pid, 0)
    assert len(made) == 8


def test_an_operation_from_upstream_decides_about_sampling_even_if_we_would_not() -> None:
    with capture() as seen:
        with operation("server", "http", "/", {"uber-trace-id": "1:2:0:0"}):
            pass
        with operation("server", "http", "/", {"uber-trace-id": "1:2:0:1"}):
            pass
    assert [span.context.parent_id for span in seen.spans] == [2]


@pytest.mark.parametrize(
    ("came", "goes"),
    [("1", "0000000000000001"), ("f" * 16, "f" * 16), ("1" + "0" * 16, "0" * 15 + "1" + "0" * 16)],
)
def test_a_trace_id_goes_out_with_16_digits_or_with_32(came: str, goes: str) -> None:
    with operation("server", "http", "/", {"uber-trace-id": f"{came}:2:0:1"}):
        assert correlation.outgoing()["uber-trace-id"].split(":")[0] == goes
