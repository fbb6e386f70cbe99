"""The head of an answer goes out once and whole, and the body is what the head says; requests name their host."""

from __future__ import annotations

import flask
import pytest
from werkzeug.test import Client, EnvironBuilder

from patron.errors import NotFound, ServiceUnavailable
from patron.http import Response, build, get
from patron.observe import capture, current_operation

BROKEN = b'{"error":"Internal Server Error"}'


class Server:
    """A server that adds what ``start_response`` is given to what it had before, as gunicorn does."""

    def __init__(self, app):
        self.app = app
        self.heads = []
        self.status = None
        self.headers = []
        self.body = b""
        self.cut = False

    def start_response(self, status, headers, exc_info=None):
        self.heads.append(status)
        self.status = status
        self.headers += headers
        return self.write

    def write(self, data):
        assert self.status is not None
        assert isinstance(data, bytes)
        self.body += data

    def get(self, path="/", **environ):
        try:
            body = self.app({**EnvironBuilder(path).get_environ(), **environ}, self.start_response)
            try:
                for chunk in body:
                    self.write(chunk)
            finally:
                getattr(body, "close", lambda: None)()
        except OSError:
            self.cut = True
        return self

    def values(self, name):
        return [value for key, value in self.headers if key.lower() == name.lower()]


def mounting(application, **options):
    app = build(mounts={"/old": application}, **options)
    app.start({})
    return app


def serving(processor, **options):
    app = build(routes=[get("/", processor)], **options)
    app.start({})
    return app


def nothing_is_left(app):
    return (current_operation(), list(app.in_flight())) == (None, [])


# ------------------------------------------------------------------ errors after start_response


def raises_late(environ, start_response):
    start_response("200 OK", [("Content-Length", "5"), ("Set-Cookie", "a=1")])
    raise ValueError("secret")


def raises_when_iterated(environ, start_response):
    start_response("200 OK", [("Content-Length", "5"), ("Set-Cookie", "a=1")])
    raise ValueError("secret")
    yield b"hello"


def has_a_bad_name(environ, start_response):
    start_response("200 OK", [("Content-Length", "5"), ("Set-Cookie", "a=1"), ("X A", "b")])
    return [b"hello"]


def has_a_bad_value(environ, start_response):
    start_response("200 OK", [("Content-Length", "5"), ("Set-Cookie", "a=1"), ("X-A", "a\nb")])
    return [b"hello"]


def has_a_value_that_is_no_text(environ, start_response):
    start_response("200 OK", [("Content-Length", "5"), ("Set-Cookie", "a=1"), ("X-A", 1)])
    return [b"hello"]


def has_a_bad_length(environ, start_response):
    start_response("200 OK", [("Set-Cookie", "a=1"), ("content-length", "five")])
    return [b"hello"]


def has_two_lengths(environ, start_response):
    start_response("200 OK", [("Content-Length", "5"), ("Content-Length", "50")])
    return [b"hello"]


def has_a_bad_status(environ, start_response):
    start_response("-12 odd", [("Content-Length", "5")])
    return [b"hello"]


def starts_twice(environ, start_response):
    start_response("200 OK", [("Content-Length", "5"), ("Set-Cookie", "a=1")])
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]


def never_starts(environ, start_response):
    return [b"hello"]


def returns_none(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])


def returns_nones(environ, start_response):
    start_response("200 OK", [])
    return [None]


def returns_text(environ, start_response):
    start_response("200 OK", [])
    return ["hello"]


def yields_text(environ, start_response):
    start_response("200 OK", [])
    yield "hello"


def promises_more(environ, start_response):
    start_response("200 OK", [("Content-Length", "50")])
    return [b"hello"]


