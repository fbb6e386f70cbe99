"""What is live of a service in one worker: resources, components, HTTP; how they start and stop."""

from __future__ import annotations

import inspect
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patron import observe
from patron import resources as registry
from patron.component import Verdict, Work
from patron.errors import ServiceError
from patron.health import Checks
from patron.observe import log
from patron.profiling import Profiler
from patron.slots import Slot, run_directory, worker_slot
from patron.supervisor import Supervisor

if TYPE_CHECKING:
    from patron.service import Service

__all__ = ["LiveService", "opened"]

#: Seconds between two publications of a worker's state to the others.
PUBLISH_INTERVAL = 0.5
#: Seconds after which a worker that publishes nothing counts as not ready.
STALE_AFTER = 10.0


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
    `stop` and `close`, none of which blocks on user code; *on_started* and *on_end* tell it, from
    another thread, that everything is started, and that the service ends by itself.
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
        self.port: int | None = (
            service.http.port
        )  # the worker knows better: gunicorn's command line may say another
        self._run_directory = metrics_directory.parent if metrics_directory else None
        self.on_end: Callable[[str], None] = lambda reason: None
        self.on_started: Callable[[], None] = lambda: None
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
        self.profiler = self._profiler()
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
        self._steps: dict[int, _Step] = {}  # each thread writes under its own ident
        self._own_errors: list[BaseException] = []
        self._checks = Checks(
            {name: partial(self._call, check) for name, check in service.ready_checks.items()}
        )
        self._alive = Checks({"alive": service.alive_check} if service.alive_check else {})
        self._threads: list[threading.Thread] = []
        self._published = threading.Event()  # set: publish now
        self._profiles_fail = False
        log.on_fatal(self._fatal)

    def _profiler(self) -> Profiler:
        if self.slot is None or self._run_directory is None:
            return Profiler()
        return Profiler(self._run_directory / "profiles", self.slot.index, self._workers)

    def _workers(self) -> dict[int, int]:
        """The workers that answer what others ask, as `_publish_states` does."""
        states = self.slot.board.states() if self.slot is not None else ()
        return {state.slot: state.pid for state in states if state.pid and not state.draining}

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
        worker_slot.set(self.slot.index if self.slot else 0)
        try:
            self._open_resources()
            if not self.supervisor.stop_signal.is_set():
                self._start_components()
        except BaseException as error:  # noqa: BLE001 - the edge of the thread: keep it for the owner
            step = self._steps.get(threading.get_ident())
            self._fail(f"{step.what if step else 'start'} failed", error)
        finally:
            self._done()
            self._published.set()

    def _open_resources(self) -> None:
        for name, factory in self._factories.items():
            if self.supervisor.stop_signal.is_set():
                return
            self._begin(f"opening resource {name}")
            bound = registry.bind(factory, self.resources, given=0)
            self.resources[name] = self._stack.enter_context(opened(name, bound))
        registry.install(self.resources)

    def _start_components(self) -> None:
        self._begin("binding the routes")
        self.app.start(self.resources)
        with registry.use(self.resources):
            for hook in self.service.on_start:
                self._begin(f"on_start hook {_named(hook)}")
                self._call(hook)
            self.supervisor.start()
        self.started.set()
        self.on_started()
        log.info(
            "service started",
            components=[d["name"] for d in self.supervisor.describe()],
            routes=sum(info.kind != "admin" for info in self.app.routes()),
            port=self.port,
        )

    def _fatal(self, event: str) -> None:
        """Somebody logged with ``fatal``: the service ends with status 1, through its stop budget."""
        self._own_errors.append(ServiceError(f"fatal: {event}"))
        self.on_end(f"fatal: {event}")

    def _fail(self, reason: str, error: BaseException) -> None:
        self._note(reason, error)
        self.on_end(reason)

    # Being asked.

    def serving(self) -> bool:
        """Whether this worker has started, and does not end."""
        return self.started.is_set() and not self.draining

    def others_serve(self) -> bool:
        """Whether another worker of the run takes requests."""
        if self.slot is None:
            return False
        others = (state for state in self.slot.board.states() if state.slot != self.slot.index)
        return any(state.serving and state.age <= STALE_AFTER for state in others)

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
        board = self.slot.board
        if missing := board.missing():
            yield Verdict(False, (f"{missing} workers are not started yet",))
        states = board.states()
        # As many serve as are wanted: those that start besides will take the place of some.
        enough = self.serving() and sum(state.serving for state in states) >= board.expected()
        for state in states:
            if state.slot == self.slot.index or state.draining or (enough and not state.serving):
                continue
            stale = state.age > STALE_AFTER
            reasons = ("says nothing any more",) if stale else state.reasons
            yield Verdict(
                state.ready and not stale, tuple(f"worker {state.pid}: {reason}" for reason in reasons)
            )

    def _call(self, function: Callable[..., Any]) -> Any:
        """What a hook or a check of the user's returns, which may ask for resources by name."""
        return registry.bind(function, self.resources, given=0)()

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
            self._answer_profiles()
            self._published.wait(PUBLISH_INTERVAL)
            self._published.clear()

    def _answer_profiles(self) -> None:
        try:
            self.profiler.poll()
        except Exception as error:  # noqa: BLE001 - whatever is in that directory, the states go on
            if not self._profiles_fail:  # it may stay so, and this is asked twice a second
                log.error("profile cannot be answered", exc_info=error)
            self._profiles_fail = True
        else:
            self._profiles_fail = False

    def publish(self) -> None:
        """Tell the other workers how this one is."""
        if self.slot is None:
            return
        tell = partial(self.slot.publish, serving=self.serving(), draining=self.draining)
        try:
            verdict = self.local_verdict()
            components = tuple(self.supervisor.describe())
            tell(ready=verdict.ok, reasons=verdict.reasons, components=components)
        except Exception as error:  # noqa: BLE001 - of a component's own words; a reload waits for this worker's
            tell(ready=False, reasons=(f"its state cannot be told: {type(error).__name__}: {error}",))

    # Stopping.

    def begin_stop(self) -> None:
        """Say not ready from now on; everything goes on working."""
        self.draining = True
        self._published.set()

    def stop(self, deadline: float) -> None:
        """Stop every intake at once; *deadline* (monotonic seconds) is when the budget is over."""
        self.draining = True
        self.profiler.stop()
        self.supervisor.stop(deadline)
        self._published.set()

    def working(self) -> bool:
        """Whether something other than HTTP is still at work: the start, a hook, a component."""
        threads = any(thread.is_alive() for thread in self._threads)
        return self.supervisor.running() or threads or self.profiler.working()

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
                self._guarded(f"on_stop hook {_named(hook)}", partial(self._call, hook))
        self._guarded("closing the stores of HTTP", self.app.close)
        self._guarded("closing resources", self._stack.close)
        log.on_fatal(None)
        self._done()

    def _guarded(self, what: str, call: Callable[[], Any]) -> None:
        self._begin(what)
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - user code: report it and go on closing
            self._note(f"{what} failed", error)

    def _begin(self, what: str) -> None:
        """From now on this thread runs user code that may hang, or raise."""
        self._steps[threading.get_ident()] = _Step(what)

    def _done(self) -> None:
        self._steps.pop(threading.get_ident(), None)

    def _note(self, reason: str, error: BaseException) -> None:
        """Keep *error* for the end, where it is shown with its traceback."""
        failure = ServiceError(f"{reason}: {type(error).__name__}: {error}")
        failure.__cause__ = error
        self._own_errors.append(failure)
        log.error(reason, error=f"{type(error).__name__}: {error}")

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
        own = [Work(step.what, step.since, step.thread) for step in list(self._steps.values())]
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

    def profiler(self) -> Profiler:
        return self._live.profiler


@contextmanager
def opened(name: str, factory: Callable[[], Any]) -> Iterator[Any]:
    """What *factory* makes, closed at the end: a generator is run on, others have ``close()`` called."""
    value = factory()
    if inspect.isgenerator(value):
        with contextmanager(lambda: value)() as made:
            yield made
        return
    try:
        yield value
    finally:
        close = getattr(value, "close", None)
        if callable(close):
            log.debug("resource closes", resource=name)
            close()


def _named(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", function))
