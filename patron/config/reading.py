"""Reads nodes by their shapes: every value checked strictly, every mistake noted, every origin kept."""

from __future__ import annotations

import collections.abc
import functools
import json
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from pydantic import TypeAdapter, ValidationError

from patron.calling import IS_ASYNC, is_async
from patron.config.document import Node, join
from patron.config.durations import seconds
from patron.config.names import REFERENCE, did_you_mean, resolve
from patron.config.placing import placed
from patron.config.problems import Problems
from patron.config.scalars import scalar
from patron.config.shapes import (
    REQUIRED,
    Choice,
    Either,
    Field,
    Many,
    Named,
    Reference,
    Shape,
    bare,
    expected,
    kind,
    members,
    optional,
    wants,
)
from patron.config.wording import a_thing, got, is_secret, refusal
from patron.errors import ConfigError, MissingExtra, PatronError

__all__ = ["INVALID", "Built", "Entry", "Reader"]


class _Invalid:
    def __repr__(self) -> str:
        return "INVALID"


INVALID: Final = _Invalid()
"""Stands for a value whose mistake was noted."""


@dataclass(frozen=True, slots=True)
class Built:
    """Something that the file describes, with its place: what a shape made, or what a reference names."""

    value: Any
    node: Node
    path: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One effective value: its path, where it came from, and whether it must be hidden."""

    path: str
    value: Any
    origin: str
    secret: bool = False


class Reader:
    """Reads one configuration, once; a duration is no value for the names in *ratios*."""

    def __init__(self, problems: Problems, ratios: frozenset[str] = frozenset()) -> None:
        self.problems = problems
        self.entries: list[Entry] = []
        self.built: list[Built] = []
        self.named: list[Built] = []
        self._ratios = ratios

    # The values that were read, or INVALID.

    def read(self, node: Node, annotation: Any, path: str) -> Any:
        """The value of *node*, or `INVALID` with the mistakes noted."""
        if node.broken:
            return INVALID
        if node.value is None and optional(annotation):
            return self._keep(node, path, None)
        asked = kind(annotation)
        if asked is None:
            return self._leaf(node, annotation, path)
        return self._readers[type(asked)](self, node, asked, annotation, path)

    def _shape(self, node: Node, shape: Shape, annotation: Any, path: str) -> Any:
        values = self.mapping(node, shape, path)
        return INVALID if values is None else self.make(node, shape, path, values)

    def make(self, node: Node, shape: Shape, path: str, values: Mapping[str, Any]) -> Any:
        """What *shape* builds of *values*, or `INVALID` with the mistakes noted."""
        wrong = frozenset(name for name, value in values.items() if value is INVALID)
        substitutes = _substitutes(shape, wrong)
        if substitutes is None:
            self._settings(node, shape.settings, path, values)
            return INVALID
        right = {name: value for name, value in values.items() if name not in wrong}
        try:
            made = shape.build(**right, **substitutes)
        except (PatronError, ValueError, TypeError) as error:
            self._note(error, node, shape, path, wrong)
            return INVALID
        if wrong:
            return INVALID
        self.built.append(Built(made, node, path))
        return made

    def _settings(self, node: Node, shape: Shape | None, path: str, values: Mapping[str, Any]) -> None:
        if shape is not None:
            names = {field.name for field in shape.fields}
            self.make(node, shape, path, {name: value for name, value in values.items() if name in names})

    def _note(self, error: Exception, node: Node, shape: Shape, path: str, wrong: frozenset[str]) -> None:
        """
        Note what a settings class refused, at the key that the message is about.

        What it says of a key in *wrong* is about the value that stood in, so it is no mistake of the file.
        """
        known = {field.name for field in shape.fields}
        for text in getattr(error, "problems", ()) or (str(error),):
            if not wrong.intersection(re.findall(r"\w+", text)):
                self.problems.add(*placed(text, node, path, known))

    def mapping(self, node: Node, shape: Shape, path: str) -> dict[str, Any] | None:
        """The given keys of *shape*, `INVALID` where one was wrong or is missing; None: no mapping."""
        if not isinstance(node.value, dict):
            self._wrong_kind(node, shape, path)
            return None
        self._refuse_unknown(node, shape, path)
        values: dict[str, Any] = {}
        for field in shape.fields:
            self._field(node, field, path, values)
        return values

    def _field(self, node: Node, field: Field, path: str, values: dict[str, Any]) -> None:
        inner = join(path, field.name)
        given = cast("dict[str, Node]", node.value).get(field.name)
        if given is not None and given.value is None and field.default is None and not given.broken:
            values[field.name] = self._keep(given, inner, None)
        elif given is not None:
            values[field.name] = self.read(given, field.type, inner)
        elif field.default is REQUIRED:
            self.problems.add(node.place, inner, f"is missing: it needs {expected(field.type)}")
            values[field.name] = INVALID
        else:
            self.entries.extend(defaults(field, inner))

    def _many(self, node: Node, many: Many, annotation: Any, path: str) -> Any:
        if not isinstance(node.value, list):
            return self._wrong_kind(node, annotation, path)
        items = [self.read(item, many.of, join(path, n)) for n, item in enumerate(node.value)]
        return INVALID if any(item is INVALID for item in items) else _container(annotation)(items)

    def _named(self, node: Node, named: Named, annotation: Any, path: str) -> Any:
        if not isinstance(node.value, dict):
            return self._wrong_kind(node, annotation, path)
        values = {key: self.read(item, named.of, join(path, key)) for key, item in node.value.items()}
        return INVALID if any(value is INVALID for value in values.values()) else values

    def _either(self, node: Node, either: Either, annotation: Any, path: str) -> Any:
        if isinstance(node.value, dict):
            return self.read(node, either.mapping, path)
        if isinstance(node.value, list):
            return self._wrong_kind(node, annotation, path)
        if kind(either.word) is None:
            value = self._leaf(node, either.word, path, words=expected(either))
        else:
            value = self.read(node, either.word, path)
        return self.make(node, either.mapping, path, {either.wrap: value}) if either.wrap else value

    def _choice(self, node: Node, choice: Choice, annotation: Any, path: str) -> Any:
        if not isinstance(node.value, dict):
            return self._wrong_kind(node, annotation, path)
        chooser = node.value.get(choice.key)
        if chooser is None:
            self.problems.add(
                node.place, join(path, choice.key), f"is missing: one of {', '.join(choice.names())}"
            )
            return INVALID
        name = self.read(chooser, str, join(path, choice.key))
        if name is INVALID:
            return INVALID
        try:
            shape = choice.find(name)
        except (ConfigError, MissingExtra) as error:
            self.problems.add(chooser.place, join(path, choice.key), str(error))
            return INVALID
        rest = {key: value for key, value in node.value.items() if key != choice.key}
        return self._shape(Node(rest, node.place, keys=node.keys), shape, shape, path)

    def _reference(self, node: Node, reference: Reference, annotation: Any, path: str) -> Any:
        if not isinstance(node.value, str) or not (
            REFERENCE.fullmatch(node.value) or _only_references(annotation)
        ):
            return self._leaf(node, _without_references(annotation), path, words=expected(annotation))
        self._keep(node, path, node.value)
        try:
            found = resolve(node.value)
        except ConfigError as error:
            self.problems.add(node.place, path, str(error))
            return INVALID
        if not reference.fits(found):
            self.problems.add(node.place, path, f"{node.value!r} is {a_thing(found)}, not {reference.called}")
            return INVALID
        if is_async(found):
            self.problems.add(node.place, path, f"{node.value!r} {IS_ASYNC}")
            return INVALID
        self.named.append(Built(found, node, path))
        return found

    _readers: Mapping[type, Callable[..., Any]] = {
        Shape: _shape,
        Many: _many,
        Named: _named,
        Either: _either,
        Choice: _choice,
        Reference: _reference,
    }

    # Plain values.

    def _leaf(self, node: Node, annotation: Any, path: str, words: str = "") -> Any:
        value = self._raw(node, annotation, path)
        try:
            checked = _adapter(annotation).validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            self.problems.add(
                node.place,
                path,
                refusal(
                    error, node, annotation, path, words, is_duration=self._is_duration(annotation, path)
                ),
            )
            return INVALID
        self._keep_all(node, path, checked)
        return checked

    def _keep_all(self, node: Node, path: str, value: Any) -> None:
        """Note the origins of *value*, and of each value inside, where its type is free."""
        if isinstance(node.value, dict) and node.value:
            for key, inner in node.value.items():
                self._keep_all(inner, join(path, key), plain(inner))
        elif isinstance(node.value, list) and node.value:
            for number, inner in enumerate(node.value):
                self._keep_all(inner, join(path, number), plain(inner))
        else:
            self._keep(node, path, value)

    def _raw(self, node: Node, annotation: Any, path: str) -> Any:
        if node.text is not None and node.spoken and wants(annotation, str):
            return node.text
        if node.spoken and isinstance(node.value, str) and bare(annotation) not in (Any, object):
            # Inside { } a reference has to be quoted, which must not make text of a number.
            node = replace(node, value=scalar(node.value))
        if isinstance(node.value, str) and self._is_duration(annotation, path):
            duration = seconds(node.value)
            return node.value if duration is None else duration
        return plain(node)

    def _is_duration(self, annotation: Any, path: str) -> bool:
        return wants(annotation, float) and path.rpartition(".")[2] not in self._ratios

    def _keep(self, node: Node, path: str, value: Any) -> Any:
        self.entries.append(Entry(path, value, node.origin, is_secret(node, path)))
        return value

    def _wrong_kind(self, node: Node, annotation: Any, path: str) -> Any:
        self.problems.add(node.place, path, f"expected {expected(annotation)}, got {got(node, path)}")
        return INVALID

    def _refuse_unknown(self, node: Node, shape: Shape, path: str) -> None:
        known = [field.name for field in shape.fields]
        for key, value in cast("dict[str, Node]", node.value).items():
            if key not in known:
                place = (node.keys or {}).get(key, value.place)
                hint = did_you_mean(key, known) or f" (known here: {', '.join(known)})"
                self.problems.add(place, join(path, key), f"there is no such key{hint}")


def _substitutes(shape: Shape, wrong: frozenset[str]) -> dict[str, Any] | None:
    """
    What stands in for the required fields that are *wrong*, so that the others are checked too.

    None: there is nothing that could. Only settings get it, and no function of somebody's that would work with it.
    """
    needed = [field for field in shape.fields if field.name in wrong and field.default is REQUIRED]
    found = {field.name: _substitute(field.type) for field in needed}
    return None if found and (not isinstance(shape.build, type) or None in found.values()) else found


def _substitute(annotation: Any) -> Any:
    asked = kind(annotation)
    if isinstance(asked, Reference) and asked.fits(_nobody):
        return _nobody
    plain_values = ((str, ""), (float, 1.0), (int, 1)) if asked is None else ()
    return next((value for type_, value in plain_values if wants(annotation, type_)), None)


def _nobody(*arguments: Any) -> None:
    """Stands in for a function that is not there."""


def defaults(field: Field, path: str) -> Iterator[Entry]:
    """The values of a key that was not given."""
    asked = kind(field.type)
    if isinstance(asked, Shape) and field.default is not None:
        for inner in asked.fields:
            if inner.default is not REQUIRED:
                value = getattr(field.default, inner.name, inner.default)
                yield from defaults(Field(inner.name, inner.type, value), join(path, inner.name))
    else:
        yield Entry(path, field.default, "default")


def plain(node: Node) -> Any:
    """The value of *node* without its places."""
    if isinstance(node.value, dict):
        return {key: plain(value) for key, value in node.value.items()}
    if isinstance(node.value, list):
        return [plain(item) for item in node.value]
    return node.value


def _container(annotation: Any) -> Callable[[list[Any]], Any]:
    origin = typing.get_origin(
        bare(next((m for m in members(annotation) if m is not type(None)), annotation))
    )
    if origin in (set, frozenset, collections.abc.Set):
        return frozenset
    return list if origin is list else tuple


def _only_references(annotation: Any) -> bool:
    return isinstance(annotation, Reference) or _without_references(annotation) is type(None)


def _without_references(annotation: Any) -> Any:
    """*annotation* without the members that a reference stands for."""
    if isinstance(annotation, Reference):
        return str
    rest = tuple(m for m in members(annotation) if not isinstance(kind(m), Reference))
    return typing.Union[rest] if rest else type(None)  # noqa: UP007


@functools.cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)
