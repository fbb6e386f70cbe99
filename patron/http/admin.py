"""The admin routes: health, metrics, and what helps to look into a live process."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from patron import encoding
from patron.component import Verdict
from patron.errors import MethodNotAllowed, NotFound
from patron.http.auth import Authenticator, identify
from patron.http.message import Request
from patron.http.pprof import Handler, Page, pages
from patron.http.router import Endpoint
from patron.http.settings import HttpSettings
from patron.observe import log, metrics
from patron.profiling import Profiler

__all__ = ["Admin", "Profiled", "endpoints"]

_JSON = "application/json; charset=utf-8"


class Admin(Protocol):
    """What the admin routes ask the live service."""

    def alive(self) -> Verdict: ...
    def ready(self) -> Verdict: ...
    def components(self) -> Sequence[Mapping[str, Any]]: ...


@runtime_checkable
class Profiled(Protocol):
    """An admin side that has a say in how profiles are taken; for others this process takes its own."""

    def profiler(self) -> Profiler: ...


Guard = Callable[[dict[str, Any]], None]


def endpoints(
    settings: HttpSettings,
    admin: Admin,
    *,
    name: str,
    version: str,
    debug_authenticator: Authenticator | None = None,
) -> dict[str, Endpoint]:
    """Path → endpoint of every admin route that *settings* leave open."""
    open_pages: dict[str, tuple[Handler, Guard]] = {}
    if settings.admin != "closed":
        open_pages["/alive"] = (lambda environ: _verdict(admin.alive, "alive"), _everybody)
        open_pages["/ready"] = (lambda environ: _verdict(admin.ready, "ready"), _everybody)
    if settings.admin == "open":
        open_pages["/metrics"] = (_metrics, _everybody)
        guard = _debug_guard(settings, debug_authenticator)
        for path, handler in _debug_pages(settings.admin_prefix, admin, name, version).items():
            open_pages[path] = (handler, guard)
    return {
        settings.admin_prefix + path: Endpoint(settings.admin_prefix + path, _application(*page), admin=True)
        for path, page in open_pages.items()
    }


def _debug_pages(prefix: str, admin: Admin, name: str, version: str) -> Mapping[str, Handler]:
    def components(environ: dict[str, Any]) -> Page:
        return _json({"name": name, "version": version, "components": list(admin.components())})

    profiler = admin.profiler() if isinstance(admin, Profiled) else Profiler()
    profiles = pages(f"{prefix}{_PPROF}", profiler, name)
    return {
        "/debug/components": components,
        **{_PPROF + path: handler for path, handler in profiles.items()},
    }


_PPROF = "/debug/pprof"


def _application(handler: Handler, guard: Guard) -> Callable[[dict[str, Any], Any], Iterable[bytes]]:
    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        guard(environ)
        method = environ["REQUEST_METHOD"]
        if method == "OPTIONS":
            start_response("200 OK", [("Allow", "GET, HEAD, OPTIONS"), ("Content-Length", "0")])
            return []
        if method not in ("GET", "HEAD"):
            raise MethodNotAllowed(headers={"Allow": "GET, HEAD, OPTIONS"})
        page = handler(environ)
        headers = [("Content-Type", page.content_type), ("Content-Length", str(len(page.body)))]
        start_response(page.status, [*headers, *page.headers, ("Cache-Control", "no-store")])
        return [] if method == "HEAD" else [page.body]

    return application


def _json(value: Any, status: str = "200 OK") -> Page:
    return Page(status, _JSON, encoding.encode(value) + b"\n")


def _verdict(ask: Callable[[], Verdict], word: str) -> Page:
    try:
        verdict = ask()
    except Exception as error:  # noqa: BLE001 - a check that raises is a no
        log.error("health check failed", check=word, exc_info=error)
        verdict = Verdict(False, (f"the check failed: {type(error).__name__}",))
    status = "200 OK" if verdict.ok else "503 Service Unavailable"
    return _json({"status": word if verdict.ok else f"not {word}", "reasons": list(verdict.reasons)}, status)


def _metrics(environ: dict[str, Any]) -> Page:
    body, content_type = metrics.exposition()
    return Page("200 OK", content_type, body)


# ------------------------------------------------------------------ who may see /debug


def _everybody(environ: dict[str, Any]) -> None:
    pass


def _debug_guard(settings: HttpSettings, authenticator: Authenticator | None) -> Guard:
    if settings.debug == "closed":
        return _nobody
    if authenticator is not None:
        return lambda environ: _authenticated(authenticator, environ)
    if settings.debug == "open":
        return _everybody
    own = {name.lower() for name in ("localhost", settings.host, socket.gethostname())}
    return lambda environ: _local(environ, own)


def _nobody(environ: dict[str, Any]) -> None:
    raise NotFound()


def _authenticated(authenticator: Authenticator, environ: dict[str, Any]) -> None:
    identify(authenticator, Request(environ, {}, environ["PATH_INFO"]))


def _local(environ: dict[str, Any], own: Container[str]) -> None:
    # A forwarding header means that a proxy on this machine asks for somebody else, and an origin that a page of
    # somebody else's does, in a browser on this machine: `cors` may allow it to read what we answer.
    foreign = any(key.startswith("HTTP_X_FORWARDED") or key in _FOREIGN for key in environ)
    if foreign or not _is_loopback(environ.get("REMOTE_ADDR") or ""):
        raise NotFound()
    if not _names_this_machine(environ.get("HTTP_HOST", ""), own):
        raise NotFound()


def _names_this_machine(host: str, own: Container[str]) -> bool:
    """
    Whether a client that asked for *host* knew whom it asked: by an address, or by a name that is our own.

    A page of somebody else's can let its own name mean 127.0.0.1 (DNS rebinding): to a browser on this
    machine we are then a part of that page, which may read what we answer. Only old clients and
    tools send no Host.
    """
    name = _PORT.sub("", host).lower().removesuffix(".")
    return not name or name in own or name.endswith(".localhost") or _address(name.strip("[]")) is not None


_PORT = re.compile(r":[0-9]*$")


_FOREIGN = frozenset(
    (
        "HTTP_ORIGIN",
        "HTTP_FORWARDED",
        "HTTP_VIA",
        "HTTP_X_REAL_IP",
        "HTTP_X_CLIENT_IP",
        "HTTP_TRUE_CLIENT_IP",
        "HTTP_CF_CONNECTING_IP",
    )
)


def _is_loopback(address: str) -> bool:
    parsed = _address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return parsed is not None and (mapped or parsed).is_loopback


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
