"""What a processor gets, and what becomes of what it returns."""

from __future__ import annotations

import io
from dataclasses import dataclass

import flask
import pytest
from werkzeug.test import Client, EnvironBuilder, run_wsgi_app

from patron.errors import BadRequest, ConfigError
from patron.http import HttpSettings, Response, build, delete, get, patch, post, put


@dataclass
class Item:
    sku: str
    quantity: int


@dataclass
class Order:
    customer: str
    items: list[Item]


# ------------------------------------------------------------------ requests


def test_fields_are_the_first_of_each_query_parameter_with_the_path_over_them(serve):
    client = serve(get("/fields/<int:id>", lambda request: request.fields))
    answer = client.get("/fields/7?id=9&a=1&a=2&empty=&caf%C3%A9=%C3%A9&broken=%ff")
    assert answer.json == {"id": 7, "a": "1", "empty": "", "café": "é", "broken": "\N{REPLACEMENT CHARACTER}"}


def test_path_parameters_are_converted_as_the_pattern_says(serve):
    client = serve(get("/<int:number>/<float:share>/<path:rest>", lambda request: dict(request.params)))
    assert client.get("/3/0.5/a/b").json == {"number": 3, "share": 0.5, "rest": "a/b"}
    assert client.get("/x/0.5/a").status_code == 404


def test_a_request_tells_what_it_is(serve):
    def describe(request):
        return {
            "method": request.method,
            "path": request.path,
            "route": request.route,
            "query": request.query,
            "remote": request.remote,
            "id": request.correlation_id,
            "repr": repr(request),
        }

    client = serve(get("/caf<x>", describe))
    answer = client.get(
        "/café?a=b", headers={"X-Correlation-Id": "abc"}, environ_base={"REMOTE_ADDR": "10.0.0.1"}
    )
    assert answer.json == {
        "method": "GET",
        "path": "/café",
        "route": "/caf<x>",
        "query": "a=b",
        "remote": "10.0.0.1",
        "id": "abc",
        "repr": "<Request GET /café>",
    }


def test_headers_are_found_in_any_case_and_listed(serve):
    def headers(request):
        assert request.headers["x-TOKEN"] == request.headers.get("X-Token") == "secret"
        assert "X-TOKEN" in request.headers
        assert "X-None" not in request.headers
        assert request.headers.get("X-None", "default") == "default"
        assert "secret" not in repr(request.headers)
        with pytest.raises(KeyError):
            request.headers["X-None"]
        assert len(request.headers) == len(list(request.headers))
        return sorted(request.headers)

    client = serve(post("/", headers))
    assert client.post("/", json={}, headers={"X-Token": "secret"}).json == [
        "Content-Length",
        "Content-Type",
        "Host",
        "X-Token",
    ]


def test_header_bytes_that_are_no_ascii_are_read_as_latin_1_and_do_no_harm(serve, caplog):
    caplog.set_level("DEBUG", "patron")
    client = serve(get("/", lambda request: request.headers["X-Odd"]))
    answer = client.get("/", environ_overrides={"HTTP_X_ODD": "\xff\xfe", "HTTP_X_CORRELATION_ID": "\xff"})
    assert (answer.status_code, answer.json) == (200, "\xff\xfe")
    assert answer.headers["X-Correlation-Id"].isascii()


def test_the_body_is_there_as_a_stream_and_is_read_once(serve):
    def read(request):
        return [
            request.raw.readline().decode(),
            [line.decode() for line in request.raw],
            request.raw.read().decode(),
        ]

    client = serve(
        post("/lines", read), post("/twice", lambda request: request.body() == request.body() == b"a")
    )
    assert client.post("/lines", data=b"a\nb\nc").json == ["a\n", ["b\n", "c"], ""]
    assert client.post("/twice", data=b"a").json is True


def test_a_body_is_checked_against_a_type_and_the_wrong_field_is_named(serve):
    client = serve(post("/orders", lambda request: request.decode(Order)))
    right = {"customer": "c1", "items": [{"sku": "A1", "quantity": 2}]}
    assert client.post("/orders", json=right).json == right
    answer = client.post("/orders", json={"customer": "c1", "items": [{"sku": "A1", "quantity": "2"}]})
    assert answer.status_code == 400
    assert list(answer.json["fields"]) == ["items.0.quantity"]
    answer = client.post("/orders", data=b"{", content_type="application/json")
    assert (answer.status_code, set(answer.json)) == (400, {"error"})


