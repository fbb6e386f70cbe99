"""A Flask application with the plug-in, in one process of a server that knows nothing of Patron."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from patron import correlation, observe
from patron import resources as registry
from patron.component import Verdict
from patron.correlation import CorrelationSettings
from patron.health import Checks
from patron.live import opened
from patron.observe import trace

if TYPE_CHECKING:
    from patron.http.plugin import PluggedApp
    from patron.service import Service

__all__ = ["Alone"]


class Alone:
    """
    What is live of *service* in this process. All threads use it.

    Making one begins to observe, and opens nothing; `start` does. *replaced* is handed out in the place of
    the resources of these names; *at_exit* is called when the process ends, if there is something to close.
    """

    def __init__(self, service: Service, replaced: Mapping[str, Any], at_exit: Callable[[], None]) -> None:
        self.process = os.getpid()
        self.open = False  # whether `start` has done its work, and `close` has not
        self._service = service
        self._at_exit = at_exit
        self._factories: dict[str, Callable[..., Any]] = {
            **service.resources,
            **{name: partial(_lent, value) for name, value in replaced.items()},
        }
        self._opening = threading.Lock()  # guards open, resources and _stack
        self.resources = registry.Resources()
        self._stack = ExitStack()
        self._alive = Checks({"alive": service.alive_check} if service.alive_check else {})
        self._checks = Checks(
            {name: partial(self._check, check) for name, check in service.ready_checks.items()}
        )
        self._tracing = _observe(service)
        if self._tracing is not None or self._factories or service.on_stop:
            atexit.register(at_exit)
        self.served: PluggedApp = service.build_http(self)  # type: ignore[assignment]

    def start(self) -> None:
        """
        Open the resources and run the hooks, once; another thread that calls meanwhile waits.

        Raises:
            Exception: of a factory or a hook; what was open is closed, and the next request tries again.
        """
        with self._opening:
            if self.open:
                return
            try:
                self._open_all()
            except BaseException:
                try:
                    self._stack.close()
                finally:
                    self.resources.clear()
                raise
            self.served.resources = self.resources or None
            self.served.start(self.resources)
            self.open = True

    def _open_all(self) -> None:
        for name, factory in self._factories.items():
            bound = registry.bind(factory, self.resources, given=0)
            self.resources[name] = self._stack.enter_context(opened(name, bound))
        if self.resources:
            registry.install(self.resources)  # for threads that views start; they see the last application's
        self._run(self._service.on_start)

    def _run(self, hooks: Sequence[Callable[..., Any]]) -> None:
        with registry.use(self.resources):
            for hook in hooks:
                registry.bind(hook, self.resources, given=0)()

    def close(self) -> None:
        """Run the stop hooks and close the resources in reverse order; send the spans that are left."""
        atexit.unregister(self._at_exit)
        if self.process != os.getpid():
            return
        with self._opening:
            try:
                if self.open:
                    self._close_all()
            finally:
                self.open = False
                if self._tracing is not None and trace.backend is self._tracing:
                    trace.stop(1.0)

    def _close_all(self) -> None:
        self.served.close()
        try:
            self._run(self._service.on_stop)
        finally:
            self._stack.close()

    # What the admin routes ask.

    def alive(self) -> Verdict:
        return self._alive.verdict()

    def ready(self) -> Verdict:
        try:
            self.start()
        except Exception as error:  # noqa: BLE001 - user code: a resource that does not open is a no
            return Verdict(False, (f"resources cannot be opened: {type(error).__name__}: {error}",))
        return self._checks.verdict()

    def _check(self, check: Callable[..., object]) -> object:
        return registry.bind(check, self.resources, given=0)()

    def components(self) -> Sequence[Mapping[str, Any]]:
        return ()


def _lent(value: Any) -> Iterator[Any]:
    """A resource that is the test's own: a generator, so that nothing of it is closed."""
    yield value


def _observe(service: Service) -> trace.Backend | None:
    """
    Begin to observe, with what no other application in this process has settled before.

    Returns what sends the spans, when nothing did so yet.
    """
    if service.error_reporter is not None:
        observe.set_error_reporter(service.error_reporter)
    if service.correlation != CorrelationSettings():
        correlation.configure(service.correlation)
    if trace.backend is not None:
        return None
    trace.start(service.name, service.version, service.trace)
    return trace.backend
