"""Every request is observed in the same way, whatever became of it."""

from __future__ import annotations

import gc
import io
import threading
import urllib.request
from wsgiref.simple_server import WSGIRequestHandler, make_server

import flask
import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import Client, EnvironBuilder, run_wsgi_app

from patron import correlation
from patron.http import AccessLog, HttpSettings, Response, build, get, post
from patron.observe import capture, current_operation


def boom(request):
    raise ValueError


def mounted(environ, start_response):
    start_response("200 OK", [])
    return [b"mounted"]


def application(*routes, **options):
    app = build(options.pop("settings", None), routes=routes, **options)
    app.start({})
    return app


def access_lines(caplog):
    return [record for record in caplog.records if record.getMessage().startswith("request {")]


# ------------------------------------------------------------------ correlation


@pytest.mark.parametrize("path", ["/", "/boom", "/nowhere", "/alive", "/old/x", "/x/", "/stream", "/bad\x00"])
def test_every_answer_has_the_correlation_header(path):
    app = application(
        get("/", lambda request: 1),
        get("/boom", boom),
        get("/x", lambda request: 1),
        get("/stream", lambda request: Response(iter([b"a"]))),
        mounts={"/old": mounted},
    )
    environ = {**EnvironBuilder(headers={"X-Correlation-Id": "abc-1"}).get_environ(), "PATH_INFO": path}
    _, _, headers = run_wsgi_app(app, environ, buffered=True)
    assert headers.getlist("X-Correlation-Id") == ["abc-1"]


@pytest.mark.parametrize("incoming", [None, "", "x" * 10_000, "a b", "a\nb", "\xff", "a\x00"], ids=repr)
def test_a_missing_or_unacceptable_id_is_replaced(incoming):
    app = application(get("/", lambda request: request.correlation_id))
    environ = {} if incoming is None else {"HTTP_X_CORRELATION_ID": incoming}
    answers = [Client(app).get("/", environ_overrides=environ) for _ in range(2)]
    ids = {answer.headers["X-Correlation-Id"] for answer in answers}
    assert len(ids) == 2
    assert {answer.json for answer in answers} == ids
    assert all(len(each) < 50 for each in ids)


def test_the_header_may_have_another_name():
    app = application(get("/", lambda request: 1))
    before = correlation.settings()
    correlation.configure(correlation.CorrelationSettings(header="X-Flow-Id"))
    try:
        assert Client(app).get("/", headers={"X-Flow-Id": "abc"}).headers["x-flow-id"] == "abc"
    finally:
        correlation.configure(before)


def test_nothing_of_a_request_is_left_in_its_thread():
    client = Client(application(get("/", lambda request: 1), get("/boom", boom)))
    for path in ("/", "/boom", "/nowhere"):
        client.get(path)
        assert (correlation.current(), current_operation()) == (None, None)


def test_a_request_leaves_no_cycle_behind():
    app = application(get("/", lambda request: {"a": request.fields}))
    environ = EnvironBuilder().get_environ()
    app(dict(environ), lambda status, headers: None)
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            app(dict(environ), lambda status, headers: None)
        assert gc.collect() == 0
    finally:
        gc.enable()


# ------------------------------------------------------------------ operations


