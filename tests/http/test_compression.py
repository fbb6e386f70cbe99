"""Compressed answers: which ones, for whom, and what their heads say."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import flask
import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import Client, EnvironBuilder

from patron.errors import ConfigError, NotFound
from patron.http import Compression, HttpSettings, Response, get, post
from patron.http.caching.settings import RouteCache
from patron.http.codings import Wish, wish

TEXT = "all work and no play makes jack a dull boy\n" * 100
OFFERS = ("gzip", "deflate")
GZIP = {"Accept-Encoding": "gzip"}


@pytest.fixture
def compressing(serve: Callable[..., Client]) -> Callable[..., Client]:
    """A client of an application that compresses."""

    def compressing(*routes: Any, compression: Compression | None = None, **options: Any) -> Client:
        return serve(*routes, settings=HttpSettings(compression=compression or Compression()), **options)

    return compressing


def text(request: Any) -> Response:
    return Response(TEXT, content_type="text/plain", headers={"ETag": '"abc"'})


def wsgi(status: str, headers: list[tuple[str, str]], body: Any) -> Any:
    """An application that answers this."""

    def application(environ: Any, start_response: Any) -> Any:
        start_response(status, headers)
        return body() if callable(body) else body

    return application


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, Wish(None, True)),
        ("", Wish(None, True)),
        ("gzip", Wish("gzip", True)),
        ("GZip", Wish("gzip", True)),
        ("x-gzip", Wish("gzip", True)),
        ("deflate", Wish("deflate", True)),
        ("deflate, gzip, br, zstd", Wish("gzip", True)),
        ("deflate;q=1.0, gzip;q=0.5", Wish("deflate", True)),
        ("br", Wish(None, True)),
        ("gzip;q=0", Wish(None, True)),
        ("gzip;q=0.000", Wish(None, True)),
        ("gzip ; Q=0.5", Wish("gzip", True)),
        ("gzip;q=0, *", Wish("deflate", True)),
        ("gzip;q=0, gzip", Wish(None, True)),
        ("*", Wish("gzip", True)),
        ("*;q=0", Wish(None, False)),
        ("*;q=0, gzip", Wish("gzip", False)),
        ("*;q=0, identity", Wish(None, True)),
        ("*;q=0, identity;q=0.1, deflate;q=0.1", Wish("deflate", True)),
        ("identity", Wish(None, True)),
        ("identity;q=0", Wish(None, False)),
        ("identity;q=0, gzip;q=0.1", Wish("gzip", False)),
        ("identity;q=1, gzip;q=0.5", Wish(None, True)),
        ("identity;q=0.5, gzip", Wish("gzip", True)),
        ("gzip;q=0.5, *;q=0.8", Wish("deflate", True)),
        # What is no element is left out, and the others count.
        ("gzip;q=2", Wish(None, True)),
        ("gzip;q=-1", Wish(None, True)),
        ("gzip;q=0.0001", Wish(None, True)),
        ("gzip;q=", Wish(None, True)),
        ("gzip;level=9", Wish(None, True)),
        ("gzip deflate", Wish(None, True)),
        (";;;,,\x00, deflate", Wish("deflate", True)),
        ('"gzip"', Wish(None, True)),
        ("\uff47zip", Wish(None, True)),
        # The end of a header this long could be a refusal.
        ("gzip" + ", br" * 2500, Wish(None, True)),
    ],
)
def test_a_coding_is_chosen_as_the_header_says(header: str | None, expected: Wish) -> None:
    assert wish(header, OFFERS) == expected


@given(st.text(alphabet="gzipdeflatx*;q=0.1, \tdentity-", max_size=60))
def test_any_header_is_read_without_an_error_and_a_refused_coding_is_never_chosen(header: str) -> None:
    coding, _ = wish(header, OFFERS)
    assert coding is None or not re.search(rf"(^|,)\s*(x-)?{coding}\s*;\s*q=0(\.0*)?\s*(,|$)", header)


def test_ten_thousand_bytes_of_garbage_are_answered_uncompressed(compressing) -> None:
    answer = compressing(get("/", text)).get("/", headers={"Accept-Encoding": "gzip;" * 2000})
    assert (answer.status_code, answer.text) == (200, TEXT)


def test_a_body_is_compressed_for_who_asks_and_left_alone_for_the_others(compressing) -> None:
    client = compressing(get("/", text))
    packed, plain = client.get("/", headers=GZIP), client.get("/")
    assert gzip.decompress(packed.data).decode() == TEXT
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.headers["Content-Length"] == str(len(packed.data))
    assert (plain.text, plain.headers.get("Content-Encoding")) == (TEXT, None)
    assert packed.headers["Vary"] == plain.headers["Vary"] == "Accept-Encoding"


def test_deflate_has_the_frame_of_zlib(compressing) -> None:
    answer = compressing(get("/", text)).get("/", headers={"Accept-Encoding": "deflate"})
    assert answer.headers["Content-Encoding"] == "deflate"
    assert zlib.decompress(answer.data).decode() == TEXT  # raw deflate would be refused here


def test_equal_bodies_are_equal_bytes_since_no_time_is_in_them(compressing) -> None:
    answer = compressing(get("/", text)).get("/", headers=GZIP)
    assert answer.data[4:8] == bytes(4)


def test_nothing_is_compressed_unless_the_settings_say_so(serve) -> None:
    answer = serve(get("/", text)).get("/", headers=GZIP)
    assert (answer.text, answer.headers.get("Vary")) == (TEXT, None)


def test_a_client_that_accepts_nothing_at_all_is_told_so_before_anything_runs(compressing) -> None:
    ran = []
    client = compressing(get("/", ran.append))
    for refusal in ("*;q=0", "identity;q=0", "identity;q=0, br", "gzip;q=0, deflate;q=0, *;q=0"):
        answer = client.get("/", headers={"Accept-Encoding": refusal})
        assert answer.status_code == 406
        assert "gzip, deflate or identity" in answer.json["error"]
    assert ran == []


def test_a_client_that_refuses_plain_bodies_gets_small_ones_and_images_compressed_too(compressing) -> None:
    client = compressing(get("/", lambda _: Response(b"tiny", content_type="image/png")))
    answer = client.get("/", headers={"Accept-Encoding": "gzip, identity;q=0"})
    assert gzip.decompress(answer.data) == b"tiny"


@pytest.mark.parametrize(
    ("size", "content_type", "headers", "status"),
    [
        (1023, "text/plain", {}, 200),
        (5000, "image/png", {}, 200),
        (5000, "application/zip", {}, 200),
        (5000, "application/octet-stream", {}, 200),
        (5000, "text/plain", {"Content-Encoding": "br"}, 200),
        (5000, "text/plain", {"Cache-Control": "public, No-Transform"}, 200),
        (5000, "text/plain", {"Content-Range": "bytes 0-4999/9999"}, 206),
        (5000, "text/plain", {}, 206),
        (5000, "text/plain", {"Repr-Digest": "sha-256=:AA==:"}, 200),
    ],
)
def test_what_gains_nothing_or_must_not_change_is_left_alone(
    compressing, size: int, content_type: str, headers: dict[str, str], status: int
) -> None:
    answered = Response(b"a" * size, status=status, content_type=content_type, headers=headers)
    answer = compressing(get("/", lambda _: answered)).get("/", headers=GZIP)
    assert (answer.status_code, answer.data) == (status, b"a" * size)
    assert answer.headers.get("Content-Encoding") == headers.get("Content-Encoding")
    assert answer.headers["Content-Length"] == str(size)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/problem+json",
        "image/svg+xml",
        "text/x-new",
    ],
)
def test_text_of_every_kind_is_compressed(compressing, content_type: str) -> None:
    client = compressing(get("/", lambda _: Response(b" " * 1024, content_type=content_type)))
    assert client.get("/", headers=GZIP).headers["Content-Encoding"] == "gzip"


def test_a_strong_etag_becomes_weak_and_a_weak_one_stays(compressing) -> None:
    client = compressing(
        get("/strong", text),
        get("/weak", lambda _: Response(TEXT, content_type="text/css", headers={"ETag": 'W/"x"'})),
    )
    assert client.get("/strong", headers=GZIP).headers["ETag"] == 'W/"abc"'
    assert client.get("/strong").headers["ETag"] == '"abc"'
    assert client.get("/weak", headers=GZIP).headers["ETag"] == 'W/"x"'


def test_a_client_revalidates_with_the_etag_that_it_was_given(compressing) -> None:
    def view() -> flask.Response:
        answer = flask.Response(TEXT, mimetype="text/plain")
        answer.set_etag("abc")
        return answer.make_conditional(flask.request)

    pages = flask.Blueprint("pages", __name__)
    pages.add_url_rule("/", view_func=view)
    client = compressing(blueprints=[pages])
    for headers in (GZIP, {}):
        tag = client.get("/", headers=headers).headers["ETag"]
        answer = client.get("/", headers={**headers, "If-None-Match": tag})
        assert (answer.status_code, answer.data) == (304, b"")
        assert answer.headers["ETag"] == tag
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert "Content-Encoding" not in answer.headers


def test_a_cached_answer_is_coded_for_each_client_and_revalidated_with_either_etag(compressing) -> None:
    ran: list[Any] = []
    client = compressing(get("/", lambda request: ran.append(1) or TEXT, cache=RouteCache(max=30.0)))
    packed, plain = client.get("/", headers=GZIP), client.get("/")
    assert json.loads(gzip.decompress(packed.data)) == plain.json == TEXT
    assert packed.headers["ETag"] == f"W/{plain.headers['ETag']}"
    for tag in (packed.headers["ETag"], plain.headers["ETag"]):
        for headers in (GZIP, {}):
            assert client.get("/", headers={**headers, "If-None-Match": tag}).status_code == 304
    assert len(ran) == 1


def test_head_says_what_get_says_but_for_the_length(compressing) -> None:
    client = compressing(get("/", text), get("/small", lambda _: Response("x", content_type="text/plain")))
    got, head = client.get("/", headers=GZIP), client.head("/", headers=GZIP)
    differing = {"Content-Length", "X-Correlation-Id"}
    assert {*got.headers.items()} - {*head.headers.items()} == {
        (name, got.headers[name]) for name in differing
    }
    assert head.data == b""
    assert client.head("/small", headers=GZIP).headers["Content-Length"] == "1"


def test_vary_is_merged_into_what_is_there(compressing) -> None:
    def answer(vary: Any) -> Any:
        return lambda _: Response(TEXT, content_type="text/plain", headers={"Vary": vary})

    client = compressing(
        get("/one", answer("Accept, Cookie")),
        get("/listed", answer("accept-encoding")),
        get("/star", answer("*")),
        get("/lines", answer(["Accept", "Origin"])),
    )
    varies = {
        path: client.get(path, headers=GZIP).headers.getlist("Vary")
        for path in ("/one", "/listed", "/star", "/lines")
    }
    assert varies == {
        "/one": ["Accept, Cookie, Accept-Encoding"],
        "/listed": ["accept-encoding"],
        "/star": ["*"],
        "/lines": ["Accept, Origin, Accept-Encoding"],
    }


def test_answers_without_a_body_stay_without_one(compressing) -> None:
    client = compressing(
        get("/empty", lambda _: None),
        get("/nothing", lambda _: Response(iter(()), content_type="text/plain")),
        compression=Compression(min_size=0),
    )
    assert client.get("/empty", headers=GZIP).data == b""
    answer = client.get("/nothing", headers=GZIP)
    assert (answer.status_code, answer.data, answer.headers.get("Content-Encoding")) == (200, b"", None)


def test_errors_are_answered_as_ever(compressing) -> None:
    def fail(request: Any) -> None:
        raise NotFound({"error": TEXT})

    answer = compressing(get("/", fail)).get("/", headers=GZIP)
    assert answer.status_code == 404
    data = gzip.decompress(answer.data) if "Content-Encoding" in answer.headers else answer.data
    assert json.loads(data) == {"error": TEXT}


class Watched:
    """A stream that notes how far it was read, and that it was closed."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = list(chunks)
        self.read = 0
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self.chunks:
            self.read += 1
            yield chunk

    def close(self) -> None:
        self.closed = True


