"""The kinds of sources that a consumer can have: the entry points of the group ``patron.sources``."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from patron.config.names import did_you_mean, resolve
from patron.config.shapes import Choice, Shape, shape_of
from patron.errors import ConfigError, MissingExtra

__all__ = ["SOURCE", "find", "names"]

# What every installation has, also one that runs from a checkout and has no entry points.
_BUILT_IN: Mapping[str, str] = {
    "memory": "patron.sources.memory:MemorySource",
    "sqlite": "patron.sources.sqlite:SqliteSource",
}


@functools.cache
def _known() -> Mapping[str, str]:
    from importlib import metadata

    found = metadata.entry_points(group="patron.sources")
    return dict(sorted({**{point.name: point.value for point in found}, **_BUILT_IN}.items()))


def names() -> tuple[str, ...]:
    """The names of the source types, sorted."""
    return tuple(_known())


def find(name: str) -> Shape:
    """
    The shape of the source type called *name*; it imports the module of the source.

    Raises:
        ConfigError: there is no such type, or it does not import. MissingExtra: its driver is not installed.
    """
    try:
        # Most files name no other one, and looking at every installed package takes a while.
        return shape_of(_load(_BUILT_IN.get(name) or _known()[name]))
    except KeyError:
        hint = did_you_mean(name, names())
        raise ConfigError(
            f"there is no source type {name!r}{hint}: there are {', '.join(names())}{_extra(name)}"
        ) from None


def _load(value: str) -> Any:
    try:
        return resolve(value)
    except ConfigError as error:
        if isinstance(error.__cause__, MissingExtra):
            raise error.__cause__ from None
        raise


def _extra(name: str) -> str:
    """What to install, when one of our extras has that name."""
    from importlib import metadata

    try:
        extras = metadata.metadata("patron").get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return ""
    return f'; for {name}: pip install "patron[{name}]"' if name in extras else ""


SOURCE = Choice("type", find, names)
