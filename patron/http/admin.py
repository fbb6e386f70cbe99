"""The admin routes: health, metrics, and what helps to look into a live process."""

from __future__ import annotations

import html
import ipaddress
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from patron import encoding
from patron.component import Verdict
from patron.errors import MethodNotAllowed, NotFound
from patron.http.auth import Authenticator, identify
from patron.http.message import Request
from patron.http.router import Endpoint
from patron.http.settings import HttpSettings
from patron.observe import log, metrics

__all__ = ["Admin", "endpoints"]

_JSON = "application/json; charset=utf-8"
_TEXT = "text/plain; charset=utf-8"
_HTML = "text/html; charset=utf-8"


class Admin(Protocol):
    """What the admin routes ask the live service."""

    def alive(self) -> Verdict: ...
    def ready(self) -> Verdict: ...
    def components(self) -> Sequence[Mapping[str, Any]]: ...


class Page(NamedTuple):
    """One answer of an admin route."""

    status: str
    content_type: str
    body: bytes


Handler = Callable[[], Page]
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
    pages: dict[str, tuple[Handler, Guard]] = {}
    if settings.admin != "closed":
        pages["/alive"] = (lambda: _verdict(admin.alive, "alive"), _everybody)
        pages["/ready"] = (lambda: _verdict(admin.ready, "ready"), _everybody)
    if settings.admin == "open":
        pages["/metrics"] = (_metrics, _everybody)
        guard = _debug_guard(settings.debug, debug_authenticator)
        for path, handler in _debug_pages(settings.admin_prefix, admin, name, version).items():
            pages[path] = (handler, guard)
    return {
        settings.admin_prefix + path: Endpoint(settings.admin_prefix + path, _application(*page), admin=True)
        for path, page in pages.items()
    }


def _debug_pages(prefix: str, admin: Admin, name: str, version: str) -> dict[str, Handler]:
    def components() -> Page:
        return _json({"name": name, "version": version, "components": list(admin.components())})

    def index() -> Page:
        return _index(f"{prefix}/debug/pprof/")

    return {
        "/debug/components": components,
        "/debug/pprof": index,
        "/debug/pprof/": index,
        "/debug/pprof/threads": _threads,
    }


def _application(handler: Handler, guard: Guard) -> Callable[[dict[str, Any], Any], Iterable[bytes]]:
    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        guard(environ)
        method = environ["REQUEST_METHOD"]
        if method == "OPTIONS":
            start_response("200 OK", [("Allow", "GET, HEAD, OPTIONS"), ("Content-Length", "0")])
            return []
        if method not in ("GET", "HEAD"):
            raise MethodNotAllowed(headers={"Allow": "GET, HEAD, OPTIONS"})
        page = handler()
        headers = [("Content-Type", page.content_type), ("Content-Length", str(len(page.body)))]
        start_response(page.status, [*headers, ("Cache-Control", "no-store")])
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


def _metrics() -> Page:
    body, content_type = metrics.exposition()
    return Page("200 OK", content_type, body)


# ------------------------------------------------------------------ /debug


_PAGES = {"threads": "what every thread does now, as text"}


def _index(root: str) -> Page:
    rows = "".join(
        f'<li><a href="{root}{path}">{path}</a>: {html.escape(text)}</li>' for path, text in _PAGES.items()
    )
    return Page(
        "200 OK", _HTML, f"<!doctype html><title>pprof</title><h1>pprof</h1><ul>{rows}</ul>\n".encode()
    )


def _threads() -> Page:
    known = {thread.ident: thread for thread in threading.enumerate()}
    frames = sys._current_frames()
    parts = []
    for ident, frame in frames.items():
        thread = known.get(ident)
        title = (
            f"{thread.name}{' (daemon)' if thread.daemon else ''}" if thread else "not started by threading"
        )
        parts.append(f"thread {ident} {title}\n{''.join(traceback.format_stack(frame))}")
    return Page("200 OK", _TEXT, "\n".join([f"{len(parts)} threads\n", *parts]).encode("utf-8", "replace"))


def _everybody(environ: dict[str, Any]) -> None:
    pass


def _debug_guard(debug: str, authenticator: Authenticator | None) -> Guard:
    if debug == "closed":
        return _nobody
    if authenticator is not None:
        return lambda environ: _authenticated(authenticator, environ)
    return _everybody if debug == "open" else _local


def _nobody(environ: dict[str, Any]) -> None:
    raise NotFound()


def _authenticated(authenticator: Authenticator, environ: dict[str, Any]) -> None:
    identify(authenticator, Request(environ, {}, environ["PATH_INFO"]))


def _local(environ: dict[str, Any]) -> None:
    # A forwarding header means that a proxy on this machine asks for somebody else.
    forwarded = any(key.startswith("HTTP_X_FORWARDED") or key in _FORWARDING for key in environ)
    if forwarded or not _is_loopback(environ.get("REMOTE_ADDR") or ""):
        raise NotFound()


_FORWARDING = frozenset(
    (
        "HTTP_FORWARDED",
        "HTTP_VIA",
        "HTTP_X_REAL_IP",
        "HTTP_X_CLIENT_IP",
        "HTTP_TRUE_CLIENT_IP",
        "HTTP_CF_CONNECTING_IP",
    )
)


def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback
