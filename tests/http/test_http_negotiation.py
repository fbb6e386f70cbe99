"""The client says what it sends and what it understands; the server listens (RFC 9110, section 12)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patron import encoding
from patron.http import Response, get, post
from patron.http.negotiate import choose, parse

JSON, PROTOBUF, GOOGLE = encoding.JSON, encoding.PROTOBUF, "application/x-google-protobuf"
OFFERS = (JSON, PROTOBUF, GOOGLE)


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("application/json", JSON),
        ("APPLICATION/Json", JSON),
        ("application/json;charset=UTF-8", JSON),
        ('application/json ; charset="utf-8"', JSON),
        ("application/json;indent=2", JSON),
        ("application/json;charset=latin-1", None),
        ("application/x-protobuf", PROTOBUF),
        ("application/x-google-protobuf", GOOGLE),
        ("text/html", None),
        ("text/*", None),
        ("text/html, */*;q=0.1", JSON),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", JSON),
        ("application/json;q=0.5, application/x-protobuf;q=0.9", PROTOBUF),
        ("application/json;q=0.5, application/x-protobuf", PROTOBUF),
        ("application/x-protobuf, application/json", PROTOBUF),  # equally liked: its order
        ("*/*, application/x-protobuf", PROTOBUF),  # equally liked: the one that was named
        ("application/json;q=0, */*", PROTOBUF),  # the more precise range counts
        ("application/json;q=0", None),
        ("*/*;q=0", None),
        ("application/*;q=0, application/json", JSON),
        ("application/json;q=0.000", None),
        ("application/json;q=0.001", JSON),
        ("application/json; q=1.000", JSON),
        ("application/json;Q=0.5, application/x-protobuf;q=0.4", JSON),
        ("application/json;q=2, application/x-protobuf", PROTOBUF),  # no weight: left out
        ("application/json;q=nonsense", JSON),  # nothing readable is as good as no header
        ("nonsense", JSON),
        (",,,", JSON),
        (", application/x-protobuf ,", PROTOBUF),
        ('text/x;a="b,c;q=1", application/x-protobuf', PROTOBUF),
        ("*/json", None),
    ],
)
def test_accept_chooses(accept, chosen):
    assert choose(accept, OFFERS) == chosen


@given(st.text() | st.from_regex(r'([a-z*]{1,3}/[a-z*]{1,3}(;q=[0-9.]{1,4})?[,; "\\]*){0,5}'))
def test_no_header_is_too_odd(accept):
    assert choose(accept, OFFERS) in (*OFFERS, None)


@given(st.sampled_from(OFFERS), st.floats(0.001, 1))
def test_what_alone_is_accepted_is_what_is_chosen(offer, quality):
    assert choose(f"{offer};q={quality:.3f}", OFFERS) == offer


@pytest.mark.parametrize("header", ['"\\"' * 50_000, "a/b;" * 50_000, ",a/b" * 50_000, '"' * 100_000])
def test_a_hostile_header_is_read_to_a_certain_length_only(header):
    assert len(parse(header)) < 1000  # reading all of it, with backtracking, would take minutes


def test_several_lines_of_accept_are_one_list(serve):
    client = serve(get("/", lambda request: {"a": 1}))
    headers = [("Accept", "text/html"), ("Accept", "application/json;q=0.1")]
    assert client.get("/", headers=headers).status_code == 200


def test_an_unacceptable_answer_is_refused_before_anything_was_done(serve):
    done = []
    client = serve(post("/", lambda request: done.append(1)))
    answer = client.post("/", headers={"Accept": "text/csv"})
    assert (answer.status_code, done) == (406, [])
    assert answer.json["error"].startswith("nothing acceptable: use application/json")


def test_caches_are_told_that_the_answer_depends_on_accept(serve):
    client = serve(get("/", lambda request: {"a": 1}), get("/raw", lambda request: b"raw"))
    assert client.get("/").headers["Vary"] == "Accept"
    assert "Vary" not in client.get("/raw").headers


def test_a_body_of_another_type_is_refused(serve):
    client = serve(post("/", lambda request: request.decode()))
    answer = client.post("/", data=b"<a/>", content_type="application/xml")
    assert answer.status_code == 415
    assert "application/json" in answer.headers["Accept"]  # RFC 9110, section 15.5.16


def test_a_body_without_a_type_is_json(serve):
    client = serve(post("/", lambda request: request.decode()))
    answer = client.post("/", data=b'{"a":1}')
    assert (answer.status_code, answer.json) == (201, {"a": 1})


def test_content_type_chooses_the_decoder_and_accept_the_encoder(serve):
    struct_pb2 = pytest.importorskip("google.protobuf.struct_pb2")
    message = struct_pb2.Struct()
    message["a"] = "b"
    client = serve(post("/", lambda request: request.decode(struct_pb2.Struct)))

    answer = client.post("/", data=b'{"a":"b"}', content_type=JSON, headers={"Accept": PROTOBUF})
    assert (answer.content_type, answer.data) == (PROTOBUF, message.SerializeToString())

    answer = client.post("/", data=message.SerializeToString(), content_type=GOOGLE, headers={"Accept": JSON})
    assert (answer.content_type, answer.json) == ("application/json; charset=utf-8", {"a": "b"})


def test_who_sends_a_format_and_asks_for_none_gets_it_back(serve):
    struct_pb2 = pytest.importorskip("google.protobuf.struct_pb2")
    message = struct_pb2.Struct()
    message["a"] = "b"
    body = message.SerializeToString()

    def made(request):
        return request.decode(struct_pb2.Struct)

    def said(request):
        return request.accepted

    client = serve(post("/", made), get("/", made), post("/csv", said, produces=(JSON, "text/csv")))
    for sent in (PROTOBUF, GOOGLE, "Application/X-Protobuf; messageType=x"):
        answer = client.post("/", data=body, content_type=sent)
        assert (answer.content_type, answer.data) == (sent.partition(";")[0].lower(), body)
    for accept in ("*/*", "application/*", JSON):
        assert client.post("/", data=body, content_type=PROTOBUF, headers={"Accept": accept}).json == {
            "a": "b"
        }
    # Caches tell answers to GET apart by Accept; and what comes in is not always what the route is for.
    assert client.get("/", data=body, content_type=PROTOBUF).json == {"a": "b"}
    assert client.post("/csv", data=b"a,b", content_type="text/csv").json == JSON


def test_what_the_wanted_format_cannot_hold_is_answered_as_json(serve):
    client = serve(get("/", lambda request: {"a": 1}))
    answer = client.get("/", headers={"Accept": PROTOBUF})
    assert (answer.status_code, answer.json) == (200, {"a": 1})


def test_a_route_may_offer_formats_of_its_own(serve):
    def report(request):
        if request.accepted == "text/csv":
            return Response("a,b\n", content_type="text/csv")
        return {"a": "b"}

    client = serve(get("/", report, produces=("text/csv", JSON)))
    answer = client.get("/", headers={"Accept": "text/csv"})
    assert (answer.content_type, answer.text) == ("text/csv; charset=utf-8", "a,b\n")
    assert client.get("/", headers={"Accept": "application/json"}).json == {"a": "b"}
    assert client.get("/").content_type.startswith("text/csv")
    assert client.get("/", headers={"Accept": "image/png"}).status_code == 406


def test_errors_are_encoded_as_the_client_accepts_or_as_json(serve):
    class Reversed:
        content_type = "text/x-reversed"

        def encode(self, value):
            return encoding.encode(value)[::-1]

        def decode(self, body, into, parameters):
            return encoding.decode(body[::-1], None, into)

    client = serve(get("/", lambda request: None))
    encoding.register(Reversed(), "text/x-reversed")
    try:
        answer = client.get("/nowhere", headers={"Accept": "text/x-reversed"})
        assert (answer.content_type, answer.data) == ("text/x-reversed", b'{"error":"Not Found"}'[::-1])
    finally:
        encoding.unregister("text/x-reversed")
    assert client.get("/nowhere", headers={"Accept": "text/html"}).json == {"error": "Not Found"}
