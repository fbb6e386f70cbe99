"""HTTPS by a real client: what is served, who is let in, and who does not disturb."""

from __future__ import annotations

import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from http.client import HTTPSConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from brokers.requirements import missing

if TYPE_CHECKING:
    from conftest import ServiceProcess

pytestmark = pytest.mark.server

MODULE = """
    import os

    def scheme(environ, start_response):
        body = environ["wsgi.url_scheme"].encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    def echo(request):
        return {"length": len(request.raw.read()), "pid": os.getpid()}

    def big(request):
        return bytes(9_000_000)

    def hook():
        pass
"""
CONFIG = """
    name: shop
    grace: 3
    http:
      threads: 2
      keepalive: 5
      read_timeout: 2
      tls: {certificate: own.pem, key: own.key%s}
      routes:
        - {method: POST, path: /echo, processor: "shop:echo"}
        - {method: GET, path: /big, processor: "shop:big"}
      mounts: {/scheme: "shop:scheme"}
"""


def tool(name: str) -> str:
    return shutil.which(name) or missing(name, f"{name} is not installed")


@pytest.fixture(scope="session")
def make_certificate() -> Callable[[Path, str], None]:
    """A function that writes a certificate for localhost, signed by itself, to ``<name>.pem`` and ``<name>.key``."""
    openssl = tool("openssl")

    def make(folder: Path, name: str) -> None:
        command = [
            openssl,
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ]
        names = ["-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "2"]
        files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
        subprocess.run([*command, *names, *files], check=True, capture_output=True)

    return make


class Shop:
    """A service that speaks TLS, and a client that trusts its certificate."""

    def __init__(self, service: ServiceProcess) -> None:
        self.service = service

    def context(self, **options: Any) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.service.folder / "own.pem"))
        for name, value in options.items():
            setattr(context, name, value)
        return context

    def connect(self, context: ssl.SSLContext | None = None) -> HTTPSConnection:
        return HTTPSConnection("localhost", self.service.port, timeout=10, context=context or self.context())

    def get(self, path: str, context: ssl.SSLContext | None = None) -> bytes:
        client = self.connect(context)
        try:
            client.request("GET", path)
            answer = client.getresponse()
            assert answer.status == 200
            return answer.read()
        finally:
            client.close()

    def answers(self) -> bool:
        try:
            return bool(self.get("/scheme"))
        except OSError:
            process = self.service.process
            assert process is not None
            assert process.poll() is None, self.service.output()
            return False


@pytest.fixture
def shop(service: ServiceProcess, make_certificate: Callable[[Path, str], None]) -> Shop:
    make_certificate(service.folder, "own")
    service.write(MODULE, CONFIG % "")
    return Shop(service)


def started(shop: Shop) -> Shop:
    shop.service.start(wait=False)
    shop.service.until(shop.answers)
    return shop


def test_a_connection_carries_many_requests_and_bodies_of_every_size(shop: Shop) -> None:
    client = started(shop).connect()
    for size in (0, 10, 70_000, 1_000_000):
        client.request("POST", "/echo", bytes(size))
        own_socket = client.sock
        answer = client.getresponse()
        assert (answer.status, answer.read().startswith(b'{"length":%d,' % size)) == (201, True)
        assert client.sock is own_socket  # the connection was kept
    client.request("GET", "/big")
    assert len(client.getresponse().read()) == 9_000_000
    client.request("GET", "/scheme")
    assert client.getresponse().read() == b"https"
    client.close()


def test_curl_is_content_too(shop: Shop) -> None:
    started(shop)
    url = f"https://localhost:{shop.service.port}"
    options = ["-sS", "--http1.0", "--cacert", str(shop.service.folder / "own.pem")]
    for path in ("/scheme", "/big"):
        done = subprocess.run([tool("curl"), *options, url + path], capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")


def test_requests_that_follow_each_other_at_once_are_all_answered(shop: Shop) -> None:
    with raw(started(shop)) as client:
        client.sendall(b"GET /scheme HTTP/1.1\r\nHost: x\r\n\r\n" * 3 + b"GET /no HTTP/1.0\r\n\r\n")
        received = b""
        while piece := client.recv(65536):
            received += piece
    assert received.count(b"HTTP/1.1 200") == 3
    assert received.count(b"HTTP/1.1 404") + received.count(b"HTTP/1.0 404") == 1


def raw(shop: Shop) -> ssl.SSLSocket:
    """A client to which an end without TLS's own goodbye is an error."""
    plain = socket.create_connection(("127.0.0.1", shop.service.port), timeout=10)
    return shop.context().wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False)


