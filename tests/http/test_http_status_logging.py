"""The bodies of answers are logged for the statuses that are chosen, and for no other."""

from __future__ import annotations

import gzip
import zlib

import pytest

from patron.errors import ConfigError, Conflict, InternalServerError
from patron.http import HttpSettings, Response, get
from patron.observe import capture


def bodies(client, path: str, **options) -> list[tuple[str, int, str]]:
    with capture() as captured:
        client.open(path, **options)
    lines = [line for line in captured.lines if line["msg"] == "response body"]
    return [(line["lvl"], line["status"], line["body"]) for line in lines]


def answer(body, content_type="text/plain", status=500, headers=None):
    return lambda request: Response(body, status=status, headers=headers, content_type=content_type)


def settings(*statuses: str) -> HttpSettings:
    return HttpSettings(log_bodies=statuses)


def test_a_line_has_the_body_and_says_which_request_it_answered(serve):
    def conflict(request):
        raise Conflict({"error": "taken"})

    client = serve(get("/orders/<id>", conflict), settings=settings("409"))
    with capture() as captured:
        client.get("/orders/7", headers={"X-Correlation-Id": "abc"})
    line = next(line for line in captured.lines if line["msg"] == "response body")
    shown = ("lvl", "route", "method", "path", "status", "body", "correlationID")
    assert [line[name] for name in shown] == [
        *("warn", "/orders/<id>", "GET", "/orders/7", 409, '{"error":"taken"}', "abc")
    ]


@pytest.mark.parametrize(
    ("statuses", "logged"),
    [
        ((), []),
        (("404",), [404]),
        (("5xx",), [500, 503]),
        (("400-499", "500"), [404, 500]),
        (("2xx", "404"), [200, 404]),
    ],
    ids=str,
)
def test_only_the_chosen_statuses_are_logged(serve, statuses, logged):
    client = serve(
        *(get(f"/{n}", answer("text", status=n)) for n in (200, 404, 500, 503)), settings=settings(*statuses)
    )
    assert [line[1] for n in (200, 404, 500, 503) for line in bodies(client, f"/{n}")] == logged


@pytest.mark.parametrize(("status", "level"), [(200, "info"), (404, "warn"), (500, "error")])
def test_the_level_follows_the_status(serve, status, level):
    client = serve(get("/", answer("text", status=status)), settings=settings("1xx", "2xx", "4xx", "5xx"))
    assert bodies(client, "/") == [(level, status, "text")]


def test_what_nobody_handled_is_logged_as_the_client_got_it(serve):
    def boom(request):
        raise ValueError("secret")

    def broken(request):
        yield b"half"
        raise InternalServerError()

    client = serve(
        get("/boom", boom),
        get("/stream", lambda request: Response(broken(request))),
        settings=settings("5xx"),
    )
    assert bodies(client, "/boom") == [("error", 500, '{"error":"Internal Server Error"}')]
    assert bodies(client, "/nowhere") == []


def test_what_is_refused_before_flask_sees_it_is_logged_too(serve):
    def broken(app):
        def raising(environ, start_response):
            raise ValueError("secret")

        return raising

    client = serve(middlewares=[broken], settings=HttpSettings(log_bodies=("4xx", "5xx"), max_body=1))
    assert bodies(client, "/") == [("error", 500, '{"error":"Internal Server Error"}')]
    assert bodies(client, "/", method="HEAD") == []
    found = bodies(client, "/", method="POST", data=b"xx")
    assert found == [("warn", 413, '{"error":"the body has 2 bytes: at most 1 are accepted"}')]


def test_of_a_long_body_there_are_2_kilobytes(serve):
    client = serve(
        get("/whole", answer("x" * 5000)),
        get(
            "/parts",
            lambda request: Response((b"y" * 1500 for _ in range(3)), 500, content_type="text/plain"),
        ),
        settings=settings("5xx"),
    )
    assert bodies(client, "/whole") == [("error", 500, "x" * 2048)]
    assert bodies(client, "/parts") == [("error", 500, "y" * 2048)]


@pytest.mark.parametrize(
    ("content_type", "body", "shown"),
    [
        ("application/json", b'{"a":1}', '{"a":1}'),
        ("application/problem+json; charset=utf-8", b"{}", "{}"),
        ("TEXT/HTML", "é".encode(), "é"),
        ('text/plain; charset="latin-1"', "é".encode("latin-1"), "é"),
        ("text/plain; charset=klingon", b"a\xff", "aÿ"),
        ("text/plain", b"a\xff", "a\N{REPLACEMENT CHARACTER}"),
        ("application/octet-stream", b"abc", None),
        ("application/x-protobuf", b"abc", None),
        ("image/png", b"abc", None),
        ("text/plain", b"", None),
    ],
    ids=ascii,
)
def test_only_text_is_logged(serve, content_type, body, shown):
    client = serve(get("/", answer(body, content_type)), settings=settings("5xx"))
    assert bodies(client, "/") == ([] if shown is None else [("error", 500, shown)])


@pytest.mark.parametrize(
    ("coding", "pack", "shown"),
    [
        ("gzip", gzip.compress, "text" * 512),
        ("deflate", zlib.compress, "text" * 512),
        ("gzip", lambda body: b"no gzip", None),
        ("br", lambda body: b"whatever", None),
    ],
)
def test_a_compressed_body_is_logged_as_text(serve, coding, pack, shown):
    body = pack(b"text" * 50_000)
    client = serve(get("/", answer(body, headers={"Content-Encoding": coding})), settings=settings("5xx"))
    assert bodies(client, "/") == ([] if shown is None else [("error", 500, shown)])


def test_the_answer_to_a_head_request_has_no_body_to_log(serve):
    def boom(request):
        raise ValueError

    client = serve(get("/", answer("text")), get("/boom", boom), settings=settings("5xx"))
    assert bodies(client, "/", method="HEAD") == []
    assert bodies(client, "/boom", method="HEAD") == []


def test_line_ends_in_a_body_make_no_lines_of_their_own(serve, caplog):
    client = serve(get("/", answer('a\n{"lvl":"error"}')), settings=settings("5xx"))
    assert bodies(client, "/") == [("error", 500, 'a\n{"lvl":"error"}')]
    assert not any("\n{" in record.getMessage() for record in caplog.records)


# ------------------------------------------------------------------ the variable of the original


@pytest.mark.parametrize(
    ("text", "statuses"),
    [
        ("404", ("404",)),
        ("[500,600)", ("500-599",)),
        ("(400,500]", ("401-500",)),
        ("404;[500,600)", ("404", "500-599")),
        ("5xx", ("5xx",)),
        ("400-499", ("400-499",)),
    ],
)
def test_the_variable_lists_statuses_and_ranges_as_in_the_original(text, statuses):
    read = HttpSettings.from_env({"PATRON_HTTP_STATUS_ERROR_LOGGING": text})
    assert read.log_bodies == statuses


@pytest.mark.parametrize(
    "text", ["404;", ";", "abc", "[500,400]", "(404,404]", "[500, 600)", "600", "[500,700)", "99"]
)
def test_a_variable_that_means_no_status_is_refused(text):
    with pytest.raises(ConfigError, match=r"PATRON_HTTP_STATUS_ERROR_LOGGING=.* is no status"):
        HttpSettings.from_env({"PATRON_HTTP_STATUS_ERROR_LOGGING": text})


def test_a_wrong_status_in_the_settings_is_refused():
    with pytest.raises(ConfigError, match="log_bodies has '6xx', which is no status"):
        settings("6xx")
