"""What is streamed arrives piece by piece, in both directions: nothing on the way waits for the rest."""

from __future__ import annotations

import http.client
import json
import socket
import zlib
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import ServiceProcess

pytestmark = pytest.mark.server

MODULE = """
    import threading

    go_on, received = threading.Semaphore(0), []

    def ticks(request):
        for number in range(3):
            if number:
                assert go_on.acquire(timeout=20), "the client never saw the piece before"
            yield f"tick {number}\\n".encode()

    def stream(request):
        from patron.http import Response
        return Response(ticks(request), content_type="text/plain")

    def breaks(request):
        yield b"half of it"
        go_on.acquire(timeout=20)
        raise OSError("the other half is gone")

    def next(request):
        go_on.release()

    def upload(request):
        received.clear()
        while piece := request.raw.read(1024):
            received.append(len(piece))
        return {"bytes": sum(received)}

    def progress(request):
        return {"bytes": sum(received)}
"""
CONFIG = """
    name: shop
    http:
      max_body: 10000
      compression: {min_size: 10}
      routes:
        - {method: GET, path: /stream, processor: "shop:stream"}
        - {method: GET, path: /ticks, processor: "shop:ticks"}
        - {method: GET, path: /breaks, processor: "shop:breaks"}
        - {method: POST, path: /next, processor: "shop:next"}
        - {method: POST, path: /upload, processor: "shop:upload", stream: true}
        - {method: GET, path: /progress, processor: "shop:progress"}
"""


@pytest.fixture(scope="module")
def shop(shared_service: ServiceProcess) -> ServiceProcess:
    shared_service.write(MODULE, CONFIG)
    return shared_service.start()


def test_a_processor_that_yields_is_heard_piece_by_piece_compressed_or_not(shop: ServiceProcess) -> None:
    for path, accepted in (("/ticks", ""), ("/stream", ""), ("/stream", "gzip"), ("/stream", "deflate")):
        connection = http.client.HTTPConnection("127.0.0.1", shop.port, timeout=10)
        connection.request("GET", path, headers={"Accept-Encoding": accepted})
        answer = connection.getresponse()
        assert answer.getheader("Content-Encoding", "") == accepted
        assert answer.getheader("Content-Length") is None
        decode = zlib.decompressobj(47).decompress if accepted else bytes
        for number in range(3):
            heard = b""
            while not heard:  # a piece may be a coding's frame only
                heard = decode(answer.read1(4096))
            assert heard == f"tick {number}\n".encode()
            if number < 2:
                assert shop.request("POST", "/next", b"").status in (201, 204)
        assert decode(answer.read()) == b""
        connection.close()


def test_a_streamed_body_is_read_as_it_comes(shop: ServiceProcess) -> None:
    """In pieces of 1 kB at least: gunicorn asks for no fewer bytes, whatever the processor asks for."""
    with socket.create_connection(("127.0.0.1", shop.port), timeout=10) as client:
        client.sendall(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 4096\r\n\r\n" + bytes(2048))
        shop.until(
            lambda: shop.json("/progress")["bytes"] == 2048, what="half of the body read by the processor"
        )
        client.sendall(bytes(2048))
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert json.loads(answer.read()) == {"bytes": 4096}
        answer.close()


@pytest.mark.parametrize(
    ("version", "noticed"),
    [("1.1", http.client.IncompleteRead), ("1.0", ConnectionResetError)],
)
def test_a_stream_that_breaks_off_looks_complete_to_nobody(
    shop: ServiceProcess, version: str, noticed: type[Exception]
) -> None:
    """The end of an answer without chunks or a length is the connection's (RFC 9112, section 8)."""
    with socket.create_connection(("127.0.0.1", shop.port), timeout=10) as client:
        client.sendall(f"GET /breaks HTTP/{version}\r\nHost: x\r\n\r\n".encode())
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert answer.read1() == b"half of it"
        shop.request("POST", "/next", b"")
        with pytest.raises(noticed):
            answer.read()
        answer.close()
