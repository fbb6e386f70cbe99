"""
The WSGI application of the service that ``PATRON_CONFIG`` names.

Under Patron's worker class importing it loads nothing: the service is built in the worker that serves it.
Any other WSGI server runs a service without components only, which opens at its first request; what
cannot run is refused here, with a `ConfigError`, so that the server does not start with it.
"""

from __future__ import annotations

import os

from patron.errors import ConfigError
from patron.server import run
from patron.server.app import ServiceApp, refuse_components
from patron.server.start import config_service_from_environment

__all__ = ["app"]


def _is_prepared() -> bool:
    """Whether ``patron.gunicorn`` was imported before, which prepares the run."""
    try:
        run.prepared()
    except ConfigError:
        return False
    return True


def _app() -> ServiceApp:
    if _is_prepared() or not os.environ.get("PATRON_CONFIG"):
        return ServiceApp(config_service_from_environment)
    service = config_service_from_environment()
    refuse_components(service)
    return ServiceApp(lambda: service)


app = _app()
