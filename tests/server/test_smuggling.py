"""No bytes make the worker see other requests than gunicorn's parser sees in them, nor answer one that is refused."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from brokers.requirements import missing
from gunicorn.config import Config
from gunicorn.http.errors import ChunkMissingTerminator, NoMoreData
from gunicorn.http.parser import RequestParser

from patron.http import HttpSettings
from patron.server.settings import safe_parser_installed

if TYPE_CHECKING:
    from conftest import ServiceProcess

pytestmark = pytest.mark.server

MODULE = """
    import json

    def echo(app):
        # What the application is given, whatever the path is.
        def answer(environ, start_response):
            if environ["PATH_INFO"] == "/ready":
                return app(environ, start_response)
            seen = [environ["REQUEST_METHOD"], environ["RAW_URI"], environ["wsgi.input"].read().hex()]
            start_response("200 OK", [("Content-Length", "0"), ("X-Seen", json.dumps(seen))])
            return []
        return answer

    def unused(request): ...
"""
CONFIG = """
    name: shop
    http:
      threads: 2
      routes: [{method: POST, path: /flow, processor: "shop:unused", stream: true}]
      middlewares: ["shop:echo"]
"""
NEXT = b"GET /smuggled HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module", params=["python", "fast"] if safe_parser_installed() else ["python"])
def shop(request: pytest.FixtureRequest, shared_service: ServiceProcess) -> ServiceProcess:
    """A service with each of the parsers that can be chosen: the one in C has no release that is strict enough yet."""
    shared_service.kill_group()
    shared_service.write(MODULE, CONFIG)
    return shared_service.start_gunicorn("--http-parser", request.param)


def settings() -> Config:
    own = HttpSettings()
    cfg = Config()
    cfg.set("limit_request_line", own.max_request_line)
    cfg.set("limit_request_fields", own.max_header_fields)
    cfg.set("limit_request_field_size", own.max_header)
    cfg.set("http_parser", "python")
    return cfg


def verdict(data: bytes) -> tuple[list[list[str]], Exception | None]:
    """The requests that gunicorn's own parser finds in *data*, and the error that ends them."""
    parser = RequestParser(settings(), iter([data]), ("127.0.0.1", 1))
    found = []
    try:
        for request in parser:
            body = request.body.read().hex()
            lengths = [int(value) for name, value in request.headers if name == "CONTENT-LENGTH"]
            if lengths and 2 * lengths[0] > len(body):
                return found, NoMoreData()  # their tests take less for a body than was announced
            hosts = [value for name, value in request.headers if name == "HOST"]
            refused = not hosts and request.version == (1, 1)  # RFC 9112, section 3.2: ours to refuse
            found.append(["no host"] if refused else [request.method, request.uri, body])
    except Exception as error:  # whatever it is, it is what is compared
        return found, error
    return found, None


def answers(shop: ServiceProcess, data: bytes, piece: int) -> list[tuple[int, list[str], str]]:
    """Status, what the application saw, and the Connection header, of all that comes until the connection closes."""
    received = exchanged(shop, data, piece)
    found = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        received = rest[int(headers.get("content-length", 0)) :]
        if not first.startswith("HTTP/1.1 100"):
            seen = json.loads(headers.get("x-seen", "[]"))
            found.append((int(first.split()[1]), seen, headers["connection"]))
    return found


def exchanged(shop: ServiceProcess, data: bytes, piece: int) -> bytes:
    """What comes back for *data*, sent in pieces, until the connection closes."""
    received = b""
    with socket.create_connection(("127.0.0.1", shop.port), timeout=10) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(ConnectionError):  # refused, and closed, before the end
            for at in range(0, len(data), piece):
                client.sendall(data[at : at + piece])
            client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while more := client.recv(65536):
                received += more
    return received


