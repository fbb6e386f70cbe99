"""The cache as a middleware: of a route, and of any WSGI application."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flask
from flask.sessions import NullSession

from patron.cache.opening import named
from patron.errors import ConfigError
from patron.http.caching.capture import Answer, Application, capture
from patron.http.caching.engine import Cache
from patron.http.caching.marks import Marks
from patron.http.caching.replies import as_reply, moved
from patron.http.caching.settings import RouteCache
from patron.http.caching.unsafe import Changing
from patron.http.instrument import EXCHANGE, Exchange
from patron.http.message import Request
from patron.http.processor import reply
from patron.http.routes import Handler, Route

__all__ = ["CachedApp", "CachedHandler"]

_METHODS = ("GET", "HEAD")


class _Caches:
    """The caches behind one middleware, by the pattern of the route; made when they are first asked."""

    def __init__(self, settings: RouteCache, service: str) -> None:
        if not isinstance(settings, RouteCache):
            raise ConfigError(f"cache: {settings!r} is no RouteCache")
        self.settings = settings
        self._service = service
        self._lock = threading.Lock()  # guards the making of caches
        self._caches: dict[tuple[str, bool], Cache] = {}
        self._marks = Marks(
            settings.outlived
        )  # of all, since a path may be changed by a route with another pattern

    def of(self, route: str, environ: Mapping[str, Any], *, authenticated: bool) -> Cache:
        """The cache of *route*, in the service that the request in *environ* came to."""
        found = self._caches.get((route, authenticated))
        return found if found is not None else self._made(route, environ, authenticated)

    def _made(self, route: str, environ: Mapping[str, Any], authenticated: bool) -> Cache:
        exchange: Exchange | None = environ.get(EXCHANGE)
        service = self._service or (exchange.service if exchange is not None else "service")
        with self._lock:
            if (route, authenticated) not in self._caches:
                cache = Cache(
                    self.settings, route, service=service, authenticated=authenticated, marks=self._marks
                )
                cache.open(named(self.settings.store))
                self._caches[route, authenticated] = cache
            return self._caches[route, authenticated]

    def close(self) -> None:
        """Close the stores; the next request opens them again."""
        with self._lock:
            caches, self._caches = self._caches, {}
        for cache in caches.values():
            cache.close()


class CachedHandler:
    """
    A cache as a middleware of routes: what is behind it is kept, what is in front of it runs for every request.

    All threads share it; stores are opened when they are first asked.
    """

    def __init__(self, settings: RouteCache, service: str) -> None:
        self._caches = _Caches(settings, service)

    def __call__(self, handler: Handler) -> Handler:
        """*handler* behind the cache."""
        caches = self._caches
        if not caches.settings.enabled:
            return handler

        def cached(request: Request) -> Any:
            if request.method not in _METHODS:
                return handler(request)

            def run(environ: dict[str, Any]) -> Answer:
                return _handled(handler, moved(request, environ), caches.settings.max_body)

            cache = caches.of(request.route, request.environ, authenticated=request.principal is not None)
            return as_reply(cache.answer(request.environ, request.accepted, request.principal, run))

        return cached

    def invalidate(self, path: str, environ: Mapping[str, Any], route: Route) -> None:
        """Serve nothing any more of what was kept for *path*, which is one of *route*'s."""
        if self._caches.settings.enabled:
            self._caches.of(route.path, environ, authenticated=route.authenticator is not None).invalidate(
                path
            )

    def close(self) -> None:
        """Close the stores; the next request opens them again."""
        self._caches.close()


def _handled(handler: Handler, request: Request, limit: int) -> Answer:
    answer = capture(reply(handler(request), request), request.environ, limit)
    if _session_was_used():
        answer.headers.append(("Vary", "Cookie"))  # Flask says so later, behind our back
    return answer


def _session_was_used() -> bool:
    if not flask.has_request_context():
        return False
    # Not by its property, which counts as a use of it.
    context = vars(flask.globals.request_ctx._get_current_object())  # type: ignore[attr-defined]
    session = context.get("_session", context.get("session"))
    return session is not None and not isinstance(session, NullSession) and bool(session.accessed)


class CachedApp:
    """
    A cache as WSGI middleware, for Flask views and mounted applications: ``app -> app``.

    All threads share it; stores are opened when they are first asked. The route in the metrics is
    the pattern that matched, or *route* where nothing has matched one.
    """

    def __init__(self, settings: RouteCache, paths: Iterable[str], route: str, service: str) -> None:
        self._caches = _Caches(settings, service)
        self._paths = (paths,) if isinstance(paths, str) else tuple(paths)
        self._route = route
        if wrong := [path for path in self._paths if not str(path).startswith("/")]:
            raise ConfigError(*(f"cache: path {path!r} must begin with /" for path in wrong))
        self._below = tuple(path.rstrip("/") + "/" for path in self._paths)

    def __call__(self, application: Application) -> Application:
        """*application* behind the cache."""
        caches = self._caches
        if not caches.settings.enabled:
            return application

        changing = Changing(application, self._changed)

        def run(environ: dict[str, Any]) -> Answer:
            return capture(application, environ, caches.settings.max_body)

        def cached(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            route = self._cached_route(environ)
            if route is None:
                return changing(environ, start_response)
            cache = caches.of(route, environ, authenticated=False)
            # The application negotiates by itself: whatever it makes of the header, it is the same of the same one.
            answer = cache.answer(environ, environ.get("HTTP_ACCEPT", ""), None, run)
            start_response(answer.status, answer.headers)
            return answer.body

        cached.close = self.close  # type: ignore[attr-defined]  # at the stop of the service that it is a part of
        return cached

    def _cached_route(self, environ: dict[str, Any]) -> str | None:
        """The pattern of what is asked for; None when it is not for the cache."""
        if environ["REQUEST_METHOD"] not in _METHODS or not self._is_ours(environ.get("PATH_INFO", "")):
            return None
        exchange: Exchange | None = environ.get(EXCHANGE)
        if exchange is None:
            return self._route
        endpoint = exchange.match.endpoint
        return None if endpoint.admin else endpoint.pattern

    def _changed(self, path: str, environ: Mapping[str, Any]) -> None:
        exchange: Exchange | None = environ.get(EXCHANGE)
        endpoint = None if exchange is None else exchange.match.endpoint
        if self._is_ours(path) and not (endpoint and endpoint.admin):
            route = endpoint.pattern if endpoint else self._route
            self._caches.of(route, environ, authenticated=False).invalidate(path)

    def _is_ours(self, path: str) -> bool:
        return not self._paths or path in self._paths or path.startswith(self._below)

    def close(self) -> None:
        """Close the stores; the next request opens them again."""
        self._caches.close()