def test_clients_that_are_slow_with_their_handshake_or_request_hold_nobody_up(shop: Shop) -> None:
    started(shop)
    with ExitStack() as stack:
        for hello in (b"", b"\x16\x03\x01\x02\x00\x01\x00") * 10:
            slow = socket.create_connection(("127.0.0.1", shop.service.port), timeout=10)
            stack.enter_context(slow).sendall(hello)
        for _ in range(5):
            stack.enter_context(raw(shop)).sendall(
                b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
            )
        assert [shop.get("/scheme") for _ in range(10)] == [b"https"] * 10
        assert slow.recv(100) == b""  # after the read time-out


def test_who_speaks_plain_http_is_told_in_plain_http(shop: Shop) -> None:
    workers = started(shop).service.workers()
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", shop.service.port), timeout=10) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = client.recv(65536)
            client.sendall(b"more")
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"use https" in answer
    assert b'path="refused",status_code="400"} 3.0' in shop.get("/metrics")
    assert shop.service.workers() == workers


def test_old_versions_are_refused(shop: Shop) -> None:
    shop.service.write(MODULE, CONFIG % ", minimum: '1.3'")
    started(shop)
    with pytest.raises(ssl.SSLError):
        shop.get("/scheme", shop.context(maximum_version=ssl.TLSVersion.TLSv1_2))
    assert shop.get("/scheme", shop.context(minimum_version=ssl.TLSVersion.TLSv1_3)) == b"https"


def test_where_clients_need_a_certificate_only_those_with_one_are_served(
    shop: Shop, make_certificate: Callable[[Path, str], None]
) -> None:
    make_certificate(shop.service.folder, "customer")
    shop.service.write(MODULE, CONFIG % ", client_ca: customer.pem")
    known = shop.context()
    known.load_cert_chain(shop.service.folder / "customer.pem", shop.service.folder / "customer.key")
    shop.service.start(wait=False)
    shop.service.until(lambda: answers_to(shop, known))
    with pytest.raises(OSError):
        shop.get("/scheme")


def answers_to(shop: Shop, context: ssl.SSLContext) -> bool:
    try:
        return shop.get("/scheme", context) == b"https"
    except OSError:
        return False


@pytest.mark.parametrize("hook", ["", "\n    on_sighup: shop:hook"], ids=["reload", "own hook"])
def test_sighup_renews_the_certificate(
    shop: Shop, make_certificate: Callable[[Path, str], None], hook: str
) -> None:
    shop.service.write(MODULE, CONFIG % "" + hook)
    started(shop)
    held = raw(shop)
    make_certificate(shop.service.folder, "own")
    shop.service.signal(signal.SIGHUP)
    shop.service.until(shop.answers)  # the client trusts the new one only
    held.close()


def test_files_that_do_not_hold_what_they_should_are_named_before_anything_starts(
    shop: Shop, make_certificate: Callable[[Path, str], None]
) -> None:
    make_certificate(shop.service.folder, "other")
    shop.service.write(MODULE, CONFIG.replace("own.key", "other.key") % ", client_ca: none.pem")
    shop.service.start(wait=False)
    assert shop.service.wait() == 2
    output = shop.service.output()
    assert "patron: http: tls: certificate 'own.pem', key 'other.key': the key does not belong" in output
    assert "patron: http: tls: client_ca 'none.pem': No such file" in output


def test_a_stop_lets_the_request_on_its_way_end(shop: Shop) -> None:
    client = raw(started(shop))
    client.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n")
    shop.service.until(lambda: shop.get("/scheme"))
    shop.service.signal(signal.SIGTERM)
    time.sleep(0.3)
    client.sendall(b"abc")
    assert b" 201 " in client.recv(65536)
    client.close()
    assert shop.service.wait() == 0


def test_the_users_own_gunicorn_options_for_tls_work(shop: Shop) -> None:
    plain = (CONFIG % "").replace("tls: {certificate: own.pem, key: own.key}", "")
    shop.service.write(MODULE, plain)
    shop.service.start_gunicorn("--certfile", "own.pem", "--keyfile", "own.key", wait=False)
    shop.service.until(shop.answers)
    client = shop.connect()
    for _ in range(3):
        client.request("GET", "/scheme")
        assert client.getresponse().read() == b"https"
    client.close()


@pytest.mark.parametrize("option", ["--protocol=uwsgi", "--http2-cleartext=upgrade"])
def test_protocols_that_the_worker_does_not_speak_are_refused_at_the_start(shop: Shop, option: str) -> None:
    shop.service.start_gunicorn(option, wait=False)
    assert shop.service.wait() == 2
    assert "patron: Patron's worker speaks HTTP/1.1" in shop.service.output()
