"""
The WSGI application of the service that ``PATRON_CONFIG`` describes.

Importing it loads nothing: the service is built in the worker that serves it.
"""

from __future__ import annotations

from patron.server.app import ServiceApp
from patron.server.start import config_service_from_environment

__all__ = ["app"]

app = ServiceApp(config_service_from_environment)
