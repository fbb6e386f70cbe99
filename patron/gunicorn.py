"""
Settings for your own gunicorn command, computed when this module is imported.

::

    PATRON_CONFIG=config.yaml gunicorn -c python:patron.gunicorn patron.wsgi:app
    gunicorn -c python:patron.gunicorn shop:app     # a Flask application with patron.Patron

A file of your own starts with ``from patron.gunicorn import *`` and changes what it likes; its hooks
are called beside Patron's. What stands on gunicorn's command line wins over its environment, and
that over this file. A reload (SIGHUP without a hook of the service) computes the settings again.
"""

from __future__ import annotations

import os
import sys

from patron.errors import PatronError
from patron.server import run as _run
from patron.server.named import inspector as _inspector
from patron.server.settings import gunicorn_settings as _gunicorn_settings
from patron.server.start import check_ports as _check_ports


def on_starting(server: object) -> None:
    """Test the ports before gunicorn binds them, so that one in use is one line and status 1."""
    if "GUNICORN_FD" in os.environ or "LISTEN_FDS" in os.environ:
        return  # the listeners are handed over, by a predecessor or by systemd
    addresses = [a for a in server.cfg.address if isinstance(a, tuple)]  # type: ignore[attr-defined]
    try:
        _check_ports(tuple(addresses))
    except PatronError as error:
        sys.stderr.write(f"patron: {error}\n")
        sys.exit(1)


def _prepare() -> None:
    inspect = _inspector()
    try:
        _run.prepare(inspect(lambda: False), inspect)
    except PatronError as error:
        _run.report(error)
        sys.exit(2)
    for warning in _run.prepared().warnings:
        sys.stderr.write(f"patron: warning: {warning}\n")


_prepare()
globals().update(_gunicorn_settings(_run.prepared()))
__all__ = ["on_starting", *_gunicorn_settings(_run.prepared())]
