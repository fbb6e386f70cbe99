"""A request counts as whole exactly when its last byte is there, however the bytes arrive."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patron.server.reading import READ_AHEAD, Incoming, State

HEAD, BODY = 65536, 1024 * 1024

WHOLE = {
    "get": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    "leading zeros": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0005\r\n\r\nhello",
    "5,000 zeros": b"POST / HTTP/1.1\r\nContent-Length: " + b"0" * 5000 + b"\r\n\r\n",
    "length 0": b"POST / HTTP/1.1\r\ncontent-length:0\r\n\r\n",
    "chunked": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;a=b\r\nabc\r\n0\r\n\r\n",
    "trailers": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: y\r\n\r\n",
    "identity, then chunked": b"POST / HTTP/1.1\r\nTransfer-Encoding: identity, chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    "gzip in chunks": b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    "an empty line first": b"\r\nPOST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
    "the PROXY protocol first": b"PROXY TCP4 1.2.3.4 1.2.3.5 1 2\r\nPOST / HTTP/1.1\r\nContent-Length: 1\r\n\r\na",
    "the PROXY protocol, version 2": b"\r\n\r\n\0\r\nQUIT\n!\x11\0\x0c"
    + b"\r\n" * 6
    + b"GET / HTTP/1.1\r\n\r\n",
    "body that looks like a head": b"POST / HTTP/1.1\r\nContent-Length: 8\r\n\r\n\r\n\r\n\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", WHOLE.values(), ids=WHOLE.keys())
@given(data=st.data())
def test_a_request_is_whole_with_its_last_byte_and_not_before(
    request_bytes: bytes, data: st.DataObject
) -> None:
    cuts = data.draw(st.lists(st.integers(1, len(request_bytes) - 1), unique=True).map(sorted))
    incoming = Incoming(HEAD, BODY)
    pieces = [request_bytes[a:b] for a, b in zip([0, *cuts], [*cuts, len(request_bytes)], strict=True)]
    assert [incoming.feed(piece) for piece in pieces] == [State.MORE] * (len(pieces) - 1) + [State.WHOLE]
    assert incoming.complete
    assert incoming.take() == request_bytes
    assert len(incoming) == 0


MALFORMED = {
    "two lengths": b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    "both framings": b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "no number": b"POST / HTTP/1.1\r\nContent-Length: five\r\n\r\n",
    "a sign": b"POST / HTTP/1.1\r\nContent-Length: +5\r\n\r\n",
    "5,000 digits": b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
    "over the limit": b"POST / HTTP/1.1\r\nContent-Length: 2000000\r\n\r\n",
    "another coding": b"POST / HTTP/1.1\r\nTransfer-Encoding: xgzip, chunked\r\n\r\n",
    "no chunk size": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "an endless size line": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1;" + b"a" * 9000,
}


@pytest.mark.parametrize("request_bytes", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_only_the_parser_can_refuse_is_handed_over_at_once(request_bytes: bytes) -> None:
    incoming = Incoming(HEAD, BODY)
    assert incoming.feed(request_bytes) is State.WHOLE
    assert not incoming.complete


def test_a_head_over_the_limit_is_refused_even_without_an_end() -> None:
    assert Incoming(1000, BODY).feed(b"GET / HTTP/1.1\r\nX: " + b"a" * 1000) is State.HEAD_TOO_LARGE
    assert (
        Incoming(1000, BODY).feed(b"GET / HTTP/1.1\r\nX: " + b"a" * 1000 + b"\r\n\r\n")
        is State.HEAD_TOO_LARGE
    )


@pytest.mark.parametrize("size", [1, 100, 5000])
def test_chunks_that_add_up_over_the_limit_are_refused(size: int) -> None:
    incoming = Incoming(HEAD, 1000)
    incoming.feed(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    states = [incoming.feed(b"%x\r\n%b\r\n" % (size, b"a" * size)) for _ in range(5000)]
    assert states[-1] is State.BODY_TOO_LARGE


def test_a_chunk_that_is_only_announced_is_refused_before_it_comes() -> None:
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert Incoming(HEAD, BODY).feed(head + b"FFFFFFF\r\n") is State.BODY_TOO_LARGE


def test_continue_is_asked_for_once_and_only_when_the_body_is_awaited() -> None:
    head = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    incoming = Incoming(HEAD, BODY)
    assert [incoming.feed(head), incoming.feed(b"a"), incoming.feed(b"b")] == [
        State.CONTINUE,
        State.MORE,
        State.WHOLE,
    ]
    assert Incoming(HEAD, BODY).feed(head + b"ab") is State.WHOLE
    assert Incoming(HEAD, 1).feed(head) is State.WHOLE


@given(st.binary(max_size=300))
def test_no_bytes_make_it_raise(data: bytes) -> None:
    incoming = Incoming(100, 100)
    for at in range(0, len(data), 7):
        assert isinstance(incoming.feed(data[at : at + 7]), State)


def test_the_plan_is_asked_once_and_only_about_requests_with_a_body() -> None:
    asked: list[tuple[str, str]] = []

    def plan(method: str, target: str) -> tuple[int, bool]:
        asked.append((method, target))
        return 10, target == "/flow"

    incoming = Incoming(HEAD, BODY, plan)
    incoming.feed(b"GET /a HTTP/1.1\r\n\r\n")
    incoming.take()
    assert asked == []
    head = b"PROXY TCP4 1.2.3.4 1.2.3.5 1 2\r\nPUT /a?b=c HTTP/1.1\r\nContent-Length: 9\r\n\r\n"
    assert [incoming.feed(piece) for piece in (head, b"1234", b"56789")][-1] is State.WHOLE
    assert incoming.complete
    incoming.take()
    assert asked == [("PUT", "/a?b=c")]
    assert incoming.feed(head.replace(b"9", b"11")) is State.WHOLE  # over the limit of this one
    assert not incoming.complete
    incoming.take()
    assert incoming.feed(head.replace(b"/a?b=c", b"/flow")) is State.FLOWING
    incoming.take()
    assert incoming.feed(b"PUT /flow HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n") is State.FLOWING
    assert incoming.limit == 10


def test_more_than_is_read_ahead_is_left_on_the_connection() -> None:
    def plan(method: str, target: str) -> tuple[int, bool]:
        return 4 * READ_AHEAD, False

    head = b"PUT / HTTP/1.1\r\nContent-Length: %d\r\n\r\n"
    assert Incoming(HEAD, BODY, plan).feed(head % READ_AHEAD) is State.MORE
    assert Incoming(HEAD, BODY, plan).feed(head % (READ_AHEAD + 1)) is State.FLOWING
    chunked = Incoming(HEAD, BODY, plan)
    chunked.feed(b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"100000\r\n" + bytes(0x100000) + b"\r\n"
    assert [chunked.feed(chunk) for _ in range(READ_AHEAD // 0x100000)][:-1] == [State.MORE] * 15
    assert chunked.feed(chunk) is State.FLOWING


def test_a_body_that_flows_after_100_continue_was_sent_gets_no_second_one() -> None:
    incoming = Incoming(HEAD, BODY, lambda method, target: (4 * READ_AHEAD, False))
    head = b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert incoming.feed(head) is State.CONTINUE
    assert incoming.feed(b"1000000\r\n" + bytes(0x1000000) + b"\r\n") is State.FLOWING
    assert not incoming.expects
