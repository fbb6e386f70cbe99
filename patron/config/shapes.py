"""
What a part of the configuration looks like: its keys, their types and defaults.

A shape comes from a settings dataclass, or is put together from fields. The same shapes are read
(`patron.config.reading`), published as JSON Schema (`patron.config.schema`) and printed as the table of
defaults (`patron.config.table`).
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from patron.errors import ConfigError

__all__ = [
    "REQUIRED",
    "Choice",
    "Either",
    "Field",
    "Many",
    "Named",
    "Reference",
    "Shape",
    "expected",
    "kind",
    "shape_of",
]


class _Required(enum.Enum):
    REQUIRED = enum.auto()


REQUIRED: Final = _Required.REQUIRED


@dataclass(frozen=True, slots=True)
class Field:
    """
    One key: its type (an annotation, or one of the classes of this module), its default, and what it is.

    *summary* says that; or it is the settings class whose docstring does, which is read when asked for.
    """

    name: str
    type: Any
    default: Any = REQUIRED
    summary: str | type[Any] = ""

    def described(self) -> str:
        """What the key is, in one sentence."""
        return self.summary if isinstance(self.summary, str) else _summary(self.summary, self.name)


@dataclass(frozen=True, slots=True)
class Shape:
    """
    A mapping with these keys and no others; *build* makes the value of what was read.

    *settings* is the shape of the settings that some of the keys make; it is checked by itself when the
    whole cannot be built, so that its mistakes are reported too.
    """

    name: str
    fields: tuple[Field, ...]
    build: Callable[..., Any] = dict
    summary: str = ""
    settings: Shape | None = None

    def field(self, name: str) -> Field:
        """The field called *name*."""
        return next(field for field in self.fields if field.name == name)


@dataclass(frozen=True, slots=True)
class Reference:
    """``module:attribute`` as text; what it names must pass *fits*, and is *called* so in messages."""

    called: str = "a function"
    fits: Callable[[Any], bool] = callable


@dataclass(frozen=True, slots=True)
class Either:
    """A value of the type *word*, or a mapping; with *wrap* the word stands for a mapping with that key."""

    word: Any
    mapping: Shape
    wrap: str = ""


@dataclass(frozen=True, slots=True)
class Many:
    """A list of values of one type."""

    of: Any


@dataclass(frozen=True, slots=True)
class Named:
    """A mapping from names of the user's choice to values of one type."""

    of: Any


@dataclass(frozen=True, slots=True)
class Choice:
    """
    A mapping whose key *key* chooses its shape; *find* raises `ConfigError` for an unknown name.

    With *own*, which says what it names, ``module:attribute`` is a name too.
    """

    key: str
    find: Callable[[str], Shape]
    names: Callable[[], tuple[str, ...]]
    own: str = ""


_SIMPLE = (str, int, float, bool, bytes, Path, enum.Enum, re.Pattern, type(None))
_LISTS = (
    tuple,
    list,
    set,
    frozenset,
    collections.abc.Sequence,
    collections.abc.Set,
    collections.abc.Iterable,
)
_MAPPINGS = (dict, collections.abc.Mapping)


@functools.cache
def shape_of(settings: Any) -> Shape:
    """
    The shape of a settings dataclass; its docstring says what each field is.

    Raises:
        ConfigError: it is no dataclass, or its annotations cannot be read.
    """
    if not _is_settings(settings):
        raise ConfigError(f"{settings!r} is no dataclass, so its settings cannot be read from a file")
    try:
        hints = typing.get_type_hints(settings, include_extras=True)
    except NameError as error:
        raise ConfigError(f"the annotations of {settings.__qualname__} cannot be read: {error}") from error
    fields = tuple(
        Field(f.name, hints[f.name], _default(f), settings)
        for f in dataclasses.fields(settings)
        if f.init and not f.name.startswith("_") and f.metadata.get("config", True)
    )
    first = (settings.__doc__ or "").strip().partition("\n")[0]
    return Shape(settings.__name__, fields, settings, first)


def _is_settings(value: Any) -> bool:
    return isinstance(value, type) and dataclasses.is_dataclass(value)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return REQUIRED


def _summary(settings: type[Any], name: str) -> str:
    """What the docstring says of a field: under ``Args:``, or in a sentence ``*name*: what it is.``"""
    doc = inspect.cleandoc(settings.__doc__ or "")
    for pattern in (
        rf"^ +{re.escape(name)}: (.*?)(?=^ {{0,4}}\S|\Z)",
        rf"(?:[.;]\s+|^)\*{re.escape(name)}\*:?\s(.*?)(?:[.;](?=\s)|\Z)",
    ):
        match = re.search(pattern, doc, re.DOTALL | re.MULTILINE)
        if match:
            return " ".join(match[1].split()).rstrip(".;")
    return ""


