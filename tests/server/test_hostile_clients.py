"""What clients get wrong, by mistake or on purpose, gets a clear answer, and the service goes on."""

from __future__ import annotations

import json
import signal
import socket
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import ServiceProcess

pytestmark = pytest.mark.server

MODULE = """
    from dataclasses import dataclass

    @dataclass
    class Order:
        quantity: int

    def order(request):
        return {"quantity": request.decode(Order).quantity}

    def exits(request):
        raise SystemExit(3)

    def broken(request):
        raise RuntimeError("the secret is 42")
"""
CONFIG = """
    name: shop
    http:
      max_body: 1000
      routes:
        - {method: POST, path: /orders, processor: "shop:order"}
        - {method: GET, path: /exits, processor: "shop:exits"}
        - {method: GET, path: /broken, processor: "shop:broken"}
"""
JSON = b"Content-Type: application/json\r\n"


@pytest.fixture(scope="module")
def shop(shared_service: ServiceProcess) -> ServiceProcess:
    shared_service.write(MODULE, CONFIG)
    return shared_service.start()


def send(shop: ServiceProcess, data: bytes) -> bytes:
    """Send *data* on a connection of its own, and read until the server closes it or has answered."""
    with socket.create_connection(("127.0.0.1", shop.port), timeout=5) as client:
        client.sendall(data)
        received = b""
        while b"\r\n\r\n" not in received or not _complete(received):
            piece = client.recv(65536)
            if not piece:
                break
            received += piece
        return received


