"""
The plug-in for Flask applications that exist already.

::

    app = flask.Flask(__name__)
    Patron(app, version="1.4.0")

The application stays as it is, under any WSGI server; around it there are correlation, metrics,
spans, an access log and the admin routes. `patron_blueprint` has the admin routes alone.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flask

from patron import config, http
from patron.alone import Alone
from patron.component import Component
from patron.correlation import CorrelationSettings
from patron.errors import ConfigError
from patron.health import Check
from patron.http import HttpSettings
from patron.http import plugin as web
from patron.http.blueprint import patron_blueprint
from patron.live import LiveService
from patron.observe import log, rootlog
from patron.observe.log import LogSettings
from patron.observe.trace import TraceSettings
from patron.service import Service
from patron.slots import Slot
from patron.supervisor import ProcessSettings, RestartPolicy

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["FlaskService", "Patron", "Plugged", "patron_blueprint"]

#: Modules that are loaded only in a process of a server that knows nothing of components.
_STRANGERS = ("gunicorn.app.wsgiapp", "waitress.runner", "uwsgi", "mod_wsgi")


class Patron:
    """
    The plug-in. ``Patron(app, ...)`` at once, or ``patron = Patron(...)`` and ``patron.init_app(app)`` later.

    Every mistake in the arguments is reported in one `ConfigError`. They are those of `patron.Service`:

    Args:
        app: the application; None when `init_app` is called later.
        name: the field ``srv`` of every log line; ``app.name`` without one.
        version: the field ``ver``.
        components: run under Patron's worker class only; elsewhere a request is refused with a `ConfigError`.
        resources: name → factory; ``patron.current("db")`` in a view. Opened under Patron's worker
            before the first request, elsewhere by the first one; closed when the process ends.
        on_start: called once everything is open; may ask for resources by name. *on_stop* likewise, before closing.
        on_sighup: called in each worker at SIGHUP, under Patron's worker class.
        ready_checks: name → check; one that returns False, raises or hangs makes ``/ready`` a 503.
        alive_check: the same for ``/alive``.
        debug_authenticator: who may see ``/debug``, wherever the request comes from.
        error_reporter: called with every exception that the application does not handle, and its context.
        http: of these settings only the access log and the admin routes count under another server;
            *max_body* never does: bodies are Flask's to limit (``MAX_CONTENT_LENGTH``). *compression* and *cors*
            are refused: extensions of Flask's do that.
        log: how to log; without it, logging stays as the application has it.
        trace: which traces are sampled, and where their spans go.
        correlation: where correlation ids come from.
        process: how many workers, and how they end, under Patron's worker class.
        restart: component name → restart policy.
    """

    def __init__(
        self,
        app: flask.Flask | None = None,
        *,
        name: str | None = None,
        version: str = "dev",
        components: Sequence[Component] = (),
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
        self._name = name
        self._logs = log is not None
        self._options: dict[str, Any] = {
            "version": version,
            "components": components,
            "resources": resources,
            "on_start": on_start,
            "on_stop": on_stop,
            "on_sighup": on_sighup,
            "alive_check": alive_check,
            "ready_checks": ready_checks,
            "debug_authenticator": debug_authenticator,
            "error_reporter": error_reporter,
            "http": http,
            "log": log,
            "trace": trace,
            "correlation": correlation,
            "process": process,
            "restart": restart,
        }
        if app is not None:
            self.init_app(app)
        else:
            Service("application" if name is None else name, **self._options)  # finds the mistakes now

    def init_app(self, app: flask.Flask) -> None:
        """
        Plug in to *app*; it may be done for several applications.

        Opens nothing and starts nothing, so it may come before a fork.

        Raises:
            ConfigError: *app* is no Flask application or has the plug-in already, an argument is wrong, or
                there are components and the server of this process cannot run them.
        """
        if not isinstance(app, flask.Flask):
            raise ConfigError(f"{app!r} is no Flask application")
        if "patron" in app.extensions:
            raise ConfigError(f"{app!r} has the plug-in already: plug in once")
        name = app.name if self._name is None else self._name
        service = FlaskService(app, name=name, **self._options)
        if service.components and _is_among_strangers():
            _refuse(service)
        if self._logs:
            log.start(name, service.version, service.log)
            _remove_default_handler(app)
        plugged = Plugged(app, partial(FlaskService, name=name, **self._options), self._logs)
        app.extensions["patron"] = plugged
        # What Patron's worker class looks for on the application that gunicorn loads.
        app.open_in_worker = plugged.open_in_worker  # type: ignore[attr-defined]


class FlaskService(Service):
    """The description of a service whose HTTP side is a Flask application with the plug-in."""

    def __init__(self, app: flask.Flask, *, name: str, **options: Any) -> None:
        self._flask = app
        super().__init__(name, **options)

    def _http_problems(self) -> list[str]:
        """What would do nothing; the routes are Flask's, and it has checked them."""
        asked = (
            (self.http.compression, "compression", "Flask-Compress"),
            (self.http.cors, "cors", "flask-cors"),
        )
        return [
            f"http.{name} is for Patron's own routes, and the answers of {self._flask.name!r} are Flask's: "
            f"leave it out, and use {extension}"
            for setting, name, extension in asked
            if setting is not None
        ]

    def build_http(self, admin: http.Admin) -> http.HttpApp:
        """The WSGI application of this service: the Flask application, with *admin* behind its admin routes."""
        return web.build(
            self._flask,
            self.http,
            admin,
            name=self.name,
            version=self.version,
            debug_authenticator=self.debug_authenticator,
            serves=self._flask.extensions["patron"].serves,
        )