def exits(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    raise SystemExit(3)


@pytest.mark.parametrize(
    "application",
    [
        raises_late,
        raises_when_iterated,
        has_a_bad_name,
        has_a_bad_value,
        has_a_value_that_is_no_text,
        has_a_bad_length,
        has_two_lengths,
        has_a_bad_status,
        starts_twice,
        never_starts,
        returns_none,
        returns_nones,
        returns_text,
        yields_text,
        promises_more,
        exits,
    ],
)
@pytest.mark.parametrize("place", ["mounted", "middleware"])
def test_an_error_before_the_first_byte_replaces_the_answer_entirely(caplog, application, place):
    caplog.set_level("INFO", "patron")
    app = (
        mounting(application)
        if place == "mounted"
        else serving(lambda request: 1, middlewares=[lambda inner: application])
    )
    with capture() as observed:
        answer = Server(app).get("/old", HTTP_X_CORRELATION_ID="abc")
    assert (answer.heads, answer.body) == (["500 Internal Server Error"], BROKEN)
    assert answer.values("Content-Length") == [str(len(BROKEN))]
    assert (answer.values("Set-Cookie"), answer.values("X-Correlation-Id")) == ([], ["abc"])
    (operation,) = observed.operations
    assert (operation.outcome, operation.error is not None) == ("500", True)
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    assert nothing_is_left(app)


def test_an_application_may_replace_its_own_answer_before_the_first_byte():
    def application(environ, start_response):
        start_response("200 OK", [("Set-Cookie", "a=1")])
        try:
            raise ValueError
        except ValueError as error:
            start_response("418 Own", [("X-Own", "1")], (type(error), error, error.__traceback__))
        return [b"own"]

    answer = Server(mounting(application)).get("/old")
    assert (answer.heads, answer.body, answer.values("Set-Cookie")) == (["418 Own"], b"own", [])


def test_a_server_that_refuses_the_head_gets_no_second_one(caplog):
    def refusing(status, headers, exc_info=None):
        calls.append(status)
        raise AssertionError("no")

    calls = []
    app = serving(lambda request: 1)
    with capture() as observed, pytest.raises(ConnectionResetError):
        app(EnvironBuilder().get_environ(), refusing)
    assert (calls, [operation.outcome for operation in observed.operations]) == (["200 OK"], ["500"])
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert nothing_is_left(app)


def test_an_error_has_no_headers_of_its_own_that_frame_the_body():
    def processor(request):
        raise NotFound(
            headers={"Content-Length": "5", "transfer-encoding": "chunked", "X A": "b", "X-A": "b"}
        )

    answer = Server(serving(processor)).get()
    assert (len(answer.values("Content-Length")), answer.values("Transfer-Encoding")) == (1, [])
    assert (answer.values("X A"), answer.values("X-A")) == ([], ["b"])


# ------------------------------------------------------------------ streams


def test_an_application_may_write_before_it_returns():
    def application(environ, start_response):
        write = start_response("200 OK", [("Content-Length", "10")])
        write(b"hello")
        return [b"again"]

    with capture() as observed:
        answer = Server(mounting(application)).get("/old")
    assert (answer.heads, answer.body, answer.cut) == (["200 OK"], b"helloagain", False)
    assert [operation.outcome for operation in observed.operations] == ["200"]


def test_an_error_after_a_write_cuts_the_answer(caplog):
    def application(environ, start_response):
        start_response("200 OK", [])(b"hello")
        raise ValueError

    app = mounting(application)
    with capture() as observed:
        answer = Server(app).get("/old")
    assert (answer.heads, answer.body, answer.cut) == (["200 OK"], b"hello", True)
    assert [operation.outcome for operation in observed.operations] == ["500"]
    assert len(caplog.records) == 1
    assert nothing_is_left(app)


@pytest.mark.parametrize(
    "error", [ValueError("secret"), NotFound({"error": "gone"}), GeneratorExit()], ids=repr
)
def test_a_stream_that_raises_before_its_first_byte_is_a_clean_error(caplog, error):
    def chunks():
        try:
            yield b""
            raise error
        finally:
            closed.append(True)

    closed = []
    app = serving(lambda request: Response(chunks(), headers={"Set-Cookie": "a=1"}))
    with capture() as observed:
        answer = Server(app).get()
    status = "404" if isinstance(error, NotFound) else "500"
    assert (answer.heads[0][:3], len(answer.heads), answer.cut) == (status, 1, False)
    assert (answer.values("Set-Cookie"), closed) == ([], [True])
    assert [operation.outcome for operation in observed.operations] == [status]
    assert len(caplog.records) == (status == "500")
    assert nothing_is_left(app)


@pytest.mark.parametrize(
    "error", [ValueError("secret"), NotFound(), SystemExit(3), GeneratorExit()], ids=repr
)
def test_a_stream_that_raises_midway_is_cut_and_counts_as_an_error(caplog, error):
    caplog.set_level("INFO", "patron")

    def chunks():
        yield b"abc"
        raise error

    app = serving(lambda request: Response(chunks()))
    with capture() as observed:
        answer = Server(app).get()
    assert (answer.heads, answer.body, answer.cut) == (["200 OK"], b"abc", True)
    (operation,) = observed.operations
    assert (operation.outcome, operation.error) == ("500", error)
    broken, line = caplog.records
    assert (broken.getMessage().partition(" {")[0], broken.levelname) == ("response broke off", "ERROR")
    assert (line.fields["status"], line.fields["bytes"]) == (500, 3)
    assert nothing_is_left(app)


def test_a_chunk_that_is_no_bytes_breaks_the_stream_off():
    def application(environ, start_response):
        start_response("200 OK", [])
        yield b"abc"
        yield "def"

    with capture() as observed:
        answer = Server(mounting(application)).get("/old")
    assert (answer.body, answer.cut, observed.operations[0].outcome) == (b"abc", True, "500")


def test_a_stream_that_ends_before_its_length_is_cut(caplog):
    def application(environ, start_response):
        start_response("200 OK", [("Content-Length", "10")])
        yield b"abc"

    with capture() as observed:
        answer = Server(mounting(application)).get("/old")
    assert (answer.body, answer.cut, observed.operations[0].outcome) == (b"abc", True, "500")


def test_a_client_that_goes_away_is_no_error(caplog):
    app = serving(lambda request: Response(iter([b"a", b"b"])))
    with capture() as observed:
        body = app(EnvironBuilder().get_environ(), lambda status, headers: None)
        next(iter(body))
        body.close()
    assert ([operation.outcome for operation in observed.operations], caplog.records) == (["200"], [])


def test_no_more_than_the_first_chunk_is_fetched_ahead():
    def chunks():
        for number in range(3):
            asked.append(number)
            yield b"%d" % number

    asked = []
    body = serving(lambda request: Response(chunks()))(EnvironBuilder().get_environ(), lambda *head: None)
    assert asked == [0]
    iterator = iter(body)
    assert (next(iterator), asked) == (b"0", [0])
    assert (next(iterator), asked) == (b"1", [0, 1])
    body.close()


@pytest.mark.parametrize("chunks", [[], [b""], [b"", b"a", b"", b"b"]], ids=repr)
def test_streams_may_be_empty_and_have_empty_chunks(chunks):
    answer = Server(serving(lambda request: Response(iter(chunks)))).get()
    assert (answer.heads, answer.body, answer.cut) == (["200 OK"], b"".join(chunks), False)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "304 Not Modified"])
