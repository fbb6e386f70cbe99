"""Folders, compression and other origins' pages through the real server, with requests as they were typed."""

from __future__ import annotations

import gzip
import http.client
import io
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from traversal import SECRET, TARGETS, make_folder

if TYPE_CHECKING:
    from conftest import ServiceProcess

pytestmark = pytest.mark.server

MODULE = """
    def orders(request):
        return [{"id": number, "state": "open"} for number in range(200)]
"""
CONFIG = """
    name: shop
    http:
      compression: {min_size: 500, level: 1}
      cors: {origins: [https://shop.example], credentials: true, max_age: 1h}
      routes:
        - {method: GET, path: /api/orders, processor: "shop:orders"}
      static:
        - {prefix: /assets, folder: ./public, max_age: 1h, index: null}
        - {prefix: /, folder: ./public, fallback: page.html, exclude: [/api]}
"""


@pytest.fixture
def shop(service: ServiceProcess) -> ServiceProcess:
    service.write(MODULE, CONFIG)
    folder = make_folder(service.folder)
    (folder / "page.html").write_text("<p>shop")
    with (folder / "big.bin").open("wb") as big:
        big.truncate(20_000_000)
    return service.start()


class _Received:
    """What was received, in the place of a socket."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client

    def makefile(self, *args: object, **kwargs: object) -> io.BufferedReader:
        return self._client.makefile("rb")


def asked(shop: ServiceProcess, target: bytes, *headers: bytes) -> tuple[int, bytes]:
    """The answer to a request line with *target* in it as it is."""
    with socket.create_connection(("127.0.0.1", shop.port), timeout=10) as client:
        lines = [
            b"GET " + target + b" HTTP/1.1",
            b"Host: localhost",
            b"Connection: close",
            *headers,
            b"",
            b"",
        ]
        client.sendall(b"\r\n".join(lines))
        answer = http.client.HTTPResponse(_Received(client))  # type: ignore[arg-type]
        answer.begin()
        with answer:
            return answer.status, answer.read()


def test_files_pages_and_answers_reach_their_clients_and_nothing_else_does(shop: ServiceProcess) -> None:
    # 1. No spelling of a path, which nothing on the way has put in order.
    for target in TARGETS:
        status, body = asked(shop, target)
        assert status in (400, 404), (target, status, body)
        assert SECRET.encode() not in body
        status, body = asked(shop, target.replace(b"/assets/", b"/", 1), b"Accept: text/html")
        assert (status, body) == (200, b"<p>shop") or status in (400, 404, 308), (target, status, body)
    assert asked(shop, b"/assets/app.js") == (200, b"let a = 1;\n")
    assert asked(shop, b"/assets/%61pp.js")[0] == 200
    # 2. Parts, revalidation and whole files on a connection that goes on.
    connection = http.client.HTTPConnection("127.0.0.1", shop.port, timeout=10)

    def got(path: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        connection.request(method, path, headers={name.replace("_", "-"): v for name, v in headers.items()})
        answer = connection.getresponse()
        return answer, answer.read()

    answer, body = got("/assets/big.bin")
    assert (answer.status, len(body), answer.getheader("Content-Length")) == (200, 20_000_000, "20000000")
    tag = answer.getheader("ETag") or ""
    assert got("/assets/big.bin", If_None_Match=tag)[0].status == 304
    answer, body = got("/assets/big.bin", Range="bytes=19999990-", If_Range=tag)
    assert (answer.status, len(body)) == (206, 10)
    assert got("/assets/big.bin", Range="bytes=20000000-")[0].status == 416
    answer, body = got("/assets/big.bin", "HEAD")
    assert (answer.getheader("Content-Length"), body) == ("20000000", b"")
    # 3. Pages for people, 404 for programs.
    assert got("/basket", Accept="text/html")[1] == b"<p>shop"
    assert got("/basket", Accept="application/json")[0].status == 404
    assert got("/api/basket", Accept="text/html")[0].status == 404
    # 4. Compressed as asked.
    answer, body = got("/api/orders", Accept_Encoding="gzip", Origin="https://shop.example")
    assert answer.getheader("Content-Encoding") == "gzip"
    assert answer.getheader("Content-Length") == str(len(body))
    assert len(gzip.decompress(body)) > 5000 > len(body)
    assert answer.getheader("Access-Control-Allow-Origin") == "https://shop.example"
    for header in ("gzip;q=0", "gzip;q=0;q=1", "," * 1000, "gzip;" * 2000):
        answer, body = got("/api/orders", Accept_Encoding=header)
        assert (answer.status, answer.getheader("Content-Encoding")) == (200, None), header
    assert got("/api/orders", Accept_Encoding="*;q=0")[0].status == 406
    # 5. Asked beforehand.
    asks = {"Origin": "https://shop.example", "Access_Control_Request_Method": "PUT"}
    assert got("/api/orders", "OPTIONS", **asks)[0].status == 204
    assert got("/api/orders", "OPTIONS", **{**asks, "Origin": "https://evil.example"})[0].status == 403
    connection.close()
    # 6. And the labels are patterns.
    metrics = asked(shop, b"/metrics")[1].decode()
    assert {
        line.split('path="')[1].split('"')[0] for line in metrics.splitlines() if "handled_total{" in line
    } <= {
        "/assets/<path:file>",
        "/<path:file>",
        "/api/orders",
        "/ready",
        "/metrics",
        "unmatched",
        "refused",
    }


def test_a_missing_folder_is_told_with_its_place_in_the_file_before_anything_starts(
    service: ServiceProcess, tmp_path: Path
) -> None:
    service.write(MODULE, CONFIG)
    assert service.start(wait=False).wait() == 2
    assert f"create {tmp_path}/public" in service.output()