def test_the_decode_error_is_the_cause_of_the_bad_request(serve):
    def lenient(request):
        with pytest.raises(BadRequest) as caught:
            request.decode(Order)
        return type(caught.value.__cause__).__name__

    client = serve(post("/", lenient))
    assert client.post("/", data=b"{").json == "DecodeError"


def test_a_processor_names_the_resources_that_it_wants(serve):
    client = serve(
        get("/", lambda request, db, *, unit="EUR": [db["total"], unit]),
        resources={"db": {"total": 3}, "other": 1},
    )
    assert client.get("/").json == [3, "EUR"]


def test_every_resource_that_is_missing_is_reported_at_once():
    app = build(routes=[get("/a", lambda request, db: 1), get("/b", lambda request, cache: 1)])
    with pytest.raises(ConfigError) as caught:
        app.start({})
    assert len(caught.value.problems) == 2


def test_until_it_has_started_only_the_admin_routes_answer():
    app = build(routes=[get("/", lambda request: "up")])
    client = Client(app)
    answer = client.get("/")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.json == {"error": "the service is starting"}
    assert client.get("/alive").status_code == 200
    app.start({})
    assert client.get("/").json == "up"


# ------------------------------------------------------------------ answers


@pytest.mark.parametrize(
    ("helper", "status"), [(get, 200), (post, 201), (put, 200), (patch, 200), (delete, 200)]
)
def test_the_status_follows_from_the_method(serve, helper, status):
    client = serve(helper("/", lambda request: {"a": 1}))
    answer = client.open("/", method=helper.__name__.upper())
    assert (answer.status_code, answer.json) == (status, {"a": 1})
    assert answer.content_type == "application/json; charset=utf-8"


@pytest.mark.parametrize("value", [None, Response(), Response(None)], ids=repr)
@pytest.mark.parametrize("helper", [get, post])
def test_nothing_is_204_without_body_or_type(serve, helper, value):
    client = serve(helper("/", lambda request: value))
    answer = client.open("/", method=helper.__name__.upper())
    assert (answer.status_code, answer.data) == (204, b"")
    assert "Content-Type" not in answer.headers
    assert "Content-Length" not in answer.headers


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_response_says_otherwise_and_keeps_its_headers_for_every_method(serve, method):
    response = Response({"id": 1}, 202, {"X-One": "1", "X-Two": ["a", "b"]})
    client = serve(get("/", lambda request: response), post("/", lambda request: response))
    answer = client.open("/", method=method)
    assert (answer.status_code, answer.json) == (202, {"id": 1})
    assert (answer.headers["X-One"], answer.headers.getlist("X-Two")) == ("1", ["a", "b"])


def test_an_empty_answer_may_have_a_status(serve):
    client = serve(post("/", lambda request: Response(status=202)))
    answer = client.post("/")
    assert (answer.status_code, answer.data, answer.headers["Content-Length"]) == (202, b"", "0")


@pytest.mark.parametrize(
    ("response", "content_type", "body"),
    [
        (Response(b"\x00\xff"), "application/octet-stream", b"\x00\xff"),
        (Response(b"a", content_type="image/png"), "image/png", b"a"),
        (Response("é", content_type="text/plain"), "text/plain; charset=utf-8", "é".encode()),
        (Response("é", content_type="text/plain; charset=utf-8"), "text/plain; charset=utf-8", "é".encode()),
        (Response("text"), "application/json; charset=utf-8", b'"text"'),
        (Response([1], content_type="application/vnd.api+json"), "application/vnd.api+json", b"[1]"),
        (Response(iter([b"a", b"b"])), "application/octet-stream", b"ab"),
        (Response(iter([b"a"]), content_type="text/csv"), "text/csv", b"a"),
        (Response("x", headers={"content-type": "text/own"}), "text/own", b'"x"'),
        (Order("c", [Item("A", 1)]), "application/json; charset=utf-8", None),
        ([1, 2], "application/json; charset=utf-8", b"[1,2]"),
        (False, "application/json; charset=utf-8", b"false"),
    ],
)
def test_payloads_are_encoded_or_sent_as_they_are(serve, response, content_type, body):
    client = serve(get("/", lambda request: response))
    answer = client.get("/")
    assert (answer.status_code, answer.content_type) == (200, content_type)
    assert body is None or answer.data == body


def test_flask_responses_pass_through(serve):
    client = serve(
        get("/response", lambda request: flask.Response("made by flask", status=418)),
        get("/redirect", lambda request: flask.redirect("/elsewhere")),
    )
    answer = client.get("/response")
    assert (answer.status_code, answer.text) == (418, "made by flask")
    assert client.get("/redirect").headers["Location"] == "/elsewhere"


