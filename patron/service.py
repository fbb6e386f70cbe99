"""The description of a service, made before the fork: settings and factories, nothing live."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

from patron import calling, extras, http
from patron import resources as registry
from patron.cache.spec import resource_problems
from patron.component import Component, Verdict
from patron.correlation import CorrelationSettings
from patron.errors import ConfigError
from patron.health import Check
from patron.http import HttpSettings, Route, StaticFiles
from patron.live import LiveService
from patron.observe.log import Format, Level, LogSettings
from patron.observe.trace import TraceSettings
from patron.periodic import Periodic
from patron.slots import Slot
from patron.supervisor import ProcessSettings, RestartPolicy

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["Inspection", "Service"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """
    What the parent process must know of a service; JSON values only, so that a throw-away child can send it.

    *ports* are the ones to test before the first fork, HTTP's first, as ``(host, port)``.
    """

    name: str
    version: str
    host: str
    port: int
    threads: int
    backlog: int
    max_connections: int
    keepalive: float
    max_request_line: int
    max_header_fields: int
    max_header: int
    tls: Mapping[str, str | None] | None
    workers: int
    grace: float
    drain: float
    max_worker_deaths: int
    death_window: float
    run_directory: str | None
    has_sighup_hook: bool
    log_level: Level
    log_format: Format
    log_fields: Mapping[str, Any]
    ports: tuple[tuple[str, int], ...]
    warnings: tuple[str, ...] = ()


class Service:
    """
    The description of a service: settings and factories, nothing live.

    Made once, before the fork; `open` makes it live in a worker. Every mistake in the arguments is
    reported in one `ConfigError`.

    Args:
        name: required; the field ``srv`` of every log line.
        version: the field ``ver``.
        components: objects with ``name`` and ``run(stop)``.
        routes: what the HTTP component serves beside the admin routes.
        static: folders whose files are served where no route matches.
        resources: name → factory, opened after the fork, before the components, in this order, and
            closed in reverse. A factory may be a generator function, or return something with ``close()``.
        on_start: called once everything is open; may ask for resources by name. *on_stop* likewise, before closing.
        on_sighup: called in each worker at SIGHUP; without it gunicorn reloads.
        ready_checks: name → check; one that returns False, raises or hangs makes the service not ready.
            It may ask for resources by name.
        restart: component name → restart policy; without one the end of a component ends the service.
    """

    def __init__(
        self,
        name: str,
        version: str = "dev",
        *,
        components: Sequence[Component] = (),
        routes: Sequence[Route] = (),
        blueprints: Sequence[Any] = (),
        mounts: Mapping[str, WSGIApplication] | None = None,
        middlewares: Sequence[Callable[[WSGIApplication], WSGIApplication]] = (),
        static: Sequence[StaticFiles] = (),
        resources: Mapping[str, Callable[..., Any]] | None = None,
        on_start: Sequence[Callable[..., Any]] = (),
        on_stop: Sequence[Callable[..., Any]] = (),
        on_sighup: Callable[[], Any] | None = None,
        alive_check: Check | None = None,
        ready_checks: Mapping[str, Callable[..., object]] | None = None,
        debug_authenticator: Any = None,
        error_reporter: Callable[..., Any] | None = None,
        http: HttpSettings | None = None,
        log: LogSettings | None = None,
        trace: TraceSettings | None = None,
        correlation: CorrelationSettings | None = None,
        process: ProcessSettings | None = None,
        restart: Mapping[str, RestartPolicy] | None = None,
    ) -> None:
        self.name = name
        self.version = version or "dev"
        self.components = tuple(components)
        self.routes = tuple(routes)
        self.blueprints = tuple(blueprints)
        self.mounts = dict(mounts or {})
        self.middlewares = tuple(middlewares)
        self.static = tuple(static)
        self.resources = dict(resources or {})
        self.on_start = tuple(on_start)
        self.on_stop = tuple(on_stop)
        self.on_sighup = on_sighup
        self.alive_check = alive_check
        self.ready_checks = dict(ready_checks or {})
        self.debug_authenticator = debug_authenticator
        self.error_reporter = error_reporter
        self.http = http or HttpSettings()
        self.log = log or LogSettings()
        self.trace = trace or TraceSettings()
        self.correlation = correlation or CorrelationSettings()
        self.process = process or ProcessSettings()
        self.restart = dict(restart or {})
        if problems := self.problems():
            raise ConfigError(*problems)

    def with_settings(self, **settings: Any) -> Self:
        """
        A copy of the description with other *settings*: ``http``, ``log``, ``trace``, ``correlation``, ``process``.

        Raises:
            ConfigError: there is no such setting, or it does not go together with the rest.
        """
        known = ("http", "log", "trace", "correlation", "process")
        if unknown := sorted(set(settings) - set(known)):
            raise ConfigError(f"{unknown} are no settings of a service: there are {', '.join(known)}")
        changed = copy.copy(self)
        vars(changed).update(settings)
        if problems := changed.problems():
            raise ConfigError(*problems)
        return changed

    def problems(self) -> list[str]:
        """Every mistake in the description that can be seen without opening anything."""
        return [
            *_name_problems(self.name),
            *_component_problems(self.components, self.restart),
            *_call_problems(self),
            *_store_problems(self),
            *self._http_problems(),
        ]

    def _http_problems(self) -> list[str]:
        try:
            self.build_http(_Closed())
        except ConfigError as error:
            return list(error.problems)
        return []

    def build_http(self, admin: http.Admin) -> http.HttpApp:
        """The WSGI application of this service, with *admin* behind its admin routes."""
        return http.build(
            self.http,
            routes=self.routes,
            blueprints=self.blueprints,
            mounts=self.mounts,
            middlewares=self.middlewares,
            static=self.static,
            admin=admin,
            debug_authenticator=self.debug_authenticator,
            name=self.name,
            version=self.version,
            workers=self.process.workers,
        )

    def served(self) -> list[http.RouteInfo]:
        """Every route, view, mount and folder, and the admin routes: for listings."""
        return self.build_http(_Closed()).routes()

    def inspect(self, warnings: Sequence[str] = ()) -> Inspection:
        """
        What the parent process must know to start the workers.

        Raises:
            ConfigError: the files of TLS do not hold what they should, or a package is not installed.
        """
        own = self.http
        if problems := [*(own.tls.problems() if own.tls else ()), *extras.missing(self)]:
            raise ConfigError(*problems)
        return Inspection(
            name=self.name,
            version=self.version,
            host=own.host,
            port=own.port,
            threads=own.threads,
            backlog=own.backlog,
            max_connections=own.max_connections,
            keepalive=own.keepalive,
            max_request_line=own.max_request_line,
            max_header_fields=own.max_header_fields,
            max_header=own.max_header,
            tls=asdict(own.tls) if own.tls is not None else None,
            workers=self.process.workers,
            grace=self.process.grace,
            drain=self.process.drain,
            max_worker_deaths=self.process.max_worker_deaths,
            death_window=self.process.death_window,
            run_directory=str(self.process.run_directory) if self.process.run_directory else None,
            has_sighup_hook=self.on_sighup is not None,
            log_level=self.log.level,
            log_format=self.log.format,
            log_fields=dict(self.log.fields),
            ports=((own.host, own.port), *(p for c in self.components for p in getattr(c, "ports", ()))),
            warnings=tuple(warnings),
        )

    def open(
        self,
        *,
        slot: Slot | None = None,
        metrics_directory: Path | None = None,
        replaced: Mapping[str, Callable[..., Any]] | None = None,
    ) -> LiveService:
        """
        Make the service live in this process; `LiveService.start` then opens its resources and starts it.

        Called after the fork, from the thread that will own it. *replaced* are factories that take
        the place of the resources of the same names.

        Raises:
            ConfigError: *replaced* names a resource that the service does not have.
        """
        unknown = sorted(set(replaced or {}) - set(self.resources))
        if unknown:
            known = ", ".join(sorted(self.resources)) or "none"
            raise ConfigError(f"resources {unknown} cannot be replaced: the service has {known}")
        factories = {**self.resources, **(replaced or {})}
        return LiveService(self, factories, slot=slot, metrics_directory=metrics_directory)

    def run(self) -> NoReturn:
        """
        Run the service under gunicorn until it is stopped; exits with status 0, 1 or 2.

        Called from the main thread of a process that has started no thread yet.
        """
        from patron.server import run_service

        run_service(self)


class _Closed:
    """The admin side of a service that is only described."""

    def alive(self) -> Verdict:
        return Verdict(False, ("not open",))

    ready = alive

    def components(self) -> Sequence[Mapping[str, Any]]:
        return ()


def _name_problems(name: object) -> list[str]:
    if isinstance(name, str) and name.strip():
        return []
    return [f"name is required: {name!r} names no service"]


def _component_problems(components: Iterable[object], restart: Mapping[str, RestartPolicy]) -> list[str]:
    problems, names = [], set[str]()
    for component in components:
        if not isinstance(component, Component):
            problems.append(f"{calling.shown(component)} is no component: it needs a name and run(stop)")
            continue
        if component.name in names:
            problems.append(
                f"component name {component.name!r} is taken twice: names are unique in a service"
            )
        names.add(component.name)
    unknown = sorted(set(restart) - names)
    known = ", ".join(sorted(names)) or "none"
    return problems + [
        f"restart policy for {name!r}: no such component (there are: {known})" for name in unknown
    ]


@dataclass(frozen=True, slots=True)
class _Call:
    """
    A function of the user's: *where* it was given, and how Patron calls it.

    With so many arguments by place as *given* (None: that is not looked at), and with resources by
    name when it *injects*; *otherwise* says what to do about an argument that is no resource.
    """

    where: str
    function: Any
    given: int | None
    injects: bool = False
    otherwise: str = "give it a default"


def _calls(service: Service) -> Iterator[_Call]:
    for route in service.routes:
        if isinstance(route, Route):
            yield _Call(f"{route.method} {route.path}", route.processor, 1, injects=True)
    for component in service.components:
        yield from _component_calls(component)
    for name, factory in service.resources.items():
        yield _Call(
            f"resource {name!r}", factory, 0, injects=True, otherwise="fill it in (functools.partial)"
        )
    for name, check in service.ready_checks.items():
        yield _Call(f"ready check {name!r}", check, 0, injects=True)
    yield from (_Call("on_start hook", hook, 0, injects=True) for hook in service.on_start)
    yield from (_Call("on_stop hook", hook, 0, injects=True) for hook in service.on_stop)
    yield from (_Call("middleware", middleware, None) for middleware in service.middlewares)
    yield from (_Call(f"mount {prefix!r}", app, None) for prefix, app in service.mounts.items())
    optional = (("on_sighup", 0), ("alive_check", 0), ("error_reporter", 2))
    for name, given in optional:
        if (function := getattr(service, name)) is not None:
            yield _Call(name, function, given)


def _component_calls(component: object) -> Iterator[_Call]:
    if isinstance(component, Component):
        yield _Call(f"component {component.name}: run", component.run, None)
    if isinstance(component, Component) and hasattr(component, "processor"):
        yield _Call(f"component {component.name}", component.processor, 1, injects=True)
    if isinstance(component, Periodic):
        yield _Call(f"component {component.name}", component.function, 0, injects=True)


def _call_problems(service: Service) -> Iterator[str]:
    """Functions that cannot be called as Patron calls them, or ask for a resource that is not there."""
    for call in _calls(service):
        if not callable(call.function):
            yield f"{call.where} is {calling.shown(call.function)}, which cannot be called"
        elif calling.is_async(call.function):
            yield f"{call.where}: {calling.named(call.function)} {calling.IS_ASYNC}"
        elif call.given is not None:
            yield from _argument_problems(call, call.given, service.resources)


def _argument_problems(call: _Call, given: int, resources: Mapping[str, Any]) -> Iterator[str]:
    known = ", ".join(sorted(resources)) or "none"
    for name in registry.wanted_names(call.function, given=given) if call.injects else ():
        if name not in resources:
            yield (
                f"{call.where} asks for {name!r}, which is no resource (there are: {known}): "
                f"add it under 'resources', or {call.otherwise}"
            )
    if misfit := calling.misfit(call.function, given, injects=call.injects):
        yield f"{call.where}: {misfit}"


def _store_problems(service: Service) -> Iterator[str]:
    """Routes that keep something in a resource that is not there."""
    for route in service.routes:
        stores = route.stores if isinstance(route, Route) else ()
        for problem in (each for store in stores for each in resource_problems(store, service.resources)):
            yield f"route {route.method} {route.path}: {problem}"
