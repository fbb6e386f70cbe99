"""An application with the plug-in answers as it did without, and is observed."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import flask
import pytest
from flask.testing import FlaskClient
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import create_environ

from patron import Patron, correlation
from patron.correlation import CorrelationSettings
from patron.errors import ConfigError
from patron.http import AccessLog, Compression, Cors, HttpSettings
from patron.observe import Capture, capture, metrics

HEADER = "X-Correlation-Id"


def shop(plug: Callable[[flask.Flask], Any] = Patron) -> flask.Flask:
    """An application that existed before the plug-in; what comes after *plug* comes after it."""
    app = flask.Flask("shop", static_folder=str(Path(__file__).parent), static_url_path="/files")
    app.secret_key = "known"
    plug(app)
    app.add_url_rule(
        "/orders/<int:number>", "order", lambda number: {"number": number}, methods=["GET", "PUT"]
    )
    app.add_url_rule("/fails", "fails", lambda: 1 / 0)
    app.add_url_rule("/teapot", "teapot", lambda: flask.abort(418))
    app.add_url_rule("/slash/", "slash", lambda: "slash")
    app.add_url_rule("/login", "login", _login, methods=["POST"])
    app.add_url_rule("/me", "me", lambda: flask.session["name"])
    app.add_url_rule("/echo", "echo", lambda: flask.request.get_data(), methods=["POST"])
    app.add_url_rule("/url", "url", lambda: flask.url_for("order", number=7, _external=True))
    pages = flask.Blueprint("pages", "pages", url_prefix="/pages")
    pages.add_url_rule("/<name>", "page", lambda name: f"<h1>{name}</h1>")
    app.register_blueprint(pages)
    return app


def _login() -> str:
    flask.session["name"] = flask.request.form["name"]
    flask.flash("welcome")
    return "in"


def outcomes(captured: Capture) -> list[tuple[str, str]]:
    return [(operation.name, operation.outcome) for operation in captured.operations]


def counted(pattern: str, status: int, method: str = "GET") -> bool:
    labels = f'{{method="{method}",path="{pattern}",status_code="{status}"}} 1.0'
    return f"component_http_handled_total{labels}" in metrics.exposition()[0].decode()


REQUESTS = [
    ("GET", "/orders/1"),
    ("HEAD", "/orders/1"),
    ("PUT", "/orders/1"),
    ("DELETE", "/orders/1"),
    ("OPTIONS", "/orders/1"),
    ("GET", "/orders/none"),
    ("GET", "/nowhere"),
    ("GET", "/fails"),
    ("GET", "/teapot"),
    ("GET", "/slash"),
    ("GET", "/url"),
    ("GET", "/files/conftest.py"),
    ("GET", "/files/../secret"),
    ("GET", "/pages/caf%C3%A9"),
    ("BREW", "/pages/x"),
    ("POST", "/echo"),
]


@pytest.mark.parametrize(("method", "path"), REQUESTS)
def test_every_answer_is_what_it_was_but_for_the_correlation_header(method: str, path: str) -> None:
    answers = [
        app.test_client().open(path, method=method, buffered=True) for app in (shop(lambda app: None), shop())
    ]
    before, after = ((answer.status, [*answer.headers], answer.data) for answer in answers)
    assert [header for header in after[1] if header[0] not in (HEADER, "Date")] == [
        header for header in before[1] if header[0] != "Date"
    ]
    assert (after[0], after[2]) == (before[0], before[2])
    assert HEADER in answers[1].headers


def test_the_urls_of_the_application_are_its_own() -> None:
    assert [*map(str, shop().url_map.iter_rules())] == [
        *map(str, shop(lambda app: None).url_map.iter_rules())
    ]


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/orders/1", "GET /orders/<int:number>"),
        ("PUT", "/orders/2", "PUT /orders/<int:number>"),
        ("DELETE", "/orders/2", "DELETE /orders/<int:number>"),
        ("GET", "/pages/x", "GET /pages/<name>"),
        ("GET", "/files/conftest.py", "GET /files/<path:filename>"),
        ("GET", "/nowhere", "GET unmatched"),
        ("GET", "/slash", "GET unmatched"),
        ("BREW", "/pages/x", "other /pages/<name>"),
    ],
)
def test_a_request_has_the_pattern_of_its_route(method: str, path: str, name: str) -> None:
    with capture() as captured:
        shop().test_client().open(path, method=method, buffered=True)
    assert [operation.name for operation in captured.operations] == [name]
    assert [span.name for span in captured.spans] == [name]


def test_an_answer_that_nobody_reads_is_counted_too() -> None:
    shop().test_client().get("/orders/3")
    assert counted("/orders/<int:number>", 200)


def test_the_correlation_id_is_taken_and_seen_by_the_view_and_given_back() -> None:
    app = shop()
    app.add_url_rule("/id", "id", lambda: correlation.current())
    answer = app.test_client().get("/id", headers={HEADER: "abc-1"})
    assert (answer.text, answer.headers.getlist(HEADER)) == ("abc-1", ["abc-1"])
    assert correlation.current() is None


def test_a_correlation_header_of_the_applications_own_stays_the_only_one() -> None:
    app = shop()
    app.after_request(lambda response: response.headers.set(HEADER.lower(), "mine") or response)
    assert app.test_client().get("/orders/1").headers.getlist(HEADER) == ["mine"]


def test_the_header_of_the_correlation_id_can_be_another() -> None:
    app = shop(lambda app: Patron(app, correlation=CorrelationSettings(header="X-Flow-Id")))
    answer = app.test_client().get("/orders/1", headers={"X-Flow-Id": "f1"})
    assert answer.headers["X-Flow-Id"] == "f1"
    assert HEADER not in answer.headers


def test_the_access_log_says_what_it_says_for_a_service() -> None:
    with capture() as captured:
        shop().test_client().get("/orders/5?secret=1")
    (line,) = captured.lines
    assert line["correlationID"]
    said = {
        name: line[name] for name in ("lvl", "msg", "route", "method", "path", "status", "bytes", "remote")
    }
    assert list(said.values()) == [
        "info",
        "request",
        "/orders/<int:number>",
        "GET",
        "/orders/5",
        200,
        13,
        "127.0.0.1",
    ]


def test_the_access_log_is_as_chosen() -> None:
    settings = HttpSettings(access_log=AccessLog(statuses=("5xx",), levels={"5xx": "error"}))
    app = shop(lambda app: Patron(app, http=settings))
    with capture() as captured:
        app.test_client().get("/orders/5")
        app.test_client().get("/fails")
    assert [(line["lvl"], line["status"]) for line in captured.lines] == [("error", 500)]


# Errors.


def test_an_exception_is_a_500_on_the_span_and_told_once_to_log_and_reporter(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[Any] = []
    app = shop(lambda app: Patron(app, error_reporter=lambda error, context: told.append((error, context))))
    with capture() as captured:
        assert app.test_client().get("/fails").status_code == 500
    assert outcomes(captured) == [("GET /fails", "500")]
    assert isinstance(captured.operations[0].error, ZeroDivisionError)
    assert captured.spans[0].tags["error"] is True
    assert [(type(error), context["route"], context["correlationID"]) for error, context in told] == [
        (ZeroDivisionError, "/fails", captured.operations[0].correlation_id)
    ]
    assert [record.getMessage() for record in caplog.records if record.exc_info] == [
        "Exception on /fails [GET]"
    ]


@pytest.mark.parametrize("setting", ["TESTING", "DEBUG", "PROPAGATE_EXCEPTIONS"])
def test_an_exception_that_flask_lets_out_stays_the_same_and_is_counted_and_told_once(setting: str) -> None:
    told: list[BaseException] = []
    app = shop(lambda app: Patron(app, error_reporter=lambda error, context: told.append(error)))
    app.config[setting] = True
    with capture() as captured, pytest.raises(ZeroDivisionError) as raised:
        app.test_client().get("/fails")
    assert outcomes(captured) == [("GET /fails", "500")]
    assert told == [raised.value]
    assert correlation.current() is None


def test_the_error_handlers_of_the_application_apply() -> None:
    app = shop()
    app.register_error_handler(ZeroDivisionError, lambda error: ({"sorry": True}, 503))
    app.register_error_handler(404, lambda error: ("nothing here", 404))
    with capture() as captured:
        assert app.test_client().get("/fails").json == {"sorry": True}
        assert app.test_client().get("/nowhere").text == "nothing here"
    assert outcomes(captured) == [("GET /fails", "503"), ("GET unmatched", "404")]


def test_what_a_middleware_inside_raises_goes_to_the_server_and_is_told() -> None:
    told: list[BaseException] = []
    app = flask.Flask("shop")
    app.wsgi_app = lambda environ, start_response: {}["gone"]  # type: ignore[method-assign]
    Patron(app, error_reporter=lambda error, context: told.append(error))
    with capture() as captured, pytest.raises(KeyError):
        app.test_client().get("/x")
    assert outcomes(captured) == [("GET unmatched", "500")]
    assert [type(error) for error in told] == [KeyError]


# What belongs to the application.


def test_hooks_run_as_they_did_and_in_their_order() -> None:
    def ran(plug: Callable[[flask.Flask], Any]) -> list[str]:
        calls: list[str] = []
        app = shop(plug)
        app.before_request(lambda: calls.append("before"))
        app.after_request(lambda response: calls.append("after") or response)
        app.teardown_request(lambda error: calls.append(f"teardown {type(error).__name__}"))
        app.teardown_appcontext(lambda error: calls.append("appcontext"))
        for path in ("/orders/1", "/fails", "/nowhere"):
            app.test_client().get(path)
        return calls

    assert ran(Patron) == ran(lambda app: None) != []


def test_a_session_and_its_flashes_and_the_context_of_a_test_client_go_on() -> None:
    app = shop()
    with app.test_client() as client:
        client.post("/login", data={"name": "ann"})
        assert flask.session["name"] == "ann"
        assert flask.get_flashed_messages() == ["welcome"]
        assert client.get("/me").text == "ann"
    assert correlation.current() is None


def test_an_extension_goes_on_flask_login() -> None:
    flask_login = pytest.importorskip("flask_login")
    app = shop()
    manager = flask_login.LoginManager(app)

    class User(flask_login.UserMixin):  # type: ignore[misc, name-defined]
        id = "ann"

    manager.user_loader(lambda name: User() if name == "ann" else None)
    app.add_url_rule("/enter", "enter", lambda: str(flask_login.login_user(User())), methods=["POST"])
    app.add_url_rule("/private", "private", flask_login.login_required(lambda: flask_login.current_user.id))
    client = app.test_client()
    assert client.get("/private").status_code == 401
    assert client.post("/enter").text == "True"
    assert client.get("/private").text == "ann"


def test_middlewares_may_stand_inside_and_outside() -> None:
    def named(name: str, inner: Any) -> Any:
        def middleware(environ: dict[str, Any], start_response: Any) -> Any:
            environ["trail"] = [*environ.get("trail", ()), name]
            return inner(environ, start_response)

        return middleware

    app = flask.Flask("shop")
    app.wsgi_app = named("inside", app.wsgi_app)  # type: ignore[method-assign]
    Patron(app)
    app.wsgi_app = named("outside", app.wsgi_app)  # type: ignore[method-assign]
    app.add_url_rule("/trail", "trail", lambda: flask.request.environ["trail"])
    with capture() as captured:
        assert app.test_client().get("/trail").json == ["outside", "inside"]
    assert outcomes(captured) == [("GET /trail", "200")]


def test_an_application_inside_an_application_both_with_the_plug_in_has_one_header() -> None:
    outer, inner = shop(), shop()
    inner_app = inner.wsgi_app
    outer.wsgi_app = DispatcherMiddleware(outer.wsgi_app, {"/inner": inner_app})  # type: ignore[method-assign]
    answer = outer.test_client().get("/inner/orders/1", headers={HEADER: "x1"})
    assert (answer.json, answer.headers.getlist(HEADER)) == ({"number": 1}, ["x1"])


def test_bodies_are_as_large_as_the_application_takes_them() -> None:
    app = shop(lambda app: Patron(app, http=HttpSettings(max_body=10)))
    assert len(app.test_client().post("/echo", data=b"x" * 3_000_000).data) == 3_000_000
    app.config["MAX_CONTENT_LENGTH"] = 100
    assert app.test_client().post("/echo", data=b"x" * 101).status_code == 413


def test_logging_stays_as_the_application_has_it() -> None:
    root = logging.getLogger()
    before = root.level, [*root.handlers]
    app = shop()
    app.test_client().get("/fails")
    assert (root.level, [*root.handlers]) == before


def test_the_application_keeps_to_the_wsgi_protocol() -> None:
    app = shop()
    app.add_url_rule("/stream", "stream", lambda: (part for part in ["a", "b"]))
    app.wsgi_app = validator(app.wsgi_app)  # type: ignore[method-assign]
    for path in ("/orders/1", "/fails", "/stream", "/ready", "/files/conftest.py"):
        with app.test_client().get(path, buffered=True) as answer:
            assert answer.data


# Bodies that are no plain text.


def test_a_stream_is_sent_piece_by_piece_with_the_context_of_its_request() -> None:
    app, made = shop(), list[Any]()

    def pieces() -> Iterator[str]:
        for name in "ab":
            made.append((name, correlation.current()))
            yield name

    app.add_url_rule("/stream", "stream", lambda: flask.stream_with_context(pieces()))
    with capture() as captured:
        answer = app.test_client().get("/stream", headers={HEADER: "s1"})
        stream = answer.iter_encoded()
        assert next(stream) == b"a"
        assert (made, outcomes(captured)) == ([("a", "s1")], [])
        assert next(stream) == b"b"
        answer.close()
    assert made == [("a", "s1"), ("b", "s1")]
    assert [(line["status"], line["bytes"]) for line in captured.lines] == [(200, 2)]


def test_a_stream_that_breaks_is_counted_as_500_and_told_once() -> None:
    told: list[BaseException] = []
    app = shop(lambda app: Patron(app, error_reporter=lambda error, context: told.append(error)))

    def pieces() -> Iterator[str]:
        yield "a"
        raise OSError("gone")

    app.add_url_rule("/stream", "stream", pieces)
    with capture() as captured:
        answer = app.test_client().get("/stream")
        with pytest.raises(OSError, match="gone"):
            answer.get_data()
        answer.close()
    assert outcomes(captured) == [("GET /stream", "500")]
    assert [str(error) for error in told] == ["gone"]


def test_a_stream_that_the_client_leaves_is_closed_and_counted() -> None:
    app, closed = shop(), list[Any]()

    def pieces() -> Iterator[str]:
        try:
            while True:
                yield "a"
        finally:
            closed.append(True)

    app.add_url_rule("/stream", "stream", pieces)
    with capture() as captured:
        app.test_client().get("/stream").close()
    assert (closed, outcomes(captured)) == ([True], [("GET /stream", "200")])


def test_what_runs_when_an_answer_is_closed_still_knows_its_correlation_id() -> None:
    app, seen = shop(), list[Any]()

    def view() -> flask.Response:
        answer = flask.make_response("text")
        answer.call_on_close(lambda: seen.append(correlation.current()))
        return answer

    app.add_url_rule("/closing", "closing", view)
    app.test_client().get("/closing", headers={HEADER: "c1"}).close()
    assert (seen, correlation.current()) == (["c1"], None)


def served(app: flask.Flask, path: str = "/", **extra: Any) -> tuple[list[Any], Any]:
    """What a server gets when it calls *app*: the head, and the body as it is."""
    heads: list[Any] = []
    environ = {**create_environ(path), **extra}
    return heads, app(environ, lambda status, headers, exc_info=None: heads.append((status, headers)))


def test_a_file_reaches_the_server_in_the_servers_own_wrapper() -> None:
    class Wrapper:
        def __init__(self, file: Any, size: int = 8192) -> None:
            self.file = file

        def close(self) -> None:
            self.file.close()

    app = shop()
    app.add_url_rule("/file", "file", lambda: flask.send_file(BytesIO(b"12345"), "text/plain"))
    with capture() as captured:
        _, body = served(app, "/file", **{"wsgi.file_wrapper": Wrapper})
        assert type(body) is Wrapper
        body.close()
    assert [(line["route"], line["bytes"]) for line in captured.lines] == [("/file", 5)]


def test_a_list_stays_the_object_that_it_is() -> None:
    answer = [b"12", b"345"]

    def inner(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return answer

    app = flask.Flask("shop")
    app.wsgi_app = inner  # type: ignore[method-assign]
    Patron(app)
    with capture() as captured:
        _, body = served(app)
    assert body is answer
    assert captured.lines[0]["bytes"] == 5


def test_an_application_that_writes_is_counted() -> None:
    def inner(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])(b"123")
        return iter([b"45"])

    app = flask.Flask("shop")
    app.wsgi_app = inner  # type: ignore[method-assign]
    Patron(app)
    written: list[bytes] = []
    with capture() as captured:
        body = app(create_environ("/"), lambda status, headers: written.append)
        written += body
    assert (written, captured.lines[0]["bytes"]) == ([b"123", b"45"], 5)


@pytest.mark.parametrize("end", [StopIteration, ConnectionError])
def test_a_connection_that_a_websocket_took_over_is_left_alone(end: type[Exception]) -> None:
    """As flask-sock leaves gunicorn and werkzeug."""

    class Taken(flask.Response):
        def __call__(self, environ: Any, start_response: Any) -> Any:
            raise end

    app = shop()
    app.add_url_rule("/socket", "socket", lambda: Taken(), websocket=True)
    with capture() as captured, pytest.raises(end):
        served(app, "/socket", HTTP_UPGRADE="websocket", HTTP_CONNECTION="Upgrade")
    assert outcomes(captured) == [("GET /socket", "101")]
    assert captured.operations[0].error is None


# The application object.


def test_an_application_that_nobody_has_any_more_is_freed_at_once() -> None:
    gc.disable()
    try:
        app = shop(Patron)
        gone = weakref.ref(app)
        del app
        assert gone() is None
    finally:
        gc.enable()


def test_plugging_in_starts_no_thread_and_opens_nothing() -> None:
    before = threading.active_count(), [*Path("/proc/self/fd").iterdir()]

    def never() -> None:
        raise AssertionError("opened")

    app = shop(lambda app: Patron(app, resources={"db": never}, on_start=[never], ready_checks={"db": never}))
    assert (threading.active_count(), len([*Path("/proc/self/fd").iterdir()])) == (before[0], len(before[1]))
    assert app.extensions["patron"].service.name == "shop"


def client_of(plug: Patron, name: str) -> FlaskClient:
    app = flask.Flask(name)
    plug.init_app(app)
    app.add_url_rule("/name", "name", lambda: flask.current_app.name)
    return app.test_client()


def test_one_plug_in_serves_several_applications_as_factories_want() -> None:
    plug = Patron(version="2.0")
    clients = [client_of(plug, name) for name in ("first", "second")]
    assert [client.get("/name").text for client in clients] == ["first", "second"]
    assert [client.get("/debug/components").json["name"] for client in clients] == ["first", "second"]
    assert [client.get("/debug/components").json["version"] for client in clients] == ["2.0", "2.0"]


@pytest.mark.parametrize(
    ("name", "setting", "instead"),
    [("compression", Compression(), "Flask-Compress"), ("cors", Cors(("https://a.example",)), "flask-cors")],
)
def test_what_would_do_nothing_for_the_application_is_refused_with_what_does_it(name, setting, instead):
    app = flask.Flask("shop")
    with pytest.raises(ConfigError, match=rf"http\.{name} .*'shop'.* use {instead}"):
        Patron(app, http=HttpSettings(**{name: setting}))
    assert "patron" not in app.extensions