def test_every_chunk_of_a_stream_can_be_decoded_before_the_next_one_is_made(compressing) -> None:
    stream = Watched(b"data: 1\n\n", b"", b"data: 2\n\n", b"data: 3\n\n")
    app = wsgi("200 OK", [("Content-Type", "text/event-stream")], stream)
    client = compressing(mounts={"/sse": app})
    answer = client.open("/sse", headers=GZIP, buffered=False)
    decoder, seen = zlib.decompressobj(31), []
    for chunk in answer.response:
        seen.append((decoder.decompress(chunk), stream.read))  # noqa: PERF401 - one after the other
    assert seen == [(b"data: 1\n\n", 1), (b"data: 2\n\n", 3), (b"data: 3\n\n", 4), (b"", 4)]
    assert decoder.eof
    assert "Content-Length" not in answer.headers
    answer.close()
    assert stream.closed


def test_a_stream_is_closed_when_its_client_goes_away_before_it_has_begun(compressing) -> None:
    for headers in (GZIP, {}):
        stream = Watched(b"a" * 2000, b"b" * 2000)
        client = compressing(mounts={"/s": wsgi("200 OK", [("Content-Type", "text/plain")], stream)})
        client.open("/s", headers=headers, buffered=False).close()
        assert stream.closed


def test_a_stream_of_a_known_small_size_is_left_alone(compressing) -> None:
    head = [("Content-Type", "text/plain"), ("Content-Length", "4")]
    client = compressing(mounts={"/s": wsgi("200 OK", head, Watched(b"ab", b"cd"))})
    answer = client.get("/s", headers=GZIP)
    assert (answer.data, answer.headers["Content-Length"]) == (b"abcd", "4")