@pytest.mark.parametrize(
    ("method", "path", "name", "status"),
    [
        ("GET", "/orders/7", "GET /orders/<id>", "200"),
        ("HEAD", "/orders/7", "HEAD /orders/<id>", "200"),
        ("POST", "/orders/7", "POST /orders/<id>", "405"),
        ("BREW", "/orders/7", "other /orders/<id>", "405"),
        ("GET", "/nowhere", "GET unmatched", "404"),
        ("GET", "/boom", "GET /boom", "500"),
        ("GET", "/view", "GET /view", "200"),
        ("GET", "/old/any/thing", "GET /old/*", "200"),
        ("GET", "/alive", "GET /alive", "200"),
        ("GET", "/stream", "GET /stream", "200"),
    ],
)
def test_a_request_is_one_operation_named_by_method_and_pattern(method, path, name, status):
    views = flask.Blueprint("views", __name__)
    views.get("/view")(lambda: "view")
    app = application(
        get("/orders/<id>", lambda request: 1),
        get("/boom", boom),
        get("/stream", lambda request: Response(iter([b"a"]))),
        mounts={"/old": mounted},
        blueprints=[views],
    )
    with capture() as observed:
        Client(app).open(path + "?a=b", method=method, buffered=True)
    (operation,) = observed.operations
    assert (operation.kind, operation.name, operation.outcome) == ("server", name, status)
    (span,) = observed.spans
    assert span.tags["http.status_code"] == int(status)
    assert span.tags["http.url"] == path + "?a=b"
    assert span.tags["http.method"] == method


def test_a_5xx_that_was_returned_is_an_error_on_the_span_too():
    app = application(get("/", lambda request: Response(status=503)), get("/fine", lambda request: 1))
    with capture() as observed:
        Client(app).get("/", buffered=True)
        Client(app).get("/fine", buffered=True)
    assert [span.tags.get("error") for span in observed.spans] == [True, None]