def test_an_answer_that_has_no_body_may_have_a_length(method, status):
    def application(environ, start_response):
        start_response(status, [("Content-Length", "5")])
        return [b"hello"] if status == "200 OK" and method == "GET" else []

    answer = Server(mounting(application)).get("/old", REQUEST_METHOD=method)
    assert (answer.heads, answer.values("Content-Length"), answer.cut) == ([status], ["5"], False)


# ------------------------------------------------------------------ spans


def failing(request):
    raise ServiceUnavailable()


def aborting(request):
    flask.abort(503)


@pytest.mark.parametrize("processor", [failing, aborting], ids=lambda each: each.__name__)
@pytest.mark.parametrize("handled", [False, True])
def test_a_5xx_fails_its_span_whoever_made_an_answer_of_the_error(processor, handled):
    handlers = flask.Blueprint("handlers", __name__)
    if handled:
        handlers.app_errorhandler(ServiceUnavailable)(lambda error: ("later", 503))
        handlers.app_errorhandler(503)(lambda error: ("later", 503))
    with capture() as observed:
        answer = Client(serving(processor, blueprints=[handlers])).get("/")
    assert (answer.status_code, answer.text == "later") == (503, handled)
    assert getattr(observed.spans[0].failure, "status", 0) == 503 or observed.spans[0].failure.code == 503
    assert observed.operations[0].error is observed.spans[0].failure