def bare(annotation: Any) -> Any:
    """*annotation* without ``Annotated``."""
    while typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    return annotation


def kind(annotation: Any) -> Any:
    """
    What an annotation asks for: a `Shape`, `Many`, `Named`, `Reference`, `Either` or `Choice`, or None for a
    plain value that pydantic checks.
    """
    if isinstance(annotation, (Shape, Reference, Either, Many, Named, Choice)):
        return annotation
    plain = bare(annotation)
    if _is_union(plain):
        return _kind_of_union(plain)
    if _is_settings(plain):
        return shape_of(plain)
    return _kind_of_generic(plain)


def _kind_of_generic(plain: Any) -> Any:
    origin = typing.get_origin(plain)
    if origin is typing.Literal or plain in (Any, object):
        return None
    if origin is tuple and typing.get_args(plain)[-1] is not ...:
        return None  # a fixed number of values, each of its own type
    if origin in _LISTS:
        return Many(next(iter(typing.get_args(plain)), Any))
    if origin in _MAPPINGS:
        inner = typing.get_args(plain)[-1]
        return None if inner in (Any, object) else Named(inner)
    if isinstance(plain, type) and issubclass(plain, (*_SIMPLE, *_LISTS, *_MAPPINGS)):
        return None
    return _reference(plain)


def _reference(plain: Any) -> Reference:
    if not isinstance(plain, type) or plain is collections.abc.Callable:
        return Reference()
    if getattr(plain, "_is_protocol", False):
        return Reference(f"an instance of {plain.__name__}", partial(_implements, plain))
    return Reference(f"an instance of {plain.__name__}", lambda value: isinstance(value, plain))


def _implements(protocol: Any, value: Any) -> bool:
    return not isinstance(value, type) and all(hasattr(value, name) for name in protocol_members(protocol))


def protocol_members(protocol: Any) -> frozenset[str]:
    """The public names that *protocol* asks for."""
    return frozenset(
        n
        for base in protocol.__mro__
        if getattr(base, "_is_protocol", False)
        for n in vars(base)
        if n[0] != "_" or n == "__call__"
    )


def _kind_of_union(plain: Any) -> Any:
    kinds = [kind(member) for member in typing.get_args(plain) if member is not type(None)]
    if len(kinds) == 1:
        return kinds[0]
    mapping = next((k for k in kinds if isinstance(k, Shape)), None)
    if mapping is not None and kinds.count(None) == len(kinds) - 1:
        rest = tuple(m for m in typing.get_args(plain) if kind(m) is not mapping)
        return Either(typing.Union[rest], mapping)  # noqa: UP007 - of as many as there are
    return next((k for k in kinds if isinstance(k, Reference)), None)


def _is_union(plain: Any) -> bool:
    return typing.get_origin(plain) in (typing.Union, types.UnionType)


def members(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the annotation alone."""
    plain = bare(annotation)
    return typing.get_args(plain) if _is_union(plain) else (plain,)


def optional(annotation: Any) -> bool:
    """Whether nothing (``null``) is a value too."""
    return type(None) in members(annotation) or bare(annotation) in (Any, object)


def wants(annotation: Any, *classes: type) -> bool:
    """Whether a value of one of *classes* is asked for."""
    return any(m in classes or _literal_of(m, classes) for m in map(bare, members(annotation)))


def _literal_of(member: Any, classes: tuple[type, ...]) -> bool:
    return typing.get_origin(member) is typing.Literal and isinstance(typing.get_args(member)[0], classes)


_WORDS: Mapping[Any, str] = {
    int: "a whole number",
    float: "a number",  # of seconds nearly always, see patron.config.durations
    str: "text",
    bool: "true or false",
    Path: "a path",
    type(None): "nothing",
}


def expected(annotation: Any) -> str:
    """What is asked for, in words."""
    asked = kind(annotation)
    if isinstance(asked, (Shape, Named, Choice)):
        return "a mapping"
    if isinstance(asked, Many):
        return "a list"
    if isinstance(asked, Either):
        return f"{expected(asked.word)} or a mapping"
    if isinstance(asked, Reference):
        return f"{asked.called} as 'module:attribute'"
    return " or ".join(_member(m) for m in map(bare, members(annotation)) if m is not type(None))


def _member(member: Any) -> str:
    if typing.get_origin(member) is typing.Literal:
        values = [repr(value) if isinstance(value, str) else str(value) for value in typing.get_args(member)]
        return f"one of {', '.join(values)}"
    if isinstance(member, type) and issubclass(member, enum.Enum):
        return f"one of {', '.join(repr(m.value) for m in member)}"
    if typing.get_origin(member) in _MAPPINGS or member in _MAPPINGS:
        return "a mapping"
    if typing.get_origin(member) in _LISTS:
        return "a list"
    return _WORDS.get(member, getattr(member, "__name__", str(member)))
