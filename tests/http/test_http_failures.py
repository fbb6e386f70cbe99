"""Every error becomes one answer, in one form, with one log line when it was not foreseen."""

from __future__ import annotations

import uuid

import flask
import pytest
from werkzeug.routing import BaseConverter
from werkzeug.test import Client

from patron import errors
from patron.http import Response, build, get, post
from patron.observe import capture, current_operation, set_error_reporter

TYPED = [
    (errors.BadRequest, 400),
    (errors.Unauthorized, 401),
    (errors.Forbidden, 403),
    (errors.NotFound, 404),
    (errors.MethodNotAllowed, 405),
    (errors.NotAcceptable, 406),
    (errors.Conflict, 409),
    (errors.ContentTooLarge, 413),
    (errors.UnsupportedMediaType, 415),
    (errors.UnprocessableContent, 422),
    (errors.TooManyRequests, 429),
    (errors.InternalServerError, 500),
    (errors.ServiceUnavailable, 503),
    (errors.GatewayTimeout, 504),
]


def failing(error):
    """A processor that raises *error*."""

    def processor(request):
        raise error

    return processor


@pytest.mark.parametrize(("kind", "status"), TYPED)
def test_typed_errors_answer_with_status_payload_and_headers(serve, caplog, kind, status):
    client = serve(
        get("/", failing(kind({"why": "so"}, headers={"X-Why": "so"}))), get("/plain", failing(kind()))
    )
    answer = client.get("/")
    assert (answer.status_code, answer.json, answer.headers["X-Why"]) == (status, {"why": "so"}, "so")
    assert set(client.get("/plain").json) == {"error"}
    assert not caplog.records


def test_a_typed_error_is_found_when_it_is_wrapped(serve):
    def wrapping(request):
        try:
            raise errors.Conflict({"error": "there is one"})
        except errors.Conflict as error:
            raise RuntimeError("wrapped") from error

    answer = serve(get("/", wrapping)).get("/")
    assert (answer.status_code, answer.json) == (409, {"error": "there is one"})


