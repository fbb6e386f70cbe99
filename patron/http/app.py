"""The WSGI callable of a service: one Flask application behind the instrumentation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import flask
from flask.sessions import NullSession, SecureCookieSessionInterface
from werkzeug.exceptions import HTTPException
from werkzeug.routing import MapAdapter, RequestRedirect

from patron.component import Verdict, Work
from patron.errors import ConfigError, ServiceUnavailable, http_error
from patron.http import failure
from patron.http.admin import Admin, endpoints
from patron.http.auth import Authenticator
from patron.http.instrument import EXCHANGE, Exchange, Instrumentation
from patron.http.processor import Reply, View
from patron.http.router import Endpoint, Match, Router
from patron.http.routes import METHODS, Route, RouteInfo, clashes, path_problems
from patron.http.settings import HttpSettings

__all__ = ["HttpApp", "build"]

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class _Matched(MapAdapter):
    """Flask's URL adapter with the matching done already; all else it has is made when somebody asks."""

    def __init__(self, application: _Flask, request: flask.Request, match: Match) -> None:
        self._application = application
        self._request = request
        self._found = match

    def __getattr__(self, name: str) -> Any:
        if name not in _ADAPTER_ATTRIBUTES:
            raise AttributeError(name)
        self.__dict__.update(vars(flask.Flask.create_url_adapter(self._application, self._request)))
        return self.__dict__[name]

    def match(self, path_info: Any = None, method: Any = None, *args: Any, **options: Any) -> Any:
        if path_info is not None or method is not None or not options.get("return_rule"):
            return super().match(path_info, method, *args, **options)
        if self._found.error is not None:
            raise self._found.error
        return self._found.rule, self._found.args


_ADAPTER_ATTRIBUTES = frozenset(MapAdapter.__init__.__code__.co_varnames[1:9])


class _Sessions(SecureCookieSessionInterface):
    """Flask's sessions, where all requests without a secret key share the one session that refuses writes."""

    def __init__(self) -> None:
        self._null = self.null_session_class()

    def make_null_session(self, app: flask.Flask) -> NullSession:
        return self._null


class _Flask(flask.Flask):
    """Flask, told which route matched, and with our form for errors that nobody handles."""

    response_class = Reply
    session_interface = _Sessions()

    def create_url_adapter(self, request: flask.Request | None) -> MapAdapter | None:
        exchange: Exchange | None = request.environ.get(EXCHANGE) if request is not None else None
        if request is None or exchange is None or self.config["TRUSTED_HOSTS"] is not None:
            return super().create_url_adapter(request)
        match = exchange.match
        if match.rule is None and match.error is None:
            return super().create_url_adapter(request)
        return _Matched(self, request, match)

    def ensure_sync(self, func: Any) -> Any:
        return func if type(func) is View else super().ensure_sync(func)

    def make_response(self, rv: Any) -> flask.Response:
        if type(rv) is Reply:
            return rv
        if isinstance(rv, HTTPException):
            if rv.response is None and (rv.code or 500) >= 400:
                return _reply(failure.from_flask(rv, flask.request.environ))
            if isinstance(rv, RequestRedirect):
                rv.new_url = _relative(rv.new_url, flask.request.host)
            rv = rv.get_response(flask.request.environ)  # a redirect, or what abort() was given
        return super().make_response(rv)

    def handle_user_exception(self, e: Exception) -> Any:
        exchange: Exchange | None = flask.request.environ.get(EXCHANGE)
        if exchange is not None:
            exchange.error = e  # the span's, when what a handler makes of it is a 5xx
        return super().handle_user_exception(e)

    def handle_exception(self, e: Exception) -> flask.Response:
        environ = flask.request.environ
        exchange: Exchange | None = environ.get(EXCHANGE)  # none: Flask was called without what is around it
        meant = failure.meaning(e, exchange) if exchange is not None else http_error(e)
        if meant is None:
            return super().handle_exception(e)  # a user's handler for 500 applies
        answer = failure.render(meant.status, meant.payload, meant.headers.items(), environ)
        return self.finalize_request(_reply(answer), from_error_handler=True)

    def log_exception(self, exc_info: Any) -> None:
        """Log nothing that `failure.meaning` has logged."""
        if EXCHANGE not in flask.request.environ:
            super().log_exception(exc_info)


def _relative(url: str, host: str) -> str:
    """*url* without the *host* that the client named itself (RFC 9110, section 10.2.2); another one stays."""
    parts = urlsplit(url)
    if parts.netloc != host:
        return url
    # With two slashes in front it would name a host again.
    return urlunsplit(("", "", "/" + parts.path.lstrip("/"), parts.query, ""))


