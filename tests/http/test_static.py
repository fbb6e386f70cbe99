"""Folders that are served: whole files, parts of them, pages, and what is said when there is nothing to send."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import flask
import pytest
from werkzeug.test import Client

from patron.errors import ConfigError
from patron.http import ApiKey, Compression, HttpSettings, StaticFiles, get, post, spa

SCRIPT = b"".join(b"line %4d\n" % n for n in range(100))
PAGE = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small web site."""
    site = tmp_path / "site"
    (site / "docs" / "deep").mkdir(parents=True)
    (site / "empty").mkdir()
    (site / "index.html").write_text("<p>home")
    (site / "docs" / "index.html").write_text("<p>docs")
    (site / "app.js").write_bytes(SCRIPT)
    (site / "none.txt").write_bytes(b"")
    os.utime(site / "app.js", (1_700_000_000, 1_700_000_000))
    return site


@pytest.fixture
def site(serve: Callable[..., Client], folder: Path) -> Client:
    return serve(static=[StaticFiles("/s", folder)])


def test_a_file_is_sent_with_all_that_a_cache_must_know(site: Client) -> None:
    answer = site.get("/s/app.js")
    assert (answer.status_code, answer.data) == (200, SCRIPT)
    assert {
        name: answer.headers.get(name) for name in ("Content-Type", "Content-Length", "Accept-Ranges")
    } == {
        "Content-Type": "text/javascript; charset=utf-8",
        "Content-Length": "1000",
        "Accept-Ranges": "bytes",
    }
    assert answer.headers["Last-Modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_head_says_the_same_without_the_body(site: Client) -> None:
    got, head = site.get("/s/app.js"), site.head("/s/app.js")
    for answer in (got, head):
        del answer.headers["X-Correlation-Id"]
    assert (dict(head.headers), head.data) == (dict(got.headers), b"")


@pytest.mark.parametrize(
    ("conditions", "status"),
    [
        ({"If-None-Match": "{etag}"}, 304),
        ({"If-None-Match": "W/{etag}"}, 304),
        ({"If-None-Match": '"other", {etag}'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"other"'}, 200),
        ({"If-None-Match": '"other"', "If-Modified-Since": "{date}"}, 200),
        ({"If-Modified-Since": "{date}"}, 304),
        ({"If-Modified-Since": "Tue, 14 Nov 2023 22:13:19 GMT"}, 200),
        ({"If-Modified-Since": "yesterday"}, 200),
        ({"If-Modified-Since": "Mon, 01 Jan 0001 00:00:00 +9999"}, 200),
        ({"If-Match": "{etag}"}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": '"other"'}, 412),
        ({"If-Match": "W/{etag}"}, 412),
        ({"If-Match": '"other"', "If-None-Match": "{etag}"}, 412),
        ({"If-Unmodified-Since": "{date}"}, 200),
        ({"If-Unmodified-Since": "Tue, 14 Nov 2023 22:13:19 GMT"}, 412),
        ({"If-None-Match": "{etag}", "Range": "bytes=0-9"}, 304),
        ({"If-None-Match": '"' * 60_000}, 200),
    ],
)
def test_conditions_are_asked_in_the_order_of_rfc_9110(
    site: Client, conditions: dict[str, str], status: int
) -> None:
    head = site.head("/s/app.js").headers
    given = {
        name: value.replace("{etag}", head["ETag"]).replace("{date}", head["Last-Modified"])
        for name, value in conditions.items()
    }
    for method in ("GET", "HEAD"):
        answer = site.open("/s/app.js", method=method, headers=given)
        assert answer.status_code == status
        if status == 304:
            assert (answer.data, answer.headers["ETag"]) == (b"", head["ETag"])
            assert answer.headers["Cache-Control"] == "no-cache"
            assert "Content-Type" not in answer.headers


@pytest.mark.parametrize(
    ("header", "status", "content"),
    [
        ("bytes=0-9", 206, SCRIPT[:10]),
        ("bytes=990-", 206, SCRIPT[990:]),
        ("bytes=990-5000", 206, SCRIPT[990:]),
        ("bytes=-10", 206, SCRIPT[-10:]),
        ("bytes=-5000", 206, SCRIPT),
        ("bytes=0-0", 206, SCRIPT[:1]),
        ("Bytes = 0-9 , ", 206, SCRIPT[:10]),
        ("bytes=1000-", 416, None),
        ("bytes=1000-2000", 416, None),
        ("bytes=-0", 416, None),
        # Several ranges, what is no range, and other units: the whole (section 14.2).
        ("bytes=0-1,5-9", 200, SCRIPT),
        ("bytes=" + "0-," * 1000, 200, SCRIPT),
        ("bytes=" + "0-," * 20_000, 200, SCRIPT),
        ("bytes=9-5", 200, SCRIPT),
        ("bytes=-", 200, SCRIPT),
        ("bytes=", 200, SCRIPT),
        ("bytes", 200, SCRIPT),
        ("bytes=a-b", 200, SCRIPT),
        ("bytes=0x1-0x2", 200, SCRIPT),
        ("bytes=--5", 200, SCRIPT),
        ("bytes=1-2-3", 200, SCRIPT),
        ("bytes=\u0661-\u0662".encode().decode("latin-1"), 200, SCRIPT),
        ("bytes=" + "9" * 5000 + "-", 200, SCRIPT),
        ("lines=0-9", 200, SCRIPT),
        ("garbage", 200, SCRIPT),
    ],
)
def test_a_range_is_sent_refused_or_ignored(
    site: Client, header: str, status: int, content: bytes | None
) -> None:
    answer = site.get("/s/app.js", headers={"Range": header})
    assert answer.status_code == status
    if status == 206:
        first = SCRIPT.index(content or b"")
        assert answer.headers["Content-Range"] == f"bytes {first}-{first + len(answer.data) - 1}/1000"
    if status == 416:
        assert answer.headers["Content-Range"] == "bytes */1000"
    else:
        assert (answer.data, answer.headers["Content-Length"]) == (content, str(len(content or b"")))


def test_an_empty_file_has_no_part(site: Client) -> None:
    assert site.get("/s/none.txt").data == b""
    for header in ("bytes=0-", "bytes=-1"):
        assert site.get("/s/none.txt", headers={"Range": header}).headers["Content-Range"] == "bytes */0"


def test_head_knows_no_ranges(site: Client) -> None:
    answer = site.head("/s/app.js", headers={"Range": "bytes=0-9"})
    assert (answer.status_code, answer.headers["Content-Length"]) == (200, "1000")


def test_a_part_is_only_sent_of_the_very_file_that_the_client_has_begun(site: Client) -> None:
    head = site.head("/s/app.js").headers

    def status(condition: str) -> int:
        return site.get("/s/app.js", headers={"Range": "bytes=0-9", "If-Range": condition}).status_code

    assert status(head["ETag"]) == 206
    assert status(head["Last-Modified"]) == 206
    assert status(f"W/{head['ETag']}") == 200  # as weakened by the compression: those bytes were others
    assert status('"other"') == 200
    assert status("Tue, 14 Nov 2023 22:13:21 GMT") == 200
    assert status("garbage") == 200


def test_files_of_equal_times_and_sizes_have_etags_of_their_own(site: Client, folder: Path) -> None:
    """Reproducible builds give all files one time: clients would keep the old page."""
    before = site.get("/s/app.js").headers["ETag"]
    (folder / "app.js").write_bytes(SCRIPT.replace(b"line", b"LINE"))
    os.utime(folder / "app.js", (1_700_000_000, 1_700_000_000))
    assert site.get("/s/app.js").headers["ETag"] != before


def test_a_time_that_is_none_is_not_told(site: Client, folder: Path) -> None:
    os.utime(folder / "app.js", (1, 1))
    assert "Last-Modified" not in site.get("/s/app.js").headers


def test_a_file_larger_than_memory_should_hold_is_sent_in_chunks(serve: Any, folder: Path) -> None:
    with (folder / "big.bin").open("wb") as big:
        big.truncate(50_000_000)
    client = serve(static=[StaticFiles("/s", folder)])
    answer = client.open("/s/big.bin", buffered=False)
    sizes = [len(chunk) for chunk in answer.response]
    answer.close()
    assert (sum(sizes), max(sizes)) == (50_000_000, 65536)
    tail = client.get("/s/big.bin", headers={"Range": "bytes=49999990-"})
    assert tail.headers["Content-Range"] == "bytes 49999990-49999999/50000000"


def test_no_file_stays_open(serve: Any, folder: Path) -> None:
    (folder / "big.bin").write_bytes(bytes(200_000))
    client = serve(static=[StaticFiles("/s", folder), spa("/", folder)])
    before = len(os.listdir("/proc/self/fd"))
    for path in ("/s/app.js", "/s/big.bin", "/s/docs", "/s/docs/", "/s/nothing", "/x"):
        for headers in ({}, {"Range": "bytes=9999999-"}, {"If-Match": '"x"'}, {"If-None-Match": "*"}, PAGE):
            for method in ("GET", "HEAD", "POST"):
                client.open(path, method=method, headers=headers).close()
    client.open("/s/big.bin", buffered=False).close()  # gone before the first chunk
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_directory_is_its_index_page_and_lists_nothing(site: Client) -> None:
    assert site.get("/s/").text == "<p>home"
    assert site.get("/s/docs/").text == "<p>docs"
    assert site.get("/s/docs/deep/").status_code == 404
    assert site.get("/s/empty").status_code == 404


@pytest.mark.parametrize(("path", "location"), [("/s", "/s/"), ("/s/docs?a=%20b", "/s/docs/?a=%20b")])
def test_a_directory_without_its_slash_is_a_redirect_without_a_host(
    site: Client, path: str, location: str
) -> None:
    answer = site.get(path, headers={"Host": "evil.example"})
    assert (answer.status_code, answer.headers["Location"]) == (308, location)


def test_a_redirect_names_no_host_whatever_stands_in_front_of_the_service(site: Client) -> None:
    answer = site.get("/s/docs", environ_overrides={"SCRIPT_NAME": "//evil.example"})
    assert answer.headers["Location"] == "/evil.example/s/docs/"


def test_names_may_have_what_people_type(site: Client, folder: Path) -> None:
    for name in (
        "Screenshot at 9.41\u202fAM.txt",
        "a;b=c&d.txt",
        "100%.txt",
        "\U0001f468\u200d\U0001f4bb.txt",
    ):
        (folder / name).write_text(name)
        assert site.get(f"/s/{quote(name)}").text == name


def test_without_an_index_directories_have_no_page(serve: Any, folder: Path) -> None:
    client = serve(static=[StaticFiles("/s", folder, index=None)])
    assert {client.get(path).status_code for path in ("/s", "/s/", "/s/docs", "/s/docs/")} == {404}


def test_files_are_only_read(site: Client) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        answer = site.open("/s/app.js", method=method)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
        assert site.open("/s/nothing", method=method).status_code == 404
    assert site.options("/s/app.js").headers["Allow"] == "GET, HEAD, OPTIONS"


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("a.html", "text/html; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.woff2", "font/woff2"),
        ("a.wasm", "application/wasm"),
        ("a.webmanifest", "application/manifest+json"),
        ("a.JPG", "image/jpeg"),
        ("a.tar.gz", "application/gzip"),
        ("a.unheard-of", "application/octet-stream"),
        ("Größe 1.txt", "text/plain; charset=utf-8"),
    ],
)
def test_the_type_is_the_same_on_every_machine(
    site: Client, folder: Path, name: str, content_type: str
) -> None:
    (folder / name).write_bytes(b"x")
    answer = site.get(f"/s/{name}")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, content_type)
    assert "Content-Encoding" not in answer.headers


def test_files_may_be_kept_and_pages_are_always_asked_for(serve: Any, folder: Path) -> None:
    client = serve(static=[StaticFiles("/s", folder, max_age=3600, immutable=True)])
    assert client.get("/s/app.js").headers["Cache-Control"] == "public, max-age=3600, immutable"
    assert client.get("/s/").headers["Cache-Control"] == "no-cache"


def test_what_is_behind_an_authenticator_is_kept_by_no_cache_on_the_way(serve: Any, folder: Path) -> None:
    keys = ApiKey({"mobile": "a-key"})
    client = serve(static=[StaticFiles("/s", folder, max_age=60, authenticator=keys)])
    assert client.get("/s/app.js").status_code == 401
    assert client.get("/s/nothing").status_code == 401
    answer = client.get("/s/app.js", headers={"Authorization": "Apikey a-key"})
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "private, max-age=60")


