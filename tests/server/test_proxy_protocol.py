"""Behind a balancer that speaks the PROXY protocol, the application is told who the client is."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import ServiceProcess

pytestmark = pytest.mark.server

MODULE = """
    def remote(environ, start_response):
        body = environ["REMOTE_ADDR"].encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
"""
CONFIG = """
    name: shop
    http: {mounts: {/remote: "shop:remote"}}
"""
GET = b"GET /remote HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
# The port 3338 has the bytes of a line end.
SECOND = SIGNATURE + b"\x21\x11\x00\x0c" + bytes((192, 0, 2, 7, 13, 10, 13, 10)) + b"\r\n\r\n"


def test_in_both_versions_of_it(service: ServiceProcess) -> None:
    service.write(MODULE, CONFIG)
    service.start_gunicorn("--proxy-protocol", "auto")
    for header in (b"PROXY TCP4 192.0.2.7 192.0.2.8 1024 80\r\n", SECOND):
        with socket.create_connection(("127.0.0.1", service.port), timeout=5) as client:
            for at in range(0, len(header + GET), 9):
                client.sendall((header + GET)[at : at + 9])
            received = b""
            while piece := client.recv(4096):
                received += piece
        assert received.endswith(b"\r\n\r\n192.0.2.7")
