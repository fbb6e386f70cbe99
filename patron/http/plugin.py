"""What serves a Flask application that is somebody else's: it is watched, and gets the admin routes beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import flask
from werkzeug.exceptions import ClientDisconnected, HTTPException, MethodNotAllowed, RequestTimeout

from patron.component import Work
from patron.errors import HTTPError
from patron.http import app as own
from patron.http.admin import Admin
from patron.http.app import HttpApp
from patron.http.auth import Authenticator
from patron.http.intake import Intake
from patron.http.listing import flask_infos
from patron.http.remote import PROXIES, Proxies
from patron.http.router import UNMATCHED, Application, Endpoint
from patron.http.routes import RouteInfo
from patron.http.settings import HttpSettings
from patron.http.watching import WATCH, Watch
from patron.observe import log, metrics

__all__ = ["Layer", "PluggedApp", "build"]

_APP = "patron.app"
"""Where the WSGI environment holds the `PluggedApp` that a request came in by."""

#: Bodies are Flask's to limit (``MAX_CONTENT_LENGTH``).
_INTAKE = Intake(2**62, stream=True)


def build(
    application: flask.Flask,
    settings: HttpSettings,
    admin: Admin,
    *,
    name: str,
    version: str,
    debug_authenticator: Authenticator | None = None,
    serves: Callable[[PluggedApp | None], None] = lambda served: None,
) -> PluggedApp:
    """
    The WSGI callable that serves *application*, whose `Layer` it needs. Opens nothing and starts nothing.

    Args:
        serves: told what serves the application in this process, and by None that it does no more.

    Raises:
        ConfigError: the admin routes cannot be made as asked.
    """
    pages = own.build(
        settings, admin=admin, debug_authenticator=debug_authenticator, name=name, version=version
    )
    return PluggedApp(application, pages, settings, serves)


class PluggedApp(HttpApp):
    """
    A WSGI callable that serves a Flask application as it is, from the outside like any `HttpApp`.

    All threads may call everything. ``flask`` is the Flask application behind the admin routes.
    """

    def __init__(
        self,
        application: flask.Flask,
        pages: HttpApp,
        settings: HttpSettings,
        serves: Callable[[PluggedApp | None], None],
    ) -> None:
        self.flask = pages.flask
        self.intake: Callable[[str, str], Intake] = lambda method, target: _INTAKE
        self.resources: Mapping[str, Any] | None = None
        # The keys are what is answered now. Each thread adds and removes its own only, so it needs no lock.
        self.live: dict[Watch, None] = {}
        self._access = settings.access_log
        self._proxies = Proxies(settings.trusted_proxies) if settings.trusted_proxies else None
        self._writers: dict[int, Callable[..., None] | None] = {}
        self._serves = serves
        self._application = application
        self._pages = pages
        self._paths = frozenset(info.path for info in pages.routes() if info.kind == "admin")
        self._endpoints: dict[str, Endpoint] = {}
        self._hidden: set[str] = set()  # admin routes that the application has itself
        self._open = False
        self._warned = False

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ[_APP] = self
        if self._proxies is not None:
            environ[PROXIES] = self._proxies
        environ["wsgi.input"] = _Upload(environ["wsgi.input"])
        return self._application(environ, start_response)

    def start(self, resources: Mapping[str, Any] | None = None) -> None:
        """Let requests in; before, everything but the admin routes answers 503."""
        self._open = True
        self._serves(self)

    def close(self) -> None:
        """The application is served no more. May be called twice."""
        self._serves(None)

    def in_flight(self) -> Sequence[Work]:
        """The requests that are being answered now."""
        own = [Work(f"{w.method} {w.path}", w.started, w.thread) for w in list(self.live)]
        return [*self._pages.in_flight(), *own]

    def routes(self) -> list[RouteInfo]:
        """Everything that is served."""
        own = set(self._own())
        pages = [info for info in self._pages.routes() if info.path not in own]
        return [*flask_infos(self._application), *pages]

    def endpoint(self, pattern: str) -> Endpoint:
        """How requests to *pattern* are observed."""
        found = self._endpoints.get(pattern)
        return found or self._endpoints.setdefault(pattern, Endpoint(pattern, self._application))

    def writer(self, status: int) -> Callable[..., None] | None:
        """What writes the access log line of an answer with *status*, None for no line."""
        if status not in self._writers:
            level = self._access.level_of(status)
            self._writers[status] = None if level is None else getattr(log, level)
        return self._writers[status]

    def serve(
        self, inner: Application, environ: dict[str, Any], start_response: Any, *, opened: Callable[[], None]
    ) -> Iterable[bytes]:
        """Answer one request with *inner*, or with an admin route; calls *opened* before *inner*."""
        path = environ.get("PATH_INFO", "")
        if path in self._paths and not self._hides(path, inner):
            self._look_at(path, environ)
            return self._pages(environ, start_response)
        opened()
        watch = Watch(self, environ, start_response, UNMATCHED)
        return watch.run(inner if self._open else _starting)

    def _look_at(self, path: str, environ: Mapping[str, Any]) -> None:
        """Say once that a page of metrics shows less than one may think."""
        if self._warned or not path.endswith("/metrics"):
            return
        self._warned = True
        if environ.get("wsgi.multiprocess") and not metrics.shared():
            log.warn(
                "metrics are those of one worker process of several",
                advice="set PROMETHEUS_MULTIPROC_DIR to an empty directory, or serve with patron.gunicorn",
            )

    def _hides(self, path: str, inner: Application) -> bool:
        """Whether the application has a route of its own at *path*: it had it before, so it keeps it."""
        if path not in self._own() and not _mounts(inner, path):
            return False
        if path not in self._hidden:
            self._hidden.add(path)
            log.warn(
                "the application has a route of its own where an admin route would be",
                path=path,
                advice="set admin_prefix to have both",
            )
        return True

    def _own(self) -> Iterable[str]:
        """The admin routes' paths that the application has without parameters; those with stand behind, as in Flask."""
        rules = {rule.rule for rule in self._application.url_map.iter_rules()}
        return (path for path in self._paths if path in rules or f"{path}/" in rules)