def test_a_compressed_neighbour_is_sent_to_who_can_decode_it(serve: Any, folder: Path) -> None:
    (folder / "app.js.gz").write_bytes(gzip.compress(SCRIPT, mtime=0))
    (folder / "app.js.br").write_bytes(b"brotli")
    client = serve(
        static=[StaticFiles("/s", folder, precompressed=True)],
        settings=HttpSettings(compression=Compression(min_size=0)),
    )

    def answer(accepted: str, **headers: str) -> Any:
        return client.get("/s/app.js", headers={"Accept-Encoding": accepted, **headers})

    packed = answer("gzip")
    assert gzip.decompress(packed.data) == SCRIPT  # once, though the service compresses too
    assert packed.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert not packed.headers["ETag"].startswith("W/")
    assert answer("gzip, br").data == b"brotli"
    assert answer("gzip, br;q=0").headers["Content-Encoding"] == "gzip"
    assert answer("gzip, br;q=0.5").headers["Content-Encoding"] == "gzip"  # liked better than the smaller one
    (folder / "app.js.gz").rename(folder / "kept.gz")
    assert answer("gzip, br;q=0.5").data == b"brotli"  # which is there
    (folder / "kept.gz").rename(folder / "app.js.gz")
    assert answer("identity").data == SCRIPT
    assert len({answer(accepted).headers["ETag"] for accepted in ("gzip", "br", "")}) == 3
    assert {answer(accepted).headers["Vary"] for accepted in ("gzip", "br", "", "gzip;q=0")} == {
        "Accept-Encoding"
    }
    part = answer("gzip", Range="bytes=0-1")
    assert (part.status_code, part.data, part.headers["Content-Encoding"]) == (206, b"\x1f\x8b", "gzip")


