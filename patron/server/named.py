"""The application that gunicorn's own command line names: a Flask application with the plug-in, or a `Service`."""

from __future__ import annotations

import os
from collections.abc import Callable

from gunicorn.config import Config
from gunicorn.errors import AppImportError
from gunicorn.util import import_app

from patron import config
from patron.errors import ConfigError
from patron.server import run
from patron.server.start import config_inspector, config_path, in_child
from patron.service import Inspection

__all__ = ["inspector", "named_application"]

#: What stands on the command line when ``PATRON_CONFIG`` says the rest.
_OURS = "patron.wsgi"


def inspector() -> run.Inspect:
    """
    A function that looks, in a throw-away child, at what this gunicorn is to serve.

    That is what ``PATRON_CONFIG`` says, else the application on the command line.

    Raises:
        SystemExit: with status 2, when neither says anything.
    """
    reference = None if os.environ.get("PATRON_CONFIG") else named_application()
    if reference is None:
        return config_inspector(config_path())

    def inspect(give_up: Callable[[], bool]) -> Inspection:
        return in_child(lambda: _inspection(reference), give_up)

    return inspect


def named_application() -> str | None:
    """``module:app`` of the command line, when it names no application of ours."""
    # Other words are gunicorn's to judge, and it has by now.
    words = Config().parser().parse_known_args()[0].args
    return words[0] if words and words[0].partition(":")[0] != _OURS else None


def _inspection(reference: str) -> Inspection:
    try:
        found = import_app(reference)
    except AppImportError as error:
        raise ConfigError(f"{reference!r} cannot be loaded: {error}") from error
    service, warnings = config.with_environment(config.service_of(found, reference))
    return service.inspect(warnings)
