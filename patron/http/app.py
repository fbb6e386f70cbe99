"""The WSGI callable of a service: one Flask application behind the instrumentation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import flask
from werkzeug.routing import Rule

from patron.component import Verdict, Work
from patron.errors import ConfigError, ServiceUnavailable
from patron.http.admin import Admin, endpoints
from patron.http.auth import Authenticator
from patron.http.body import guard
from patron.http.compression import Compressing
from patron.http.dispatch import Dispatcher
from patron.http.folder import Folder
from patron.http.instrument import EXCHANGE, Exchange, Instrumentation
from patron.http.intake import Intake, Intakes
from patron.http.listing import admin_infos, flask_infos, mount_infos
from patron.http.processor import View
from patron.http.router import UNMATCHED, Application, Endpoint, Match, Router
from patron.http.routes import SAFE, Route, RouteInfo, clashes, path_problems
from patron.http.settings import HttpSettings
from patron.http.static import StaticFiles
from patron.http.static import infos as static_infos
from patron.http.static import problems as static_problems
from patron.observe import log

if TYPE_CHECKING:
    from patron.http.caching.front import Front

__all__ = ["HttpApp", "build"]


class HttpApp:
    """
    A WSGI callable: admin routes, mounted applications, processors and Flask views.

    All threads may call everything. ``flask`` is the Flask application inside.
    """

    def __init__(
        self,
        application: Dispatcher,
        views: Sequence[View],
        fronts: Sequence[Front],
        entry: Instrumentation,
        infos: Sequence[RouteInfo],
        gate: _Gate,
        intakes: Intakes,
        layers: Sequence[Application] = (),
    ) -> None:
        self.flask = application
        self._views = views
        self._fronts = fronts
        self._entry = entry
        self._infos = tuple(infos)
        self._gate = gate
        self._layers = tuple(layers)
        self.intake: Callable[[str, str], Intake] = intakes.of

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return self._entry(environ, start_response)

    def start(self, resources: Mapping[str, Any] | None = None) -> None:
        """
        Bind the processors to the open *resources*, open the stores of caches and limits, and let requests in.

        Called after the fork. Before, everything but the admin routes answers 503.

        Raises:
            ConfigError: a processor names a resource that there is not, or a store cannot be used.
        """
        problems: list[str] = []
        parts: list[View | Front] = [*self._views, *self._fronts]  # a front builds on what its view has made
        for part in parts:
            try:
                part.start(resources or {})
            except ConfigError as error:
                problems += error.problems
        if problems:
            self.close()
            raise ConfigError(*problems)
        self._gate.open = True

    def close(self) -> None:
        """Close the stores that `start` opened, and what middlewares and mounts have open. May be called twice."""
        parts: list[View | Front] = [*self._fronts, *self._views]
        closing = [(part.view.route.endpoint, part.close) for part in parts]
        closing += [(repr(layer), layer.close) for layer in self._layers if hasattr(layer, "close")]
        for name, close in closing:
            try:
                close()
            except Exception as error:  # noqa: BLE001 - the others are closed nevertheless
                log.error("store could not be closed", route=name, exc_info=error)

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
        exchange.operation.become(match.endpoint.instrument(match.method))
        if match.endpoint.timeout is not None:
            exchange.limit_time(match.endpoint.timeout)
        if match.endpoint.max_body is not None:
            guard(environ, match.endpoint.max_body)
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
    static: Iterable[StaticFiles] = (),
    admin: Admin | None = None,
    debug_authenticator: Authenticator | None = None,
    name: str = "service",
    version: str = "dev",
    workers: int = 1,
) -> HttpApp:
    """
    The WSGI callable of a service. Opens nothing and starts nothing; `HttpApp.start` lets requests in.

    Args:
        routes: processors.
        blueprints: Flask's own.
        mounts: prefix → WSGI application, which sees the prefix in ``SCRIPT_NAME``.
        middlewares: ``app -> app`` around everything but the instrumentation, the first one outermost. If what
            one returns, or a mounted application, has a method ``close()``, `HttpApp.close` calls it.
        static: folders whose files are served where nothing else answers.
        admin: what the admin routes ask.
        debug_authenticator: who may see ``/debug``, wherever the request comes from.
        workers: processes that serve this application; each has its share of the limits kept in memory.

    Raises:
        ConfigError: routes clash, or cannot be registered; all of them at once.
    """
    settings = settings or HttpSettings()
    mounts = mounts or {}
    application = Dispatcher("patron.http", static_folder=None)
    application.config["PROPAGATE_EXCEPTIONS"] = False
    routes = tuple(routes)
    if strange := [f"{route!r} is no Route" for route in routes if not isinstance(route, Route)]:
        raise ConfigError(*strange)
    views = [View(route, workers, name) for route in routes]
    problems = [*_registered(application, views), *_blueprint_problems(application, blueprints)]
    admin_endpoints = endpoints(
        settings, admin or _NoAdmin(), name=name, version=version, debug_authenticator=debug_authenticator
    )
    infos = [*flask_infos(application), *mount_infos(mounts), *admin_infos(admin_endpoints)]
    static = tuple(static)
    problems += [*_clashes(infos), *_mount_problems(mounts, infos), *static_problems(static, infos)]
    if problems:
        raise ConfigError(*problems)
    fronts = _fronts(views, application, name)
    router = Router(
        partial(_endpoint, application, fronts, _writing(views, application, fronts)),
        application.url_map,
        admin_endpoints,
        {prefix: Endpoint(f"{prefix}/*", _mounted(prefix, app)) for prefix, app in mounts.items()},
        _folders(static, application),
    )
    gate = _Gate(router)
    inner: Application = gate
    layers = [*mounts.values()]
    for middleware in reversed(tuple(middlewares)):
        inner = middleware(inner)
        layers.append(inner)
    if settings.compression is not None:
        inner = Compressing(inner, settings.compression)
    return HttpApp(
        application,
        views,
        tuple(fronts.values()),
        Instrumentation(inner, router, settings, name),
        [*infos, *static_infos(static)],
        gate,
        Intakes(router, settings.max_body, routes),
        layers[::-1],
    )


def _fronts(views: Iterable[View], application: Dispatcher, service: str) -> Mapping[str, Front]:
    """By name of the route: what answers in front of Flask for the routes with a cache."""
    cached = [view for view in views if view.route.cache is not None]
    if not cached:
        return {}
    from patron.http.caching.front import Front

    # Whether something in this service can change what they keep.
    watches = any(rule.methods - SAFE for rule in application.url_map.iter_rules() if rule.methods)
    return {
        view.route.endpoint: Front(view, application.wsgi_app, service=service, watches=watches)
        for view in cached
    }


def _writing(views: Iterable[View], application: Dispatcher, fronts: Mapping[str, Front]) -> Application:
    """What answers requests that may change something: Flask, and what GET has kept is told of it."""
    if not fronts and not any(
        hasattr(each, "invalidate") for view in views for each in view.route.middlewares
    ):
        return application.wsgi_app
    from patron.http.caching.unsafe import Changing, Kept

    return Changing(application.wsgi_app, Kept(application, fronts).changed)


def _folders(static: Iterable[StaticFiles], application: Dispatcher) -> Mapping[str, Endpoint]:
    return {
        folder.prefix.rstrip("/"): Endpoint(folder.pattern, Folder(folder, application.wsgi_app))
        for folder in static
    }


def _endpoint(
    application: Dispatcher, fronts: Mapping[str, Front], writing: Application, rule: Rule | None, method: str
) -> Endpoint:
    """Where a request that matched *rule* goes; without a rule it is for Flask to refuse."""
    if rule is None:
        return Endpoint(UNMATCHED, application.wsgi_app)
    answering = application.wsgi_app if method in SAFE else writing
    view = application.view_functions.get(rule.endpoint)
    if not isinstance(view, View) or method not in (view.route.method, "HEAD"):
        return Endpoint(rule.rule, answering)  # a view of Flask's, or the OPTIONS that it answers itself
    answering = fronts.get(view.route.endpoint, answering)
    return Endpoint(rule.rule, answering, route=view.route)


def _registered(application: Dispatcher, views: Sequence[View]) -> Iterator[str]:
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


def _blueprint_problems(application: Dispatcher, blueprints: Iterable[flask.Blueprint]) -> Iterator[str]:
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
