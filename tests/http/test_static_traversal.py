"""No spelling of a path leads out of a folder that is served."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

import pytest
from traversal import SECRET, TARGETS, make_folder
from werkzeug.test import EnvironBuilder

from patron.http import StaticFiles, build, spa


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("static"))


def asked(app, target: bytes, accept: str = "*/*") -> tuple[int, bytes]:
    """What a server that passes *target* on as PEP 3333 says would answer."""
    environ = EnvironBuilder("/", headers={"Accept": accept}).get_environ()
    path = target.removeprefix(b"http://localhost")
    environ["PATH_INFO"] = unquote_to_bytes(path).decode("latin-1")
    seen: list[str] = []
    body = app(environ, lambda status, headers, exc_info=None: seen.append(status) or (lambda data: None))
    try:
        return int(seen[0][:3]), b"".join(body)
    finally:
        getattr(body, "close", lambda: None)()


@pytest.mark.parametrize("target", TARGETS)
def test_no_spelling_leads_to_a_file_outside_or_to_a_hidden_one(folder: Path, target: bytes) -> None:
    app = build(static=[StaticFiles("/assets", folder)])
    app.start()
    status, body = asked(app, target)
    assert SECRET.encode() not in body
    assert b"root:" not in body
    assert status in (400, 404), (status, body)


@pytest.mark.parametrize("prefix", ["/assets", "/"])
def test_nor_with_a_fallback_that_answers_every_page(folder: Path, prefix: str) -> None:
    app = build(static=[StaticFiles(prefix, folder, fallback="app.js")])
    app.start()
    for target in TARGETS:
        path = target if prefix == "/assets" else target.replace(b"/assets/", b"/", 1)
        status, body = asked(app, path, "text/html")
        assert SECRET.encode() not in body
        assert b"root:" not in body
        assert (status, body) == (200, b"let a = 1;\n") or status in (400, 404), (path, status, body)


def test_names_that_lead_upwards_get_no_fallback(folder: Path) -> None:
    app = build(static=[spa("/", folder, "app.js")])
    app.start()
    for path in (b"/../x", b"/a/../b", b"/a//b", b"/.env", b"/a\\b", b"/a/./b"):
        assert asked(app, path, "text/html")[0] == 404, path


def test_links_inside_the_folder_are_followed(folder: Path) -> None:
    app = build(static=[StaticFiles("/assets", folder)])
    app.start()
    assert asked(app, b"/assets/inside") == (200, b"let a = 1;\n")


def test_a_well_known_folder_is_not_hidden_at_the_root(tmp_path: Path) -> None:
    (tmp_path / ".well-known").mkdir()
    (tmp_path / ".well-known" / "security.txt").write_text("Contact: us")
    app = build(static=[StaticFiles("/", tmp_path)])
    app.start()
    assert asked(app, b"/.well-known/security.txt") == (200, b"Contact: us")
    assert asked(app, b"/.well-known/../.well-known/security.txt")[0] == 404


def test_what_is_asked_for_is_no_label_of_metrics(folder: Path) -> None:
    """The pattern is, also for what there is not."""
    app = build(static=[StaticFiles("/labelled", folder)])
    app.start()
    for target in (
        b"/labelled/app.js",
        b"/labelled/x/y/z",
        b"/labelled",
        b"/labelled/../..",
        b"/labelled/%01",
    ):
        asked(app, target)
    metrics = asked(app, b"/metrics")[1].decode()
    labels = set(re.findall(r'component_http_handled_total\{.*path="([^"]*labelled[^"]*)"', metrics))
    assert labels == {"/labelled/<path:file>"}


def test_every_target_is_one_that_a_client_can_send() -> None:
    assert len(set(TARGETS)) == len(TARGETS) >= 20
    for target in TARGETS:
        assert not {b" ", b"\r", b"\n"} & {target[i : i + 1] for i in range(len(target))}
        assert urlsplit(target.decode("latin-1"))


def test_a_link_that_takes_the_place_of_a_folder_while_it_is_opened_is_not_followed(tmp_path, monkeypatch):
    served, inner, outside = tmp_path / "served", tmp_path / "served" / "inner", tmp_path / "outside"
    for folder in (inner, outside):
        folder.mkdir(parents=True)
        (folder / "page.txt").write_text(str(folder.name))
    app = build(static=[StaticFiles("/assets", served)])
    app.start()
    resolve = os.path.realpath

    def exchange(path, **options):
        resolved = resolve(path, **options)
        if resolved.endswith("page.txt") and not inner.is_symlink():
            inner.rename(tmp_path / "aside")
            inner.symlink_to(outside)
        return resolved

    assert asked(app, b"/assets/inner/page.txt") == (200, b"inner")
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(os.path, "realpath", exchange)
    status, body = asked(app, b"/assets/inner/page.txt")
    assert (status, b"outside" in body) == (404, False)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_link_that_is_none_any_more_while_it_is_read_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "page.txt").write_text("page")
    (tmp_path / "link.txt").symlink_to("page.txt")
    app = build(static=[StaticFiles("/assets", tmp_path)])
    app.start()
    read = os.readlink

    def exchange(path, **options):
        (tmp_path / "link.txt").unlink()
        (tmp_path / "link.txt").touch()
        return read(path, **options)

    monkeypatch.setattr(os, "readlink", exchange)
    assert asked(app, b"/assets/link.txt")[0] in (200, 404)  # Python 3.13 finds what is there now