def _complete(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 100"):
        return _complete(body) if b"\r\n\r\n" in body else False
    for line in head.split(b"\r\n")[1:]:
        if line.lower().startswith(b"content-length:"):
            return len(body) >= int(line.split(b":")[1])
    return False


def post(body: bytes, headers: bytes = JSON) -> bytes:
    return b"POST /orders HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n%b" % (headers, len(body), body)


def get(path: bytes, headers: bytes = b"") -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: x\r\n%b\r\n" % (path, headers)


CHUNKED = b"POST /orders HTTP/1.1\r\nHost: x\r\n" + JSON + b"Transfer-Encoding: chunked\r\n\r\n"
CASES = {
    "malformed JSON": (post(b'{"quantity": '), 400),
    "wrong shape": (post(b'{"quantity": "many"}'), 400),
    "invalid UTF-8 in the body": (post(b'{"quantity": "\xff"}'), 400),
    "wrong type": (post(b"a=b", b"Content-Type: text/csv\r\n"), 415),
    "unacceptable": (post(b'{"quantity": 1}', JSON + b"Accept: image/png\r\n"), 406),
    "too large": (post(b"x" * 1001), 413),
    "too large, 2 GB announced": (
        b"POST /orders HTTP/1.1\r\nHost: x\r\n" + JSON + b"Content-Length: 2147483648\r\n\r\n",
        413,
    ),
    "too large, in chunks": (CHUNKED + b"400\r\n" + b"x" * 1024 + b"\r\n0\r\n\r\n", 413),
    "too large, a chunk that never comes": (CHUNKED + b"FFFFFFF\r\n", 413),
    "chunks": (CHUNKED + b'd\r\n{"quantity": \r\n2\r\n7}\r\n0\r\n\r\n', 201),
    "expects a 100": (post(b'{"quantity": 1}', JSON + b"Expect: 100-continue\r\n"), 201),
    "unknown path": (get(b"/nowhere"), 404),
    "unknown method": (get(b"/orders"), 405),
    "header bytes that are not UTF-8": (get(b"/nowhere", b"X-Name: caf\xe9\r\n"), 404),
    "path bytes that are not UTF-8": (get(b"/orders/%ff%fe"), 400),
    "SystemExit": (get(b"/exits"), 500),
    "an unexpected error": (get(b"/broken"), 500),
    "two content lengths": (
        b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na",
        400,
    ),
    "no number": (b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: five\r\n\r\n", 400),
    "both framings": (CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n") + b"0\r\n\r\n", 400),
    "a chunk size that is none": (CHUNKED + b"zz\r\n", 400),
    "a header section over the limit": (get(b"/", b"X: " + b"a" * 70000 + b"\r\n"), 431),
    "too many headers": (get(b"/", b"".join(b"X-%d: y\r\n" % n for n in range(200))), 431),
    "a request line over the limit": (get(b"/" + b"a" * 9000), 414),
    "not HTTP": (b"hello there\r\n\r\n", 400),
    "bare line feeds in headers": (b"GET / HTTP/1.1\r\nHost: x\nX: y\r\n\r\n", 400),
    "no Host": (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
    "a Host that is none": (b'GET / HTTP/1.1\r\nHost: evil"><x\r\n\r\n', 400),
    "two Hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "a folded header": (b"GET / HTTP/1.1\r\nHost: x\r\n y\r\n\r\n", 400),
}


@pytest.mark.parametrize(("request_bytes", "status"), CASES.values(), ids=CASES.keys())
def test_the_answer_says_what_was_wrong(shop: ServiceProcess, request_bytes: bytes, status: int) -> None:
    answer = send(shop, request_bytes)
    if answer.startswith(b"HTTP/1.1 100"):
        answer = answer.partition(b"\r\n\r\n")[2]
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"secret" not in answer
    assert shop.get("/alive").status == 200
    whole = shop.output().rpartition("\n")[0].splitlines()
    assert all(json.loads(line) for line in whole if line.startswith("{"))


def test_a_later_minor_version_is_answered_with_the_highest_one_that_is_spoken(shop: ServiceProcess) -> None:
    request = post(b'{"quantity": 7}', JSON + b"Expect: 100-continue\r\n").replace(b"HTTP/1.1", b"HTTP/1.9")
    head, body = request.split(b"\r\n\r\n")
    with socket.create_connection(("127.0.0.1", shop.port), timeout=10) as client:
        for _ in range(2):  # the connection is kept, as with 1.1
            client.sendall(head + b"\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 100 ")
            client.sendall(body)
            assert client.recv(1000).startswith(b"HTTP/1.1 201 ")


@pytest.mark.parametrize(
    "value", [b"a" * 10_000, b"evil\x01id", b"\xff\xfe", b""], ids=["10 kB", "control", "not UTF-8", "empty"]
)
def test_a_correlation_id_that_is_no_id_is_replaced(shop: ServiceProcess, value: bytes) -> None:
    answer = send(shop, get(b"/nowhere", b"X-Correlation-Id: %b\r\n" % value))
    if answer.startswith(b"HTTP/1.1 400"):
        assert b"\x01" in value  # the server itself refuses control characters in headers
        return
    echoed = next(line for line in answer.split(b"\r\n") if line.lower().startswith(b"x-correlation-id:"))
    assert value.strip() == b"" or value not in echoed
    assert len(echoed) < 200


def test_a_correlation_id_is_echoed_and_stands_on_the_log_line(shop: ServiceProcess) -> None:
    shop.get("/broken", X_Correlation_Id="order-17")
    [line] = [line for line in shop.lines("request") if line["correlationID"] == "order-17"]
    assert line["status"] == 500
    assert "the secret is 42" in shop.output()


def test_requests_may_follow_each_other_without_waiting(shop: ServiceProcess) -> None:
    three = post(b'{"quantity": 1}') + post(b'{"quantity": 2}') + get(b"/nowhere", b"Connection: close\r\n")
    with socket.create_connection(("127.0.0.1", shop.port), timeout=5) as client:
        client.sendall(three)
        received = b""
        while piece := client.recv(65536):
            received += piece
    statuses = [part[:3] for part in received.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"201", b"201", b"404"]


def test_a_body_that_comes_byte_by_byte_is_read(shop: ServiceProcess) -> None:
    with socket.create_connection(("127.0.0.1", shop.port), timeout=5) as client:
        for byte in post(b'{"quantity": 9}'):
            client.sendall(bytes([byte]))
        assert client.recv(65536).startswith(b"HTTP/1.1 201")


# ------------------------------------------------------------------ applications that break their answers

BREAKING = """
    def raises_late(environ, start_response):
        start_response("200 OK", [("Content-Length", "5"), ("Set-Cookie", "a=1")])
        raise RuntimeError("the secret is 42")

    def odd_header(environ, start_response):
        start_response("200 OK", [("Content-Length", "5"), ("Set-Cookie", "a=1"), ("X-A", "a\\nb")])
        return [b"hello"]

    def odd_items(environ, start_response):
        start_response("200 OK", [("Set-Cookie", "a=1")])
        return [None]

    def promises_more(environ, start_response):
        start_response("200 OK", [("Content-Length", "500"), ("Set-Cookie", "a=1")])
        return [b"hello"]

    def breaks_first(environ, start_response):
        start_response("200 OK", [("Content-Length", "5"), ("Set-Cookie", "a=1")])
        raise RuntimeError("the secret is 42")
        yield b"hello"

    def breaks_midway(environ, start_response):
        start_response("200 OK", [])
        yield b"hello"
        raise RuntimeError("the secret is 42")

    def generator_exit(environ, start_response):
        start_response("200 OK", [])
        yield b"hello"
        raise GeneratorExit
"""
MOUNTS = """
    name: shop
    http:
      mounts:
        /raises_late: "shop:raises_late"
        /odd_header: "shop:odd_header"
        /odd_items: "shop:odd_items"
        /promises_more: "shop:promises_more"
        /breaks_first: "shop:breaks_first"
        /breaks_midway: "shop:breaks_midway"
        /generator_exit: "shop:generator_exit"
"""
REPLACED = ("raises_late", "odd_header", "odd_items", "promises_more", "breaks_first")


def test_what_breaks_is_answered_once_counted_as_an_error_and_forgotten(service: ServiceProcess) -> None:
    service.write(BREAKING, MOUNTS)
    service.start()
    data = b"".join(get(b"/" + name.encode()) for name in REPLACED) + get(b"/alive", b"Connection: close\r\n")
    with socket.create_connection(("127.0.0.1", service.port), timeout=5) as client:
        client.sendall(data)
        received = b""
        while piece := client.recv(65536):
            received += piece
    answers = received.split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"500"] * len(REPLACED) + [b"200"]
    for answer in answers[:-1]:
        assert answer.lower().count(b"content-length:") == 1
        assert b"Set-Cookie" not in answer
        assert answer.endswith(b'\r\n\r\n{"error":"Internal Server Error"}')
    for name in (b"breaks_midway", b"generator_exit"):
        assert send(service, get(b"/" + name)).endswith(b"5\r\nhello\r\n")  # without the end of the chunks
    service.until(lambda: len(service.lines("response broke off")) == 2)
    counted = [
        line
        for line in service.get("/metrics").body.decode().splitlines()  # type: ignore[attr-defined]
        if line.startswith("component_http_handled_total") and "/*" in line
    ]
    assert len(counted) == len(REPLACED) + 2
    assert all('status_code="500"' in line for line in counted)
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert not service.lines("work abandoned at the end of the stop budget")
