"""A service: the description that is made before the fork, and what is live of it in one worker."""

from __future__ import annotations

import inspect
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from patron import http, observe
from patron import resources as registry
from patron.component import Component, Verdict, Work
from patron.correlation import CorrelationSettings
from patron.errors import ConfigError, ServiceError
from patron.health import Check, Checks
from patron.http import HttpSettings, Route
from patron.observe import log
from patron.observe.log import Format, Level, LogSettings
from patron.observe.trace import TraceSettings
from patron.periodic import Periodic
from patron.slots import Slot, run_directory
from patron.supervisor import ProcessSettings, RestartPolicy, Supervisor

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["Inspection", "LiveService", "Service"]

#: Seconds between two publications of a worker's state to the others.
PUBLISH_INTERVAL = 0.5
#: Seconds after which a worker that publishes nothing counts as not ready.
STALE_AFTER = 10.0


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
        resources: name → factory, opened after the fork, before the components, in this order, and
            closed in reverse. A factory may be a generator function, or return something with ``close()``.
        on_start: called once everything is open; may ask for resources by name. *on_stop* likewise, before closing.
        on_sighup: called in each worker at SIGHUP; without it gunicorn reloads.
        ready_checks: name → check; one that returns False, raises or hangs makes the service not ready.
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
        resources: Mapping[str, Callable[..., Any]] | None = None,
        on_start: Sequence[Callable[..., Any]] = (),
        on_stop: Sequence[Callable[..., Any]] = (),
        on_sighup: Callable[[], Any] | None = None,
        alive_check: Check | None = None,
        ready_checks: Mapping[str, Check] | None = None,
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

    def problems(self) -> list[str]:
        """Every mistake in the description that can be seen without opening anything."""
        return [
            *_name_problems(self.name),
            *_component_problems(self.components, self.restart),
            *_callable_problems(self),
            *_injection_problems(self),
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
            admin=admin,
            debug_authenticator=self.debug_authenticator,
            name=self.name,
            version=self.version,
        )

    def inspect(self, warnings: Sequence[str] = ()) -> Inspection:
        """What the parent process must know to start the workers."""
        own = self.http
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
            problems.append(f"{component!r} is no component: it needs a name and run(stop)")
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


def _callable_problems(service: Service) -> list[str]:
    named: list[tuple[str, Any]] = [
        *((f"resource {name!r}", factory) for name, factory in service.resources.items()),
        *((f"ready check {name!r}", check) for name, check in service.ready_checks.items()),
        *(("on_start hook", hook) for hook in service.on_start),
        *(("on_stop hook", hook) for hook in service.on_stop),
        *(("middleware", middleware) for middleware in service.middlewares),
    ]
    return [f"{what} is {value!r}, which cannot be called" for what, value in named if not callable(value)]


def _injection_problems(service: Service) -> list[str]:
    """Processors and hooks that ask for a resource that the service does not have."""
    wants: list[tuple[str, Any, int]] = [
        *((f"{r.method} {r.path}", r.processor, 1) for r in service.routes if isinstance(r, Route)),
        *(
            (f"component {c.name}", getattr(c, "processor", None), 1)
            for c in service.components
            if hasattr(c, "name")
        ),
        *((f"component {c.name}", c.function, 0) for c in service.components if isinstance(c, Periodic)),
        *(("on_start hook", hook, 0) for hook in service.on_start),
        *(("on_stop hook", hook, 0) for hook in service.on_stop),
        *((f"resource {name!r}", factory, 0) for name, factory in service.resources.items()),
    ]
    known = ", ".join(sorted(service.resources)) or "none"
    return [
        f"{what} asks for {name!r}, which is no resource (there are: {known}): add it under 'resources'"
        for what, function, given in wants
        if callable(function)
        for name in registry.wanted_names(function, given=given)
        if name not in service.resources
    ]


@dataclass(eq=False, slots=True)
class _Step:
    """One thing that runs user code in a helper thread, named for the report of abandoned work."""

    what: str
    since: float = field(default_factory=time.monotonic)
    thread: int | None = field(default_factory=threading.get_ident)


