"""
The kinds of sources that a consumer can have: the entry points of the group ``patron.sources``, and the user's own.

A kind of the user's own is ``module:name`` of a source class, or of a function that returns a source; its
parameters are the keys beside ``type``. Where it names a source itself, there are none.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from patron.calling import IS_ASYNC, is_async, shown
from patron.config.making import source
from patron.config.names import REFERENCE, did_you_mean, resolve
from patron.config.shapes import REQUIRED, Choice, Field, Shape, shape_of
from patron.consumer import Source
from patron.errors import ConfigError, MissingExtra
from patron.sources import names, reference

__all__ = ["SOURCE", "find"]


def find(name: str) -> Shape:
    """
    The shape of the source type called *name*; it imports the module of the source.

    Raises:
        ConfigError: there is no such type, or it does not import. MissingExtra: its driver is not installed.
    """
    if REFERENCE.fullmatch(name):
        return _own(name)
    named = reference(name)
    if named is None:
        hint = did_you_mean(name, names())
        raise ConfigError(
            f"there is no source type {name!r}{hint}: there are {', '.join(names())}{_extra(name)}"
        )
    return shape_of(_load(named))


def _own(reference: str) -> Shape:
    """The shape of a source that the user's own code makes."""
    found = _load(reference)
    if dataclasses.is_dataclass(found) and isinstance(found, type):
        return dataclasses.replace(shape_of(found), build=partial(source, found))
    if isinstance(found, Source) and not isinstance(found, type):
        return Shape(reference, (), lambda: found)
    if not callable(found):
        raise ConfigError(f"{reference!r} is {shown(found)}, which is no source and makes none")
    if is_async(found):
        raise ConfigError(f"{reference!r} {IS_ASYNC}")
    return Shape(reference, tuple(_parameters(found, reference)), partial(source, found))


def _parameters(factory: Any, reference: str) -> Iterator[Field]:
    annotations = _annotations(factory)
    for parameter in inspect.signature(factory).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigError(
                f"{reference!r} takes {parameter}: each of its parameters needs a name of its own"
            )
        default = REQUIRED if parameter.default is parameter.empty else parameter.default
        yield Field(parameter.name, annotations.get(parameter.name, Any), default)


def _annotations(factory: Any) -> Mapping[str, Any]:
    function: Any = inspect.unwrap(factory) if not isinstance(factory, type) else factory.__init__  # type: ignore[misc]
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {}  # names of type checkers only: then anything goes, and the factory itself says what is wrong


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


SOURCE = Choice("type", find, names, own="a source, or a function that returns one")