@pytest.mark.parametrize(
    "error", [ValueError("secret"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=repr
)
def test_any_other_error_is_a_500_that_tells_nothing_and_is_logged_once(serve, caplog, error):
    client = serve(get("/orders/<id>", failing(error)))
    with capture() as observed:
        answer = client.get("/orders/7", headers={"X-Correlation-Id": "abc"})
    assert (answer.status_code, answer.json) == (500, {"error": "Internal Server Error"})
    assert answer.headers["X-Correlation-Id"] == "abc"
    (record,) = caplog.records
    assert record.getMessage().startswith("request failed")
    assert record.fields["route"] == "/orders/<id>"
    assert "in processor" in record.fields["exception"]
    assert observed.operations[-1].error is error
    assert observed.spans[-1].failure is error


def test_an_unexpected_error_is_reported_with_its_context(serve):
    reports = []
    before = set_error_reporter(lambda error, context: reports.append((error, context)))
    try:
        error = ValueError("odd")
        client = serve(get("/", failing(error)), get("/typed", failing(errors.NotFound())))
        client.get("/", headers={"X-Correlation-Id": "abc"})
        client.get("/typed")
    finally:
        set_error_reporter(before)
    ((reported, context),) = reports
    assert reported is error
    assert (context["route"], context["correlationID"]) == ("/", "abc")


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (errors.StorageFull("full"), 503, True),
        (errors.ConnectionLost("gone"), 503, True),
        (errors.PublishFailed("not confirmed"), 503, True),
        (errors.DeadlineExceeded("late"), 504, False),
    ],
    ids=repr,
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_errors_of_what_is_behind_the_service_have_their_status(serve, caplog, error, status, retry, wrapped):
    def processor(request):
        if not wrapped:
            raise error
        raise RuntimeError("wrapped") from error

    answer = serve(get("/", processor)).get("/")
    assert (answer.status_code, "Retry-After" in answer.headers) == (status, retry)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_decode_error_that_is_not_about_the_request_is_our_own_fault(serve):
    assert serve(get("/", failing(errors.DecodeError("from somewhere else")))).get("/").status_code == 500


def test_a_payload_that_has_no_form_in_json_does_not_hide_the_error(serve):
    answer = serve(get("/", failing(errors.NotFound(object())))).get("/")
    assert (answer.status_code, answer.json) == (404, {"error": "Internal Server Error"})


def test_a_header_that_cannot_be_sent_is_left_out_of_an_error(serve):
    answer = serve(get("/", failing(errors.NotFound(headers={"X-A": "a\r\nX-B: b", "X-C": "c"})))).get("/")
    assert answer.status_code == 404
    assert "X-A" not in answer.headers
    assert answer.headers["X-C"] == "c"


# ------------------------------------------------------------------ with Flask


def blueprint():
    made = flask.Blueprint("views", __name__)

    @made.get("/abort/<int:status>")
    def abort(status):
        flask.abort(status)

    @made.get("/abort-with-words")
    def abort_with_words():
        flask.abort(400, "the customer is missing")

    @made.get("/abort-with-response")
    def abort_with_response():
        flask.abort(flask.Response("own", 418))

    @made.get("/form-field")
    def form_field():
        return flask.request.form["customer"]

    @made.get("/boom")
    def boom():
        raise ValueError("secret")

    @made.get("/typed")
    def typed():
        raise errors.Conflict({"error": "there is one"})

    return made


def flask_client(made, *routes):
    app = build(routes=routes, blueprints=[made])
    app.start({})
    return Client(app)


def test_views_may_abort_and_raise_as_processors_do(caplog):
    client = flask_client(blueprint())
    assert client.get("/abort/404").json == {"error": "Not Found"}
    assert client.get("/abort/405").status_code == 405
    assert client.get("/abort-with-words").json == {"error": "the customer is missing"}
    assert client.get("/form-field").json == {"error": "Bad Request"}
    answer = client.get("/abort-with-response")
    assert (answer.status_code, answer.text) == (418, "own")
    assert client.get("/typed").json == {"error": "there is one"}
    assert not caplog.records
    assert client.get("/boom").json == {"error": "Internal Server Error"}
    assert len(caplog.records) == 1


def test_flasks_hooks_and_error_handlers_apply_to_processors_too(caplog):
    made = blueprint()
    made.app_errorhandler(KeyError)(lambda error: ({"handled": "KeyError"}, 410))
    made.app_errorhandler(404)(lambda error: ("own 404", 404))
    made.app_errorhandler(500)(lambda error: ("own 500", 500))
    made.before_app_request(lambda: "stopped" if "stop" in flask.request.args else None)

    @made.after_app_request
    def after(response):
        response.headers["X-After"] = "1"
        return response

    client = flask_client(made, get("/key", failing(KeyError("k"))), get("/value", failing(ValueError("v"))))
    assert client.get("/key").json == {"handled": "KeyError"}
    assert client.get("/nowhere").text == "own 404"
    answer = client.get("/value")
    assert (answer.status_code, answer.text, answer.headers["X-After"]) == (500, "own 500", "1")
    assert len(caplog.records) == 1
    assert client.get("/value?stop").text == "stopped"


def test_a_view_may_ask_for_urls_and_for_its_host():
    made = flask.Blueprint("links", __name__)
    made.get("/self/<int:id>", endpoint="self")(
        lambda id: [
            flask.url_for(".self", id=id + 1),
            flask.url_for(".self", id=1, _external=True),
            flask.request.host,
        ]
    )
    client = flask_client(made)
    assert client.get("/self/1", base_url="http://shop.example").json == [
        "/self/2",
        "http://shop.example/self/1",
        "shop.example",
    ]


def test_flasks_own_test_client_works_too(caplog):
    app = build(routes=[get("/fine", lambda request: 1)], blueprints=[blueprint()])
    app.start({})
    client = app.flask.test_client()
    assert client.get("/fine").json == 1
    assert (client.get("/typed").status_code, client.get("/abort/404").status_code) == (409, 404)
    assert client.get("/boom").json == {"error": "Internal Server Error"}
    assert len(caplog.records) == 1


# ------------------------------------------------------------------ around Flask


def test_an_error_in_a_middleware_or_a_mounted_application_is_a_500_too(caplog):
    def breaking(app):
        def middleware(environ, start_response):
            if environ["PATH_INFO"] == "/middleware":
                raise ValueError("secret")
            return app(environ, start_response)

        return middleware

    def begun(environ, start_response):
        start_response("200 OK", [("X-Begun", "1")])
        raise ValueError("secret")

    app = build(middlewares=[breaking], mounts={"/old": begun})
    app.start({})
    client = Client(app)
    assert client.get("/middleware").json == {"error": "Internal Server Error"}
    answer = client.get("/old")
    assert (answer.json, "X-Begun" in answer.headers) == ({"error": "Internal Server Error"}, False)
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert (current_operation(), list(app.in_flight())) == (None, [])


def test_a_stream_that_breaks_off_is_logged_and_cut(serve, caplog):
    def chunks():
        yield b"a"
        raise ValueError("secret")

    client = serve(get("/", lambda request: Response(chunks())))
    with capture() as observed, pytest.raises(ConnectionResetError):
        client.get("/", buffered=True)
    assert [record.getMessage().partition(" {")[0] for record in caplog.records] == ["response broke off"]
    assert isinstance(observed.operations[-1].error, ValueError)


class _Careless(BaseConverter):
    """As many are written: it raises what no converter may raise."""

    def to_python(self, value):
        return uuid.UUID(value)


def test_a_converter_that_breaks_is_one_failed_request(caplog):
    """Also where the worker asks, before a body is read, in the thread that serves all connections."""
    parts = flask.Blueprint("parts", __name__)
    parts.record(lambda state: state.app.url_map.converters.update(uuidish=_Careless))
    parts.add_url_rule("/parts/<uuidish:number>", view_func=lambda number: str(number))
    application = build(blueprints=[parts], routes=[post("/up", failing(errors.Conflict()), stream=True)])
    application.start()
    client = Client(application)
    assert client.get("/parts/7").json == {"error": "Internal Server Error"}
    assert client.put("/parts/7").status_code == 405
    assert application.intake("POST", "/parts/7").limit == 1024 * 1024
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert client.get(f"/parts/{uuid.UUID(int=7)}").text == str(uuid.UUID(int=7))