def test_parts_are_never_compressed_and_a_compressed_whole_offers_none(serve: Any, folder: Path) -> None:
    client = serve(
        static=[StaticFiles("/s", folder)], settings=HttpSettings(compression=Compression(min_size=0))
    )
    packed = client.get("/s/app.js", headers={"Accept-Encoding": "gzip"})
    assert "Accept-Ranges" not in packed.headers
    tag = packed.headers["ETag"]
    assert (
        client.get("/s/app.js", headers={"Accept-Encoding": "gzip", "If-None-Match": tag}).status_code == 304
    )
    part = client.get("/s/app.js", headers={"Accept-Encoding": "gzip", "Range": "bytes=0-9"})
    assert (part.status_code, part.data) == (206, SCRIPT[:10])


# A single-page application.


@pytest.fixture
def shop(serve: Callable[..., Client], folder: Path) -> Client:
    """A service with an API and the application that uses it."""
    routes = [get("/api/orders/<int:id>", lambda request: request.params), post("/orders", lambda request: 1)]
    return serve(*routes, static=[spa("/", folder, exclude=("/api",), max_age=60)])


@pytest.mark.parametrize("path", ["/orders/5", "/orders", "/users/john.doe", "/a/b/", "/Größe"])
def test_every_page_is_the_application(shop: Client, path: str) -> None:
    answer = shop.get(path, headers=PAGE)
    assert (answer.status_code, answer.text) == (200, "<p>home")
    assert answer.headers["Cache-Control"] == "no-cache"
    assert "Accept" in answer.headers["Vary"]
    assert shop.head(path, headers=PAGE).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "accept", "status"),
    [
        ("GET", "/orders/5", "*/*", 404),  # what fetch() sends
        ("GET", "/orders/5", "application/json", 404),
        ("GET", "/orders/5", "text/html;q=0, */*", 404),
        ("GET", "/orders/5", "", 404),
        ("GET", "/orders/5", "text/html" * 1000, 404),
        ("GET", "/missing.js", "text/html", 404),
        ("GET", "/old/logo.png", "text/html", 404),
        ("GET", "/api/nothing", "text/html", 404),
        ("GET", "/api", "text/html", 404),
        ("GET", "/api/orders/x", "text/html", 404),
        ("POST", "/orders/5", "text/html", 404),
        ("PUT", "/orders", "text/html", 405),
        ("GET", "/orders", "*/*", 405),
        ("GET", "/apis", "text/html", 200),
        ("GET", "/api/orders/1", "text/html, */*", 200),
        ("POST", "/orders", "text/html, */*", 201),
    ],
)
def test_what_is_no_page_is_answered_as_without_the_application(
    shop: Client, method: str, path: str, accept: str, status: int
) -> None:
    answer = shop.open(path, method=method, headers={"Accept": accept})
    assert answer.status_code == status
    assert "home" not in answer.text or path == "/apis"