def differences(shop: ServiceProcess, data: bytes, piece: int) -> list[str]:
    """What the worker makes of *data* otherwise than gunicorn's parser does."""
    requests, error = verdict(data)
    got = answers(shop, data, piece)
    found = [] if len(got) >= len(requests) else [f"{len(got)} answers to {len(requests)} requests"]
    for (status, seen, _), request in zip(got, requests, strict=False):
        if (status, seen) != ((400, []) if request == ["no host"] else (200, request)):
            found.append(f"{status} {seen} for {request}")
    refusals = got[len(requests) :]
    # What only stopped coming may be refused, or forgotten.
    stopped = isinstance(error, NoMoreData | ChunkMissingTerminator) or b"\r\n\r\n" not in data
    if len(refusals) > (error is not None) or (error is not None and not refusals and not stopped):
        found.append(f"{refusals} where the parser says {error!r}")
    if any(
        not (400 <= status <= 501 and seen == [] and close == "close") for status, seen, close in refusals
    ):
        found.append(f"{refusals} refuse nothing")
    return found


# ---------------------------------------------------------------------------------- gunicorn's own collection


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Name → bytes, of gunicorn's valid and invalid requests: they are in its source distribution only."""
    version = importlib.metadata.version("gunicorn")
    cache = Path(os.environ.get("PATRON_TEST_CACHE", Path.home() / ".cache" / "patron-tests"))
    archive = cache / f"gunicorn-{version}.tar.gz"
    if not archive.exists():
        folder = tmp_path_factory.mktemp("download")
        options = [
            "--no-deps",
            "--no-binary",
            "gunicorn",
            "--retries",
            "1",
            "--timeout",
            "10",
            "-q",
            "-d",
            str(folder),
        ]
        command = [sys.executable, "-m", "pip", "download", *options, f"gunicorn=={version}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
        if done.returncode:
            missing("corpus", f"gunicorn's source distribution cannot be had: {done.stderr[-300:]}")
        cache.mkdir(parents=True, exist_ok=True)
        shutil.move(next(folder.glob("gunicorn-*.tar.gz")), archive)
    with tarfile.open(archive) as files:
        return {
            "/".join(Path(file.name).parts[-2:]): decoded(files.extractfile(file).read())  # type: ignore[union-attr]
            for file in files.getmembers()
            if re.search(r"/tests/requests/(valid|invalid)/[^/]+\.http$", file.name)
        }


_ESCAPES = {rb"\r\n": b"\r\n", rb"\n": b"\n", rb"\t": b"\t", rb"\0": b"\0"}


def decoded(text: bytes) -> bytes:
    """Their notation: line ends mean nothing, and what does is escaped."""
    return re.sub(
        rb"\\r\\n|\\[nt0]|\\x([0-9A-Fa-f]{2})",
        lambda found: bytes.fromhex(found[1].decode()) if found[1] else _ESCAPES[found[0]],
        text.replace(b"\n", b""),
    )


def test_gunicorns_own_requests_mean_the_same_to_the_worker(
    shop: ServiceProcess, collection: dict[str, bytes]
) -> None:
    assert len(collection) > 100
    invalid = [data for name, data in collection.items() if name.startswith("invalid/")]
    assert sum(verdict(data)[1] is not None for data in invalid) > 60
    found = {
        f"{name} in pieces of {piece}, {len(behind)} behind": problems
        for name, data in sorted(collection.items())
        for piece, behind in ((100_000, b""), (100_000, NEXT), (7, NEXT))
        if (problems := differences(shop, data + behind, piece if len(data) < 5000 else 100_000))
    }
    assert not found, "\n".join(f"{name}: {problems}" for name, problems in found.items())


# ---------------------------------------------------------------------------------------------- our own

HEAD = b"POST /a HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
AMBIGUOUS = {
    "both framings": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both framings, the other way": HEAD
    + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "both framings, one with a space": HEAD
    + b"Content-Length : 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked with a space before the colon": HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and identity": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a coding in front": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a quoted coding": HEAD + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "a folded coding": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a vertical tab in the coding": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": CHUNKED.replace(b"1.1", b"1.0") + b"0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 0\r\n\r\nhello",
    "two equal lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a list of lengths": HEAD + b"Content-Length: 5, 5\r\n\r\nhello",
    "a length with a plus": HEAD + b"Content-Length: +5\r\n\r\nhello",
    "a length with a minus": HEAD + b"Content-Length: -5\r\n\r\nhello",
    "a length in hexadecimal": HEAD + b"Content-Length: 0x5\r\n\r\nhello",
    "a length with an underscore": HEAD + b"Content-Length: 0_5\r\n\r\nhello",
    "a length of another script": HEAD + b"Content-Length: \xb2\r\n\r\nhello",
    "an empty length": HEAD + b"Content-Length: \r\n\r\n",
    "a folded length": HEAD + b"Content-Length:\r\n 5\r\n\r\nhello",
    "bare line feeds": HEAD.replace(b"\r\n", b"\n") + b"\n",
    "one bare line feed": b"GET / HTTP/1.1\r\nHost: x\nContent-Length: 5\r\n\r\n",
    "a bare carriage return": b"GET / HTTP/1.1\r\nHost: x\rContent-Length: 5\r\n\r\n",
    "a NUL": b"GET / HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
    "no colon": b"GET / HTTP/1.1\r\nHost: x\r\nX\r\n\r\n",
    "a space in front of the first header": b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
    "two spaces in the request line": b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2 without asking": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}
CHUNKS = {
    "a chunk size with a plus": b"+5\r\nhello\r\n0\r\n\r\n",
    "a chunk size with a minus": b"-5\r\nhello\r\n0\r\n\r\n",
    "a chunk size with 0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a chunk size with an underscore": b"0_5\r\nhello\r\n0\r\n\r\n",
    "a chunk size with a space": b" 5\r\nhello\r\n0\r\n\r\n",
    "an empty chunk size": b"\r\nhello\r\n0\r\n\r\n",
    "a bare line feed behind the size": b"5\nhello\r\n0\r\n\r\n",
    "a bare line feed behind the chunk": b"5\r\nhello\n0\r\n\r\n",
    "a chunk longer than it says": b"5\r\nhello you\r\n0\r\n\r\n",
    "an extension with a line feed": b"5;a\n=b\r\nhello\r\n0\r\n\r\n",
    "an extension that is none": b"5;a=\x01\r\nhello\r\n0\r\n\r\n",
    "an endless extension": b"5;a=" + b"b" * 140_000 + b"\r\nhello\r\n0\r\n\r\n",
    "a trailer that frames": b"5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n",
    "a trailer that is none": b"5\r\nhello\r\n0\r\nX\r\n\r\n",
}


@pytest.mark.parametrize("data", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_an_ambiguous_head_is_refused_once_and_nothing_behind_it_is_served(
    shop: ServiceProcess, data: bytes
) -> None:
    for piece in (100_000, 7):
        [(status, seen, connection)] = answers(shop, data + NEXT, piece)
        assert (400 <= status <= 501, seen, connection) == (True, [], "close")


@pytest.mark.parametrize("path", [b"/a", b"/flow"], ids=["read ahead", "streamed"])
@pytest.mark.parametrize("data", CHUNKS.values(), ids=CHUNKS.keys())
def test_malformed_chunks_are_refused_once_and_nothing_behind_them_is_served(
    shop: ServiceProcess, data: bytes, path: bytes
) -> None:
    for piece in (100_000, 7 if len(data) < 1000 else 5000):
        [(status, seen, connection)] = answers(shop, CHUNKED.replace(b"/a", path) + data + NEXT, piece)
        assert (400 <= status <= 431, seen, connection) == (True, [], "close")


@pytest.mark.parametrize("path", [b"/a", b"/flow"], ids=["read ahead", "streamed"])
def test_bodies_that_look_like_requests_are_bodies(shop: ServiceProcess, path: bytes) -> None:
    length = HEAD.replace(b"/a", path) + b"Content-Length: %d\r\n\r\n%b" % (len(NEXT), NEXT)
    chunked = CHUNKED.replace(b"/a", path) + b"%x;a=b\r\n%b\r\n0\r\nX: y\r\n\r\n" % (len(NEXT), NEXT)
    for piece in (100_000, 7):
        got = answers(shop, length + chunked + length + NEXT, piece)
        name = path.decode()
        assert [seen for _, seen, _ in got] == [
            *[["POST", name, NEXT.hex()]] * 3,
            ["GET", "/smuggled", ""],
        ]