class Plugged:
    """
    The plug-in in one application: ``app.extensions["patron"]``.

    It keeps no strong reference to the application: one that nobody has any more is freed at once.
    """

    def __init__(self, app: flask.Flask, describe: Callable[[flask.Flask], FlaskService], logs: bool) -> None:
        self._app = weakref.ref(app)
        self._describe = describe
        self._logs = logs
        self._layer = web.Layer(_weakly(app.wsgi_app, app), self._served, self._open)
        self._making = threading.Lock()  # guards _alone
        self._served_by: tuple[int, web.PluggedApp] | None = None  # and the process that it does so in
        self._alone: Alone | None = None
        self._replaced: dict[str, Any] = {}
        app.wsgi_app = self._layer  # type: ignore[method-assign]
        # Both are weak, so that an application that a test made is forgotten after it.
        flask.request_started.connect(self._layer.on_request, app)
        flask.got_request_exception.connect(self._layer.on_exception, app)

    @property
    def service(self) -> FlaskService:
        """The description of the whole, for ``patron run``, and for `patron.testing.Running`."""
        return self._describe(self._living())

    def _living(self) -> flask.Flask:
        app = self._app()
        if app is None:
            raise ConfigError("the application of this plug-in is gone: keep a reference to it")
        return app

    def replace(self, **resources: Any) -> None:
        """
        Hand out *resources* in the place of the ones that would be opened; for tests, before the first request.

        Raises:
            ConfigError: the application has no resource of that name.
        """
        opens = self.service.resources
        unknown = sorted(set(resources) - set(opens))
        if unknown:
            known = ", ".join(sorted(opens)) or "none"
            raise ConfigError(f"resources {unknown} cannot be replaced: the application has {known}")
        self._replaced.update(resources)

    def close(self) -> None:
        """
        Call *on_stop* and close the resources that were opened outside of Patron's worker class.

        It is called when the process ends; tests may call it earlier, and again.
        """
        with self._making:
            alone, self._alone = self._alone, None
        if alone is not None:
            alone.close()

    def open_in_worker(self, slot: Slot, metrics_directory: Path) -> LiveService:
        """Make everything live in this worker; Patron's worker class calls it, once, after the fork."""
        service = _overlaid(self.service)
        theirs = not self._logs and _logs_itself()
        live = service.open(slot=slot, metrics_directory=metrics_directory)
        if theirs:
            rootlog.remove()  # every line would be there twice
        else:
            _remove_default_handler(self._living())
        return live

    # Under another server.

    def serves(self, served: web.PluggedApp | None) -> None:
        """*served* is what serves the application in this process from now on; None: nothing does."""
        self._served_by = None if served is None else (os.getpid(), served)

    def _served(self) -> web.PluggedApp:
        process, served = self._served_by or (0, None)
        if served is not None and process == os.getpid():
            return served
        alone = self._alone
        if alone is None or alone.process != os.getpid():
            alone = self._made()
        return alone.served

    def _open(self) -> None:
        alone = self._alone
        if alone is not None and not alone.open:
            alone.start()

    def _made(self) -> Alone:
        with self._making:
            if self._alone is None or self._alone.process != os.getpid():
                service = _overlaid(self.service)
                if service.components and not self._living().testing:
                    _refuse(service)
                self._alone = Alone(service, self._replaced, self.close)
            return self._alone


def _weakly(inner: WSGIApplication, app: flask.Flask) -> WSGIApplication:
    """*inner*, without keeping *app* alive when it is just its method, as long as nobody has wrapped it."""
    if getattr(inner, "__self__", None) is not app:
        return inner
    method = weakref.WeakMethod(inner)

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return method()(environ, start_response)  # type: ignore[misc]

    return application


def _overlaid(service: Service) -> Service:
    """*service* with the ``PATRON_*`` variables on top, if there are any."""
    if not any(name.startswith("PATRON_") for name in os.environ):
        return service  # an application that is made for each test should not wait
    return config.with_environment(service)[0]


def _logs_itself() -> bool:
    """Whether somebody else has decided where the lines of all loggers go."""
    return any(not isinstance(handler, rootlog.LineHandler) for handler in logging.getLogger().handlers)


def _remove_default_handler(app: flask.Flask) -> None:
    """Flask gives its logger a handler when nobody else has one; beside ours, every line would be there twice."""
    app.logger.removeHandler(flask.logging.default_handler)


def _is_among_strangers() -> bool:
    """Whether another server than ours has loaded the application, and will never run its components."""
    return "patron.gunicorn" not in sys.modules and any(name in sys.modules for name in _STRANGERS)


def _refuse(service: Service) -> None:
    names = ", ".join(component.name for component in service.components)
    raise ConfigError(
        f"components ({names}) run only under Patron's worker class: start it with "
        "gunicorn -c python:patron.gunicorn module:app, or leave them out"
    )