def test_routes_and_admin_routes_win_over_files_of_their_name(serve: Any, folder: Path) -> None:
    (folder / "ready").write_text("no")
    (folder / "app.css").write_text("no")
    client = serve(get("/app.css", lambda _: 1), static=[spa("/", folder)])
    assert client.get("/ready", headers=PAGE).json["status"] == "ready"
    assert client.get("/app.css").json == 1


def test_an_own_handler_of_404_answers_for_what_there_is_not(serve: Any, folder: Path) -> None:
    pages = flask.Blueprint("pages", __name__)
    pages.app_errorhandler(404)(lambda error: ("nothing of that name", 404))
    client = serve(static=[spa("/", folder)], blueprints=[pages])
    assert client.get("/nothing").text == "nothing of that name"


def test_the_folder_with_the_longest_prefix_answers(serve: Any, folder: Path) -> None:
    (folder / "docs" / "app.js").write_text("other")
    client = serve(static=[spa("/", folder), StaticFiles("/lib", folder / "docs")])
    assert client.get("/lib/app.js").text == "other"
    assert client.get("/app.js").data == SCRIPT
    assert client.get("/lib/x", headers=PAGE).status_code == 404  # it has no fallback
    assert client.get("/library", headers=PAGE).text == "<p>home"


def test_a_deployment_may_exchange_the_folder(serve: Any, tmp_path: Path) -> None:
    for release in ("1", "2"):
        (tmp_path / release).mkdir()
        (tmp_path / release / "v.txt").write_text(release)
    current = tmp_path / "current"
    current.symlink_to("1")
    client = serve(static=[StaticFiles("/s", current)])
    assert client.get("/s/v.txt").text == "1"
    current.unlink()
    assert client.get("/s/v.txt").status_code == 404
    current.symlink_to("2")
    assert client.get("/s/v.txt").text == "2"