@pytest.mark.parametrize("path", ["/", "/none", "/view", "/redirect", "/nowhere", "/old/x", "/alive"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_complete_answer_is_counted_before_the_server_has_it(method, path):
    views = flask.Blueprint("views", __name__)
    views.get("/view")(lambda: "view")
    app = application(
        get("/", lambda request: {"a": 1}),
        get("/none", lambda request: None),
        get("/redirect", lambda request: flask.redirect("/")),
        blueprints=[views],
        mounts={"/old": mounted},
    )
    with capture() as observed:
        app(EnvironBuilder(path, method=method).get_environ(), lambda status, headers: None)
        assert len(observed.operations) == 1


def test_a_streamed_answer_is_counted_when_it_is_closed_and_its_source_is_closed_too():
    closed = []

    def chunks():
        try:
            yield b"a"
            yield b"b"
        finally:
            closed.append(True)

    app = application(get("/", lambda request: Response(chunks())))
    with capture() as observed:
        body = app(EnvironBuilder().get_environ(), lambda status, headers: None)
        assert next(iter(body)) == b"a"
        assert (observed.operations, len(app.in_flight())) == ([], 1)
        body.close()
        body.close()
        assert (len(observed.operations), len(app.in_flight()), closed) == (1, 0, [True])


def test_what_is_in_flight_has_a_name():
    here, go_on = threading.Event(), threading.Event()

    def slow(request):
        here.set()
        go_on.wait()

    app = application(get("/slow/<id>", slow))
    thread = threading.Thread(target=lambda: Client(app).get("/slow/7?secret=1"))
    thread.start()
    here.wait()
    try:
        (work,) = app.in_flight()
        assert (work.what, work.thread) == ("GET /slow/7", thread.ident)
    finally:
        go_on.set()
        thread.join()
    assert list(app.in_flight()) == []


# ------------------------------------------------------------------ access log


def test_the_access_log_has_one_line_for_each_request(caplog):
    caplog.set_level("INFO", "patron")
    app = application(post("/orders/<id>", lambda request: {"a": 1}))
    answer = Client(app).post("/orders/7?secret=1", environ_base={"REMOTE_ADDR": "10.0.0.1"})
    (record,) = access_lines(caplog)
    fields = dict(record.fields)
    assert fields.pop("duration") > 0
    assert fields == {
        "route": "/orders/<id>",
        "method": "POST",
        "path": "/orders/7",
        "status": 201,
        "bytes": len(answer.data),
        "remote": "10.0.0.1",
    }


def test_admin_routes_are_logged_only_when_asked(caplog):
    caplog.set_level("INFO", "patron")
    Client(application()).get("/alive")
    assert not access_lines(caplog)
    Client(application(settings=HttpSettings(access_log=AccessLog(admin=True)))).get("/alive")
    assert len(access_lines(caplog)) == 1


@pytest.mark.parametrize(
    ("settings", "levels"),
    [
        (AccessLog(), ["INFO", "INFO", "INFO"]),
        (AccessLog(enabled=False), []),
        (AccessLog(level="debug"), ["DEBUG", "DEBUG", "DEBUG"]),
        (AccessLog(levels={"4xx": "warn", "5xx": "error"}), ["INFO", "WARNING", "ERROR"]),
        (AccessLog(levels={"400-599": "error", "404": "debug"}), ["INFO", "DEBUG", "ERROR"]),
        (AccessLog(statuses=("404", "5xx")), ["INFO", "INFO"]),
    ],
    ids=repr,
)
def test_levels_and_statuses_of_the_access_log_are_for_choosing(caplog, settings, levels):
    caplog.set_level("DEBUG", "patron")
    client = Client(
        application(
            get("/", lambda request: 1), get("/boom", boom), settings=HttpSettings(access_log=settings)
        )
    )
    for path in ("/", "/nowhere", "/boom"):
        client.get(path)
    assert [record.levelname for record in access_lines(caplog)] == levels


def test_the_bytes_of_a_stream_are_counted(caplog):
    caplog.set_level("INFO", "patron")
    client = Client(application(get("/", lambda request: Response(iter([b"a" * 10, b"b"])))))
    client.get("/", buffered=True)
    assert access_lines(caplog)[0].fields["bytes"] == 11


# ------------------------------------------------------------------ anything

wire = st.text(st.characters(max_codepoint=255), max_size=30)
_anything = application(
    get("/x/<id>", lambda request: [request.path, dict(request.fields), dict(request.headers)]),
    post("/<path:rest>", lambda request: request.decode()),
)


@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "OPTIONS", "BREW"]) | wire.filter(bool),
    path=wire | wire.map(lambda text: "/x/" + text),
    query=wire,
    headers=st.dictionaries(st.sampled_from(["ACCEPT", "COOKIE", "X_CORRELATION_ID", "HOST", "X_ANY"]), wire),
    content_type=st.none() | wire,
    body=st.binary(max_size=20),
)
def test_whatever_comes_is_answered_and_observed(method, path, query, headers, content_type, body):
    environ = {
        **EnvironBuilder(input_stream=io.BytesIO(body)).get_environ(),
        **{f"HTTP_{name}": value for name, value in headers.items()},
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "CONTENT_LENGTH": str(len(body)),
    }
    if content_type is not None:
        environ["CONTENT_TYPE"] = content_type
    with capture() as observed:
        _, status, answered = run_wsgi_app(_anything, environ, buffered=True)
    assert 200 <= int(status[:3]) < 500
    assert [operation.outcome for operation in observed.operations] == [status[:3]]
    assert len(answered.getlist("X-Correlation-Id")) == 1
    assert current_operation() is None


# ------------------------------------------------------------------ over a socket


class Quiet(WSGIRequestHandler):
    """A request handler of the standard library's server that does not print."""

    def log_message(self, *args):
        pass


def test_it_works_behind_another_server_on_a_real_socket():
    app = application(
        post("/echo", lambda request: request.decode()),
        get("/stream", lambda request: Response(io.BytesIO(b"a\nb\n"), content_type="text/plain")),
    )
    with make_server("127.0.0.1", 0, app, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            base = f"http://127.0.0.1:{server.server_port}"
            request = urllib.request.Request(f"{base}/echo", b'{"a":1}', {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert (answer.status, answer.read()) == (201, b'{"a":1}')
            with urllib.request.urlopen(f"{base}/stream", timeout=10) as answer:
                assert (answer.read(), answer.headers["Content-Type"]) == (b"a\nb\n", "text/plain")
            with urllib.request.urlopen(f"{base}/debug/components", timeout=10) as answer:
                assert answer.status == 200
        finally:
            server.shutdown()
            thread.join()