class LiveService:
    """
    What is live of a service in one worker: its WSGI application, its resources, its components.

    The owner (the worker's main thread, or `patron.testing.Running`) calls `start`, `begin_stop`,
    `stop` and `close`, none of which blocks on user code; *on_end* tells it, from another thread,
    that the service ends by itself.
    """

    def __init__(
        self,
        service: Service,
        factories: Mapping[str, Callable[..., Any]],
        *,
        slot: Slot | None,
        metrics_directory: Path | None,
    ) -> None:
        self.service = service
        self._factories = factories
        self.slot = slot
        self._run_directory = metrics_directory.parent if metrics_directory else None
        self.on_end: Callable[[str], None] = lambda reason: None
        observe.start(
            service.name,
            service.version,
            log=service.log,
            trace=service.trace,
            correlation=service.correlation,
            slot=slot.index if slot else 0,
            metrics_directory=metrics_directory,
            error_reporter=service.error_reporter,
        )
        self.app = service.build_http(_Admin(self))
        self.resources = registry.Resources()
        self.supervisor = Supervisor(
            service.components,
            restart=service.restart,
            on_end=lambda name: self.on_end(f"component {name} ended"),
        )
        self.draining = False
        self.started = threading.Event()
        self._stack = ExitStack()
        self._step: _Step | None = None
        self._own_errors: list[BaseException] = []
        self._checks = Checks(service.ready_checks)
        self._alive = Checks({"alive": service.alive_check} if service.alive_check else {})
        self._threads: list[threading.Thread] = []
        self._published = threading.Event()  # set: publish now
        log.on_fatal(self._fatal)

    # Starting.

    def start(self) -> None:
        """Open the resources, run the hooks and start the components, in a thread; returns at once."""
        self._spawn("patron-start", self._boot)
        if self.slot is not None:
            self._spawn("patron-state", self._publish_states)

    def _spawn(self, name: str, target: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=target, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _boot(self) -> None:
        run_directory.set(self._run_directory)  # the components' threads start in copies of this context
        try:
            self._open_resources()
            if not self.supervisor.stop_signal.is_set():
                self._start_components()
        except BaseException as error:  # noqa: BLE001 - the edge of the thread: keep it for the owner
            self._fail(f"{self._step.what if self._step else 'start'} failed", error)
        finally:
            self._step = None
            self._published.set()

    def _open_resources(self) -> None:
        for name, factory in self._factories.items():
            if self.supervisor.stop_signal.is_set():
                return
            self._step = _Step(f"opening resource {name}")
            bound = registry.bind(factory, self.resources, given=0)
            self.resources[name] = self._stack.enter_context(_opened(name, bound))
        registry.install(self.resources)

    def _start_components(self) -> None:
        self._step = _Step("binding the routes")
        self.app.start(self.resources)
        with registry.use(self.resources):
            for hook in self.service.on_start:
                self._step = _Step(f"on_start hook {_named(hook)}")
                registry.bind(hook, self.resources, given=0)()
            self.supervisor.start()
        self.started.set()
        log.info(
            "service started",
            components=[d["name"] for d in self.supervisor.describe()],
            routes=len(self.service.routes),
            port=self.service.http.port,
        )

    def _fatal(self, event: str) -> None:
        """Somebody logged with ``fatal``: the service ends with status 1, through its stop budget."""
        self._own_errors.append(ServiceError(f"fatal: {event}"))
        self.on_end(f"fatal: {event}")

    def _fail(self, reason: str, error: BaseException) -> None:
        failure = ServiceError(f"{reason}: {type(error).__name__}: {error}")
        failure.__cause__ = error
        self._own_errors.append(failure)
        log.error("service failed", reason=reason, exc_info=error)
        self.on_end(reason)

    # Being asked.

    def local_verdict(self) -> Verdict:
        """Whether this worker is ready, without the custom checks."""
        if self.draining:
            return Verdict(False, ("draining",))
        if not self.started.is_set():
            return Verdict(False, ("starting",))
        return self.supervisor.ready()

    def ready(self) -> Verdict:
        """Whether the whole service is ready: this worker, its checks, and every other worker."""
        parts = [self.local_verdict(), *self._other_verdicts()]
        if parts[0].ok:
            parts.append(self._checks.verdict())
        reasons = tuple(reason for part in parts for reason in part.reasons)
        return Verdict(all(part.ok for part in parts), reasons)

    def _other_verdicts(self) -> Iterator[Verdict]:
        if self.slot is None:
            return
        if missing := self.slot.board.missing():
            yield Verdict(False, (f"{missing} workers are not started yet",))
        for state in self.slot.board.states():
            if state.slot == self.slot.index or state.draining:
                continue
            stale = state.age > STALE_AFTER
            reasons = ("says nothing any more",) if stale else state.reasons
            yield Verdict(
                state.ready and not stale, tuple(f"worker {state.pid}: {reason}" for reason in reasons)
            )

    def alive(self) -> Verdict:
        """Whether the process should go on living; dependencies have no say in it."""
        return self._alive.verdict()

    def describe(self) -> list[Mapping[str, Any]]:
        """The components of every worker."""
        own = [{"worker": os.getpid(), **component} for component in self.supervisor.describe()]
        if self.slot is None:
            return [*own]
        others = [s for s in self.slot.board.states() if s.slot != self.slot.index]
        return [*own, *({"worker": s.pid, **component} for s in others for component in s.components)]

    def _publish_states(self) -> None:
        while not self.supervisor.stop_signal.is_set():
            self.publish()
            self._published.wait(PUBLISH_INTERVAL)
            self._published.clear()

    def publish(self) -> None:
        """Tell the other workers how this one is."""
        if self.slot is None:
            return
        verdict = self.local_verdict()
        self.slot.publish(
            ready=verdict.ok,
            reasons=verdict.reasons,
            draining=self.draining,
            components=tuple(self.supervisor.describe()),
        )

    # Stopping.

    def begin_stop(self) -> None:
        """Say not ready from now on; everything goes on working."""
        self.draining = True
        self._published.set()

    def stop(self, deadline: float) -> None:
        """Stop every intake at once; *deadline* (monotonic seconds) is when the budget is over."""
        self.draining = True
        self.supervisor.stop(deadline)
        self._published.set()

    def working(self) -> bool:
        """Whether something other than HTTP is still at work: the start, a hook, a component."""
        return self.supervisor.running() or any(thread.is_alive() for thread in self._threads)

    def close(self) -> Callable[[], bool]:
        """
        Run the stop hooks and close the resources in reverse order, in a thread.

        Returns at once, a function that tells whether that is done.
        """
        closer = self._spawn("patron-close", self._close)
        return lambda: not closer.is_alive()

    def _close(self) -> None:
        with registry.use(self.resources):
            for hook in self.service.on_stop if self.started.is_set() else ():
                self._guarded(f"on_stop hook {_named(hook)}", registry.bind(hook, self.resources, given=0))
        self._guarded("closing resources", self._stack.close)
        log.on_fatal(None)
        self._step = None

    def _guarded(self, what: str, call: Callable[[], Any]) -> None:
        self._step = _Step(what)
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - user code: report it and go on closing
            failure = ServiceError(f"{what} failed: {type(error).__name__}: {error}")
            failure.__cause__ = error
            self._own_errors.append(failure)
            log.error("service failed", reason=what, exc_info=error)

    def call_sighup(self) -> None:
        """Run the SIGHUP hook in a thread of its own; its error is logged and changes nothing."""
        hook = self.service.on_sighup
        if hook is not None:
            threading.Thread(target=self._sighup, args=(hook,), name="patron-sighup", daemon=True).start()

    def _sighup(self, hook: Callable[[], Any]) -> None:
        log.info("SIGHUP received", hook=_named(hook))
        try:
            hook()
        except Exception as error:  # noqa: BLE001 - user code: the service goes on
            log.error("SIGHUP hook failed", exc_info=error)

    def in_flight(self) -> list[Work]:
        """Everything that is still being worked on: requests, components, hooks."""
        step = self._step
        own = [Work(step.what, step.since, step.thread)] if step is not None else []
        return [*self.app.in_flight(), *self.supervisor.in_flight(), *own]

    def errors(self) -> list[BaseException]:
        """Every error so far, one for each component, resource or hook that failed."""
        return [*self._own_errors, *self.supervisor.errors()]


class _Admin:
    """The live service as its admin routes see it."""

    def __init__(self, live: LiveService) -> None:
        self._live = live

    def alive(self) -> Verdict:
        return self._live.alive()

    def ready(self) -> Verdict:
        return self._live.ready()

    def components(self) -> Sequence[Mapping[str, Any]]:
        return self._live.describe()


@contextmanager
def _opened(name: str, factory: Callable[[], Any]) -> Iterator[Any]:
    """What *factory* makes, closed at the end: a generator function is run on, others have ``close()`` called."""
    if inspect.isgeneratorfunction(getattr(factory, "func", factory)):
        with contextmanager(factory)() as value:
            yield value
        return
    value = factory()
    try:
        yield value
    finally:
        close = getattr(value, "close", None)
        if callable(close):
            log.debug("resource closes", resource=name)
            close()


def _named(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", function))
