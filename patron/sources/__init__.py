"""
Sources by name: the entry points of the group ``patron.sources``, so that any package can add a broker.

A package names its source in its metadata, and ``type: nats`` in a configuration file finds it::

    [options.entry_points]
    patron.sources =
        nats = our_nats.source:NatsSource
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from patron.errors import ConfigError

__all__ = ["lookup", "names", "reference"]

# What every installation has, also one that runs from a checkout and so has no entry points.
_BUILT_IN: Mapping[str, str] = {
    "memory": "patron.sources.memory:MemorySource",
    "sqlite": "patron.sources.sqlite:SqliteSource",
    "kafka": "patron.sources.kafka:KafkaSource",
    "amqp": "patron.sources.amqp:AmqpSource",
    "sqs": "patron.sources.sqs:SqsSource",
}


@functools.cache
def _known() -> Mapping[str, str]:
    from importlib import metadata

    found = {point.name: point.value for point in metadata.entry_points(group="patron.sources")}
    return {**found, **_BUILT_IN}


def names() -> tuple[str, ...]:
    """The names of all sources that are installed, sorted."""
    return tuple(sorted(_known()))


def reference(name: str) -> str | None:
    """The ``module:class`` of the source called *name*; None when no package brings one."""
    # Most services name no other one, and looking at every installed package takes a while.
    return _BUILT_IN.get(name) or _known().get(name)


def lookup(name: str) -> type[Any]:
    """
    The settings class of the source called *name*; imports its module.

    Raises:
        ConfigError: no package brings such a source, or it does not import. MissingExtra: its driver
            is not installed.
    """
    value = reference(name)
    if value is None:
        raise ConfigError(f"there is no source type {name!r}: there are {', '.join(names())}")
    module, _, attribute = value.partition(":")
    try:
        loaded: type[Any] = getattr(import_module(module), attribute)
    except AttributeError:
        raise ConfigError(
            f"source type {name!r} is said to be {value}, and {module} has no {attribute}"
        ) from None
    return loaded