def _reply(failed: failure.Failure) -> flask.Response:
    return Reply([failed.body], failure.STATUS_LINES[failed.status], failed.headers)


class HttpApp:
    """
    A WSGI callable: admin routes, mounted applications, processors and Flask views.

    All threads may call everything. ``flask`` is the Flask application inside.
    """

    def __init__(
        self,
        application: _Flask,
        views: Sequence[View],
        entry: Instrumentation,
        infos: Sequence[RouteInfo],
        gate: _Gate,
    ) -> None:
        self.flask = application
        self._views = views
        self._entry = entry
        self._infos = tuple(infos)
        self._gate = gate

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return self._entry(environ, start_response)

    def start(self, resources: Mapping[str, Any] | None = None) -> None:
        """
        Bind the processors to the open *resources*, and let requests in.

        Before, everything but the admin routes answers 503.

        Raises:
            ConfigError: a processor names a resource that there is not.
        """
        problems: list[str] = []
        for view in self._views:
            try:
                view.start(resources or {})
            except ConfigError as error:
                problems += error.problems
        if problems:
            raise ConfigError(*problems)
        self._gate.open = True

    def in_flight(self) -> Sequence[Work]:
        """The requests that are being answered now."""
        return self._entry.in_flight()

    def routes(self) -> list[RouteInfo]:
        """Everything that is served."""
        return list(self._infos)


