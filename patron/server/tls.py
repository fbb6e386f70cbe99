"""TLS in the worker: its context, and handshakes that wait for no client."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Any

from patron.server.internals import gunicorn_sock

__all__ = [
    "context",
    "gunicorn_settings",
    "handshake",
    "is_plain_http",
    "say_goodbye",
    "send_plainly",
    "wrap",
]

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def gunicorn_settings(tls: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `patron.http.Tls` as gunicorn's settings."""

    def ssl_context(config: Any, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        made = default()
        made.minimum_version = _VERSIONS[tls["minimum"]]
        return made

    return {
        "certfile": tls["certificate"],
        "keyfile": tls["key"],
        "ca_certs": tls["client_ca"],
        "cert_reqs": ssl.CERT_REQUIRED if tls["client_ca"] else ssl.CERT_NONE,
        "ssl_context": ssl_context,
    }


def context(cfg: Any) -> ssl.SSLContext | None:
    """
    What gunicorn's settings *cfg* say about TLS, None when they want none. The files are read now.

    Raises:
        OSError: a file cannot be read, or holds no certificate or key (`ssl.SSLError`).
    """
    if not cfg.is_ssl:
        return None
    made: ssl.SSLContext = gunicorn_sock.ssl_context(cfg)
    made.set_alpn_protocols(["http/1.1"])  # RFC 7301: for clients that could do HTTP/2 too
    return made


def wrap(context: ssl.SSLContext, sock: Any) -> ssl.SSLSocket:
    """
    *sock*, accepted and not waiting, with TLS on it; the handshake is still to come.

    Raises:
        OSError: the client is gone already.
    """
    return context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)


def handshake(sock: ssl.SSLSocket) -> int:
    """
    One step of the handshake: returns 0 when it is done, else the event (`selectors`) that it waits for.

    Raises:
        OSError: the client is gone, or wants something else (`ssl.SSLError`).
    """
    try:
        sock.do_handshake()
    except ssl.SSLWantReadError:
        return selectors.EVENT_READ
    except ssl.SSLWantWriteError:
        return selectors.EVENT_WRITE
    return 0


def is_plain_http(error: Exception) -> bool:
    """Whether a handshake failed with *error* because the client speaks HTTP."""
    return getattr(error, "reason", None) == "HTTP_REQUEST"


def send_plainly(sock: ssl.SSLSocket, data: bytes) -> None:
    """Send *data* as it is to a client that speaks no TLS."""
    with contextlib.suppress(OSError):
        socket.socket.send(sock, data)


def say_goodbye(sock: ssl.SSLSocket) -> None:
    """Tell the client that nothing was cut off at the end (RFC 8446, section 6.1), without waiting for its answer."""
    with contextlib.suppress(OSError, ValueError):  # it waits for the client's own, or the client is gone
        sock.unwrap()