def test_an_application_may_begin_its_answer_late_or_write_it(compressing) -> None:
    def late(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield TEXT.encode()

    def written(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        write(TEXT.encode())
        return [b"end"]

    client = compressing(mounts={"/late": late, "/written": written})
    assert gzip.decompress(client.get("/late", headers=GZIP).data).decode() == TEXT
    answer = client.open("/written", headers=GZIP, buffered=False)  # else the client forgets what was written
    assert gzip.decompress(answer.data).decode() == TEXT + "end"
    answer.close()


def test_an_answer_may_be_replaced_by_an_error_until_its_first_byte(compressing) -> None:
    def failing(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        raise LookupError
        yield b""

    assert compressing(mounts={"/f": failing}).get("/f", headers=GZIP).status_code == 500


@pytest.mark.parametrize("body", [[b"a" * 2000], lambda: iter([b"a" * 2000])])
def test_a_body_shorter_than_it_promises_is_an_error_compressed_or_not(compressing, body: Any) -> None:
    head = [("Content-Type", "text/plain"), ("Content-Length", "3000")]
    client = compressing(mounts={"/short": wsgi("200 OK", head, body)})
    try:
        answer = client.get("/short", headers=GZIP)
    except ConnectionResetError:
        return  # the head of a stream was sent already
    assert answer.status_code == 500


def test_excluded_paths_are_never_compressed(compressing) -> None:
    client = compressing(
        get("/secret/<id>", text), get("/secretly", text), compression=Compression(exclude=("/secret",))
    )
    assert client.get("/secret/1", headers=GZIP).text == TEXT
    assert client.get("/secretly", headers=GZIP).headers["Content-Encoding"] == "gzip"


def test_metrics_are_compressed_for_prometheus(compressing) -> None:
    answer = compressing().get("/metrics", headers=GZIP)
    assert answer.status_code == 200
    if len(answer.data) > 1024:
        assert answer.headers["Content-Encoding"] == "gzip"


def test_a_compressed_body_of_a_request_is_refused_and_not_taken_for_broken_json(serve) -> None:
    client = serve(post("/orders", lambda request: request.decode()))
    packed = gzip.compress(b'{"a": 1}')
    answer = client.post("/orders", data=packed, headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.headers["Accept-Encoding"]) == (415, "identity")
    answer = client.post("/orders", data=b'{"a": 1}', headers={"Content-Encoding": "identity"})
    assert answer.json == {"a": 1}


def test_every_mistake_in_the_settings_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Compression(level=10, min_size=-1, types=("json",), codings=("br",), exclude=("x",))  # type: ignore[arg-type]
    told = str(caught.value)
    assert [
        word for word in ("level is 10", "min_size is -1", "'json'", "'br'", "'x'") if word not in told
    ] == []
    with pytest.raises(ConfigError, match="use a Compression"):
        HttpSettings(compression=True)  # type: ignore[arg-type]


def test_the_layer_is_correct_wsgi() -> None:
    """What a checker between server and layer, and between layer and application, has to say."""
    from wsgiref.validate import validator

    from patron.http.compression import Compressing

    def application(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return iter([b"a" * 2000, b"b" * 2000])

    layer = validator(Compressing(validator(application), Compression()))
    environ = EnvironBuilder(headers=GZIP).get_environ()
    environ["QUERY_STRING"] = ""
    body = layer(environ, lambda status, headers, exc_info=None: lambda data: None)
    try:
        assert gzip.decompress(b"".join(body)) == b"a" * 2000 + b"b" * 2000
    finally:
        body.close()