@pytest.mark.parametrize(
    "response",
    [
        Response(1, 700),
        Response(1, headers={"X-A": "a\r\nSet-Cookie: b"}),
        Response(1, headers={"X-A": 1}),
        Response(1, headers={"X-A": "\N{SNOWMAN}"}),
        Response(object()),
        {"a": b"bytes have no form in JSON"},
    ],
)
def test_an_answer_that_cannot_be_sent_is_a_500_and_is_logged(serve, caplog, response):
    client = serve(get("/", lambda request: response))
    answer = client.get("/")
    assert (answer.status_code, answer.json) == (500, {"error": "Internal Server Error"})
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "Set-Cookie" not in answer.headers


def test_head_is_answered_by_get_without_its_body(serve):
    client = serve(get("/", lambda request: {"a": 1}))
    answer = client.head("/")
    assert (answer.status_code, answer.data, answer.headers["Content-Length"]) == (200, b"", "7")


# ------------------------------------------------------------------ limits


def _raw(app, **environ):
    """The status and body of a request with this environment, as a server would make it."""
    chunks, status, _ = run_wsgi_app(app, {**EnvironBuilder().get_environ(), **environ}, buffered=True)
    return int(status[:3]), b"".join(chunks)


class Unread(io.BytesIO):
    """A stream that nobody may read."""

    def read(self, *args):
        raise AssertionError("was read")


def _limited(processor):
    app = build(HttpSettings(max_body=10), routes=[post("/", processor)], blueprints=[_views()])
    app.start({})
    return app


def _views():
    blueprint = flask.Blueprint("views", __name__)
    blueprint.add_url_rule("/view", view_func=lambda: str(len(flask.request.get_data())), methods=["POST"])
    return blueprint


def test_a_body_that_says_that_it_is_too_large_is_not_read():
    app = _limited(lambda request: 1)
    status, body = _raw(app, REQUEST_METHOD="POST", CONTENT_LENGTH="11", **{"wsgi.input": Unread()})
    assert status == 413
    assert b"at most 10" in body


@pytest.mark.parametrize("path", ["/", "/view"])
@pytest.mark.parametrize(("size", "status"), [(10, 200), (11, 413), (100_000, 413)])
def test_a_chunked_body_is_counted_while_it_is_read(path, size, status):
    app = _limited(lambda request: Response(request.body(), 200))
    environ = {"wsgi.input": io.BytesIO(b"x" * size), "HTTP_TRANSFER_ENCODING": "chunked"}
    assert _raw(app, REQUEST_METHOD="POST", PATH_INFO=path, **environ)[0] == status


@pytest.mark.parametrize("length", ["abc", "-1", "1.5", "\u0661", "+1", "0x1"])
def test_a_content_length_that_is_no_number_is_a_400(length):
    app = _limited(lambda request: 1)
    assert _raw(app, REQUEST_METHOD="POST", CONTENT_LENGTH=length)[0] == 400


def test_a_content_length_of_a_thousand_digits_is_a_413():
    assert _raw(_limited(lambda request: 1), REQUEST_METHOD="POST", CONTENT_LENGTH="9" * 1000)[0] == 413


def test_without_a_length_there_is_no_body_and_nobody_waits_for_one():
    app = _limited(lambda request: [request.body().decode(), request.raw.read().decode()])
    assert _raw(app, REQUEST_METHOD="POST", **{"wsgi.input": Unread()}) == (201, b'["",""]')


def test_a_body_that_ends_early_is_a_400():
    app = _limited(lambda request: request.body() and None)
    environ = {"wsgi.input": io.BytesIO(b"abc")}
    status, body = _raw(app, REQUEST_METHOD="POST", CONTENT_LENGTH="5", **environ)
    assert (status, body) == (400, b'{"error":"the body ended 2 bytes early"}')


def test_a_body_ends_where_its_length_says_whatever_follows():
    app = _limited(lambda request: Response(request.body() + request.body(), 200))
    environ = {"wsgi.input": io.BytesIO(b"abcGET / HTTP/1.1"), "HTTP_ACCEPT": "*/*"}
    assert _raw(app, REQUEST_METHOD="POST", CONTENT_LENGTH="3", **environ) == (200, b"abcabc")


def test_a_connection_that_breaks_while_the_body_is_read_is_the_clients_fault(caplog):
    class Broken(io.BytesIO):
        def read(self, *args):
            raise ConnectionResetError

    app = _limited(lambda request: request.body())
    assert _raw(app, REQUEST_METHOD="POST", CONTENT_LENGTH="5", **{"wsgi.input": Broken()})[0] == 400
    assert not caplog.records
