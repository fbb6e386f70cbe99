"""Unsafe requests: one that succeeds hides what was kept for its path (RFC 9111, section 4.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit

from patron.http.caching.capture import Application
from patron.http.routes import SAFE
from patron.observe import log

if TYPE_CHECKING:
    import flask

    from patron.http.caching.front import Front

__all__ = ["Changing", "Kept"]

Header = tuple[str, str]
Changed = Callable[[str, dict[str, Any]], None]


class Changing:
    """
    A WSGI application for requests that may change something; all threads share it.

    *changed* is told of each path that one has changed, with the environment, as soon as its answer begins:
    before the client can know.
    """

    def __init__(self, application: Application, changed: Changed) -> None:
        self._application = application
        self._changed = changed

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in SAFE:
            return self._application(environ, start_response)
        # What is inside may move a part of the one to the other.
        script, path = environ.get("SCRIPT_NAME", ""), environ.get("PATH_INFO", "")

        def answered(status: str, headers: list[Header], *more: Any) -> Any:
            if status[:1] in ("2", "3"):
                self._tell({path: None, **dict.fromkeys(_named(headers, environ, script, path))}, environ)
            return start_response(status, headers, *more)

        return self._application(environ, answered)

    def _tell(self, paths: Iterable[str], environ: dict[str, Any]) -> None:
        for path in paths:
            try:
                self._changed(path, environ)
            except Exception as error:  # noqa: BLE001 - the change itself has succeeded
                log.error("kept answers could not be invalidated", path=path, exc_info=error)


def _named(headers: list[Header], environ: Mapping[str, Any], script: str, path: str) -> Iterator[str]:
    """The paths that the answer names as changed or made by it, as far as they are ours (same section)."""
    for name, value in headers:
        if name.lower() not in ("location", "content-location"):
            continue
        try:
            host = environ.get("HTTP_HOST", "")
            target = urlsplit(urljoin(f"//{host}{script}{path}", value))
        except ValueError:
            continue
        whole = unquote(target.path, "latin-1")  # as WSGI writes paths
        if target.netloc == host and whole.startswith(f"{script}/"):
            yield whole[len(script) :]


class Kept:
    """What the processors of a service keep: finds the caches that GET would ask for a path."""

    def __init__(self, application: flask.Flask, fronts: Mapping[str, Front]) -> None:
        self._adapter = application.url_map.bind("localhost")
        self._views = application.view_functions
        self._fronts = fronts

    def changed(self, path: str, environ: dict[str, Any]) -> None:
        """Hide what is kept for *path*; nothing, where GET has no route or its route no cache."""
        try:
            rule, _ = self._adapter.match(path.encode("latin-1").decode(), "GET", return_rule=True)
        except Exception:  # noqa: BLE001 - no route, or a converter of the user's
            return
        if rule.endpoint in self._fronts:
            self._fronts[rule.endpoint].invalidate(path)
        route = getattr(self._views.get(rule.endpoint), "route", None)
        for middleware in () if route is None else route.middlewares:
            invalidate = getattr(middleware, "invalidate", None)
            if invalidate is not None:
                invalidate(path, environ, route)
