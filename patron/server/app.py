"""The WSGI application that a gunicorn worker, or another WSGI server, loads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from patron.errors import ConfigError
from patron.live import LiveService
from patron.service import Service
from patron.slots import Slot

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["ServiceApp", "refuse_components"]


class ServiceApp:
    """
    A WSGI callable for a service that is described by what *build* returns.

    Our worker class opens the whole service with `open_in_worker`. Any other WSGI server calls it
    like an application: it then opens at the first request, and only a service without components
    can, because nothing supervises them there.
    """

    def __init__(self, build: Callable[[], Service]) -> None:
        self._build = build
        self._opening = threading.Lock()  # guards _live
        self._live: LiveService | None = None

    def open_in_worker(self, slot: Slot, metrics_directory: Path) -> LiveService:
        """Build the service and make it live in this worker; called once, by its main thread."""
        self._live = self._build().open(slot=slot, metrics_directory=metrics_directory)
        return self._live

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        live = self._live or self._open_alone()
        return live.app(environ, start_response)

    def _open_alone(self) -> LiveService:
        with self._opening:
            if self._live is None:
                service = self._build()
                refuse_components(service)
                live = service.open()
                live.start()
                live.started.wait(service.process.grace)
                self._live = live
            return self._live


def refuse_components(service: Service) -> None:
    """
    Let *service* run without Patron's worker class only when it has no components.

    Raises:
        ConfigError: it has some; the message says how to run them.
    """
    names = ", ".join(component.name for component in service.components)
    if names:
        raise ConfigError(
            f"components ({names}) run only under Patron's worker class: use 'patron run', or "
            "gunicorn -c python:patron.gunicorn patron.wsgi:app"
        )