def test_an_error_that_a_handler_made_good_fails_no_span():
    handlers = flask.Blueprint("handlers", __name__)
    handlers.app_errorhandler(ServiceUnavailable)(lambda error: "as it was yesterday")
    with capture() as observed:
        assert Client(serving(failing, blueprints=[handlers])).get("/").status_code == 200
    assert (observed.spans[0].failure, observed.operations[0].error) == (None, None)


# ------------------------------------------------------------------ Host


@pytest.mark.parametrize("path", ["/", "/ready", "/nowhere"])
def test_http_1_1_without_a_host_is_a_400(path):
    environ = EnvironBuilder(path).get_environ()
    del environ["HTTP_HOST"]
    app = serving(lambda request: 1)
    heads = []
    app({**environ, "SERVER_PROTOCOL": "HTTP/1.1"}, lambda status, headers: heads.append(status))
    app({**environ, "SERVER_PROTOCOL": "HTTP/1.0"}, lambda status, headers: heads.append(status))
    assert (heads[0], heads[1] != heads[0]) == ("400 Bad Request", True)


@pytest.mark.parametrize(
    "host", ['evil"><x', "a b", "a/b", "a@b", "a,b", "a:b", "\xe9", "a\\b", "[::1", "a?", "a#"]
)
def test_a_host_that_is_none_is_a_400(host):
    assert Server(serving(lambda request: 1)).get(HTTP_HOST=host).heads == ["400 Bad Request"]


@pytest.mark.parametrize(
    "host",
    [
        "",
        "a",
        "a:80",
        "a:",
        "shop.example",
        "my_shop-1:8080",
        "127.0.0.1:1",
        "[::1]",
        "[::1]:80",
        "xn--bcher-kva",
    ],
)
def test_any_other_host_is_served(host):
    assert Server(serving(lambda request: 1)).get(HTTP_HOST=host).heads == ["200 OK"]


@pytest.mark.parametrize(
    ("path", "query", "location"),
    [
        ("/dir", "", "/dir/"),
        ("/dir", "a=b&c=%0a", "/dir/?a=b&c=%0a"),
        ("//dir", "", "/dir/"),
        ("//shop.example//y", "", "/shop.example/y"),
        ("/\\shop.example//y", "", "/%5Cshop.example/y"),
    ],
)
def test_a_redirect_for_slashes_names_no_host(path, query, location):
    app = build(routes=[get("/dir/", lambda request: 1), get("/<host>/y", lambda request: 2)])
    app.start({})
    answer = Server(app).get(PATH_INFO=path, QUERY_STRING=query, HTTP_HOST="127.0.0.1:80")
    assert (answer.heads, answer.values("Location")) == (["308 PERMANENT REDIRECT"], [location])
    assert b"127.0.0.1" not in answer.body


def test_a_redirect_for_slashes_keeps_the_path_that_the_service_is_mounted_at():
    app = build(routes=[get("/dir/", lambda request: 1)])
    app.start({})
    answer = Client(app).get("/dir", base_url="http://shop.example/under")
    assert answer.headers["Location"] == "/under/dir/"