class _Gate:
    """The innermost WSGI layer: sends a request where the router says, once the service has started."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self.open = False

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        exchange: Exchange = environ[EXCHANGE]
        match = exchange.match
        if environ.get("PATH_INFO", "") is not match.raw or environ["REQUEST_METHOD"] is not match.method:
            match = self._rematched(exchange)
        if not self.open and not match.endpoint.admin:
            raise ServiceUnavailable({"error": "the service is starting"}, headers={"Retry-After": "1"})
        return match.endpoint.application(environ, start_response)

    def _rematched(self, exchange: Exchange) -> Match:
        """A middleware rewrote path or method: what it made of them counts."""
        environ = exchange.environ
        match = exchange.match = self._router.match(environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""))
        exchange.operation.instrument = match.endpoint.instrument(match.method)
        return match


class _NoAdmin:
    """The admin side of an application without a service around it."""

    def alive(self) -> Verdict:
        return Verdict(True)

    ready = alive

    def components(self) -> Sequence[Mapping[str, Any]]:
        return ()


def build(
    settings: HttpSettings | None = None,
    *,
    routes: Iterable[Route] = (),
    blueprints: Iterable[flask.Blueprint] = (),
    mounts: Mapping[str, Application] | None = None,
    middlewares: Iterable[Callable[[Application], Application]] = (),
    admin: Admin | None = None,
    debug_authenticator: Authenticator | None = None,
    name: str = "service",
    version: str = "dev",
) -> HttpApp:
    """
    The WSGI callable of a service. Opens nothing and starts nothing; `HttpApp.start` lets requests in.

    Args:
        routes: processors.
        blueprints: Flask's own.
        mounts: prefix → WSGI application, which sees the prefix in ``SCRIPT_NAME``.
        middlewares: ``app -> app`` around everything but the instrumentation, the first one outermost.
        admin: what the admin routes ask.
        debug_authenticator: who may see ``/debug``, wherever the request comes from.

    Raises:
        ConfigError: routes clash, or cannot be registered; all of them at once.
    """
    settings = settings or HttpSettings()
    mounts = mounts or {}
    application = _Flask("patron.http", static_folder=None)
    application.config["PROPAGATE_EXCEPTIONS"] = False
    routes = tuple(routes)
    if strange := [f"{route!r} is no Route" for route in routes if not isinstance(route, Route)]:
        raise ConfigError(*strange)
    views = [View(route) for route in routes]
    problems = [*_registered(application, views), *_blueprint_problems(application, blueprints)]
    admin_endpoints = endpoints(
        settings, admin or _NoAdmin(), name=name, version=version, debug_authenticator=debug_authenticator
    )
    infos = [*_flask_infos(application), *_mount_infos(mounts), *_admin_infos(admin_endpoints)]
    problems += [*_clashes(infos), *_mount_problems(mounts, infos)]
    if problems:
        raise ConfigError(*problems)
    router = Router(
        application.wsgi_app,
        application.url_map,
        admin_endpoints,
        {prefix: Endpoint(f"{prefix}/*", _mounted(prefix, app)) for prefix, app in mounts.items()},
    )
    gate = _Gate(router)
    inner: Application = gate
    for middleware in reversed(tuple(middlewares)):
        inner = middleware(inner)
    return HttpApp(application, views, Instrumentation(inner, router, settings), infos, gate)


def _registered(application: _Flask, views: Sequence[View]) -> Iterator[str]:
    for view in views:
        route = view.route
        endpoint = route.endpoint
        if route.name in application.view_functions:
            yield f"route {route.method} {route.path}: its name {route.name!r} is taken: choose another"
        while endpoint in application.view_functions:
            endpoint += "'"  # registered nevertheless, so that a clash of paths is reported too
        try:
            application.add_url_rule(route.path, endpoint, view, methods=[route.method])
        except (ValueError, LookupError) as error:
            yield f"route {route.method} {route.path}: {error}"


def _blueprint_problems(application: _Flask, blueprints: Iterable[flask.Blueprint]) -> Iterator[str]:
    for blueprint in blueprints:
        try:
            application.register_blueprint(blueprint)
        except (ValueError, LookupError, AssertionError, TypeError, AttributeError) as error:
            yield f"blueprint {getattr(blueprint, 'name', blueprint)!r}: {error}"


def _clashes(infos: Sequence[RouteInfo]) -> Iterator[str]:
    admin = {info.path for info in infos if info.kind == "admin"}
    own = [info for info in infos if info.kind != "admin"]
    yield from clashes([(info.method, info.path, info.handler) for info in own])
    for info in own:
        if info.path in admin:
            yield f"{info.handler}: {info.path} is an admin route: give it another path, or set admin_prefix"


def _mounted(prefix: str, application: Application) -> Application:
    def mounted(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + path[: len(prefix)]
        environ["PATH_INFO"] = path[len(prefix) :]
        return application(environ, start_response)

    return mounted


def _mount_problems(mounts: Mapping[str, Application], infos: Sequence[RouteInfo]) -> Iterator[str]:
    for prefix, application in _unchecked(mounts):
        yield from (f"mount {prefix!r}: {problem}" for problem in path_problems(prefix))
        if prefix.endswith("/") or "<" in prefix or not prefix.isascii():
            yield f"mount {prefix!r}: a prefix is plain ASCII such as /legacy, without a / at its end"
        if not callable(application):
            yield f"mount {prefix!r}: {application!r} is no WSGI application"
        for info in infos:
            if info.kind in ("processor", "view") and (info.path + "/").startswith(prefix + "/"):
                yield f"route {info.method} {info.path}: hidden by the mount {prefix!r}: move one of them"


def _unchecked(mounts: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    return mounts.items()


def _flask_infos(application: _Flask) -> Iterator[RouteInfo]:
    for rule in application.url_map.iter_rules():
        view = application.view_functions.get(rule.endpoint)
        route = view.route if isinstance(view, View) else None
        for method in sorted(_own_methods(rule.methods or set(), route)):
            yield _info(method, rule.rule, rule.endpoint, view, route)


def _own_methods(methods: Iterable[str], route: Route | None) -> Iterable[str]:
    """The methods that were asked for, without those that Flask adds: HEAD to GET, OPTIONS to all."""
    if route is not None:
        return [route.method]
    chosen = set(methods) & set(METHODS)
    return chosen - {"OPTIONS"} - ({"HEAD"} if "GET" in chosen else set()) or chosen


def _info(method: str, path: str, endpoint: str, view: Any, route: Route | None) -> RouteInfo:
    if route is None:
        return RouteInfo(method, path, endpoint, "view", _named(view))
    authenticator = type(route.authenticator).__name__ if route.authenticator is not None else None
    return RouteInfo(method, path, endpoint, "processor", _named(route.processor), authenticator)


def _mount_infos(mounts: Mapping[str, Application]) -> Iterator[RouteInfo]:
    for prefix, application in mounts.items():
        yield RouteInfo("*", f"{prefix}/*", prefix, "mount", _named(application))


def _admin_infos(admin: Mapping[str, Endpoint]) -> Iterator[RouteInfo]:
    for path in admin:
        yield RouteInfo("GET", path, f"admin {path}", "admin", "patron")


def _named(what: Any) -> str:
    name = getattr(what, "__qualname__", None) or type(what).__qualname__
    return f"{getattr(what, '__module__', '?')}:{name}"