class Layer:
    """
    The WSGI application that stands around a Flask application's own. All threads call it.

    Args:
        inner: what was there before.
        alone: what serves where no `PluggedApp` was asked, as under a server that knows nothing of it.
        opened: called before each request that *alone* serves.
    """

    def __init__(
        self, inner: Application, alone: Callable[[], PluggedApp], opened: Callable[[], None]
    ) -> None:
        self._inner = inner
        self._alone = alone
        self._opened = opened

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        # Taken out, for another application with the plug-in may be mounted inside.
        home: PluggedApp | None = environ.pop(_APP, None)
        if home is not None:
            return home.serve(self._inner, environ, start_response, opened=_nothing)
        return self._alone().serve(self._inner, environ, start_response, opened=self._opened)

    # What Flask tells by its signals. Its hooks would see it too, but they are the application's.

    def on_request(self, sender: flask.Flask, **_: Any) -> None:
        """Flask has matched the request, or has not."""
        request: flask.Request = flask.request._get_current_object()  # type: ignore[attr-defined]
        watch: Watch | None = request.environ.get(WATCH)
        if watch is not None:
            watch.found(_pattern(sender, request), request.method)

    def on_exception(self, sender: flask.Flask, exception: BaseException, **_: Any) -> None:
        """Nobody in the application handles *exception*."""
        watch: Watch | None = flask.request.environ.get(WATCH)
        if watch is not None:
            watch.failed(exception)


class _Upload:
    """A body of our worker's, whose errors are made ones that Flask knows to be the client's."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, size: int | None = -1) -> bytes:
        return self._arrived(self._stream.read, size)

    def readline(self, size: int | None = -1) -> bytes:
        return self._arrived(self._stream.readline, size)

    def readlines(self, hint: int | None = -1) -> list[bytes]:
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def __getattr__(self, name: str) -> Any:  # what PEP 3333 does not ask for, but somebody may use
        return getattr(self._stream, name)

    def _arrived(self, read: Callable[..., bytes], size: int | None) -> bytes:
        try:
            return read(-1 if size is None else size)
        except Exception as error:
            late = isinstance(error, HTTPError) and error.status == RequestTimeout.code
            raise (RequestTimeout() if late else ClientDisconnected()) from error


def _nothing() -> None:
    pass


def _pattern(application: flask.Flask, request: flask.Request) -> str:
    rule = request.url_rule
    if rule is not None:
        return rule.rule
    refused = request.routing_exception
    if isinstance(refused, MethodNotAllowed) and refused.valid_methods:
        return _pattern_of_other(application, request, next(iter(refused.valid_methods)))
    return UNMATCHED


def _pattern_of_other(application: flask.Flask, request: flask.Request, method: str) -> str:
    """The pattern that has *method*, which is not the request's."""
    try:
        adapter = application.create_url_adapter(request)
        rule = adapter.match(method=method, return_rule=True)[0] if adapter is not None else None
    except HTTPException:
        return UNMATCHED
    return UNMATCHED if rule is None else rule.rule


def _mounts(inner: Any, path: str) -> bool:
    """Whether a dispatcher of werkzeug's around the application has *path*, as prometheus_client's recipe has."""
    while inner is not None:
        if path in (getattr(inner, "mounts", None) or ()):
            return True
        inner = getattr(inner, "app", None)
    return False


def _starting(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    body = b"the service is starting\n"
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body))), ("Retry-After", "1")]
    start_response("503 Service Unavailable", headers)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