# Mistakes.


def test_a_folder_that_is_not_there_is_told_with_its_path_when_the_service_is_built(
    serve: Any, tmp_path: Path, folder: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        serve(
            static=[
                StaticFiles("/a", tmp_path / "nowhere"),
                StaticFiles("/b", folder / "app.js"),
                StaticFiles("/c", folder, fallback="missing.html"),
                StaticFiles("/c", folder),
                "assets",
            ]
        )
    told = "\n".join(caught.value.problems)
    assert f"create {tmp_path}/nowhere" in told
    assert "static '/b': folder" in told
    assert "fallback 'missing.html' is no file" in told
    assert "there are two of them" in told
    assert "'assets' is no StaticFiles" in told


def test_a_folder_that_cannot_be_reached_is_a_mistake(serve: Any, folder: Path) -> None:
    with pytest.raises(ConfigError, match="hidden by the mount '/old'"):
        serve(static=[StaticFiles("/old/s", folder)], mounts={"/old": lambda environ, start: []})
    with pytest.raises(ConfigError, match="hidden by the route /s/<path:name>"):
        serve(get("/s/<path:name>", lambda _: 1), static=[StaticFiles("/s", folder)])


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"prefix": "assets"}, "must begin with /"),
        ({"prefix": "/assets/"}, "without a / at its end"),
        ({"prefix": "/<name>"}, "plain ASCII"),
        ({"folder": ""}, "use a path"),
        ({"index": "a/b.html"}, "the name of a file"),
        ({"fallback": "../index.html"}, "the name of a file"),
        ({"fallback": "/etc/passwd"}, "the name of a file"),
        ({"exclude": ("api",)}, "must begin with /"),
        ({"max_age": -1}, "seconds from 0"),
        ({"authenticator": "me"}, "has no authenticate"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        StaticFiles(**{"prefix": "/s", "folder": ".", **wrong})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_none(site: Client, folder: Path) -> None:
    (folder / "app.js").chmod(0)
    assert site.get("/s/app.js").status_code == 404
