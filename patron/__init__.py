"""
Patron: microservices in plain, blocking Python.

The public names are here; each is imported when it is first used, so that ``import patron`` costs
next to nothing and loads no driver.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from patron._version import VERSION as __version__

if TYPE_CHECKING:
    from patron.component import Component as Component
    from patron.component import Stop as Stop
    from patron.component import Verdict as Verdict
    from patron.consumer import Batch as Batch
    from patron.consumer import Consumer as Consumer
    from patron.consumer import Message as Message
    from patron.errors import ConfigError as ConfigError
    from patron.errors import PatronError as PatronError
    from patron.flask import Patron as Patron
    from patron.flask import patron_blueprint as patron_blueprint
    from patron.http import HttpSettings as HttpSettings
    from patron.http import Request as Request
    from patron.http import Response as Response
    from patron.http import Route as Route
    from patron.observe import operation as operation
    from patron.observe import span as span
    from patron.observe import traced as traced
    from patron.periodic import Periodic as Periodic
    from patron.reliability import RetryPolicy as RetryPolicy
    from patron.resources import current as current
    from patron.service import Service as Service
    from patron.sources.memory import MemorySource as MemorySource
    from patron.sources.sqlite import SqliteSource as SqliteSource
    from patron.supervisor import ProcessSettings as ProcessSettings
    from patron.supervisor import RestartPolicy as RestartPolicy

#: Public name → the module that has it.
_HOMES = {
    "Batch": "patron.consumer",
    "Component": "patron.component",
    "ConfigError": "patron.errors",
    "Consumer": "patron.consumer",
    "HttpSettings": "patron.http",
    "MemorySource": "patron.sources.memory",
    "Message": "patron.consumer",
    "Patron": "patron.flask",
    "PatronError": "patron.errors",
    "Periodic": "patron.periodic",
    "ProcessSettings": "patron.supervisor",
    "Request": "patron.http",
    "Response": "patron.http",
    "RestartPolicy": "patron.supervisor",
    "RetryPolicy": "patron.reliability",
    "Route": "patron.http",
    "Service": "patron.service",
    "SqliteSource": "patron.sources.sqlite",
    "Stop": "patron.component",
    "Verdict": "patron.component",
    "current": "patron.resources",
    "operation": "patron.observe",
    "patron_blueprint": "patron.flask",
    "span": "patron.observe",
    "traced": "patron.observe",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """Import the public *name* from its home."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"patron has no {name!r}; it has: {', '.join(sorted(__all__))}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
