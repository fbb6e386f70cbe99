"""The configuration file as JSON Schema, draft 2020-12, for editors and for other people's checks."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import TypeAdapter

from patron.config.durations import DURATION
from patron.config.layout import RATIOS, file_shape
from patron.config.names import REFERENCE
from patron.config.shapes import (
    REQUIRED,
    Choice,
    Either,
    Field,
    Many,
    Named,
    Reference,
    Shape,
    kind,
    members,
    optional,
    wants,
)
from patron.errors import PatronError

__all__ = ["schema"]

# JSON Schema patterns are ECMA 262, unanchored.
_INTERPOLATED = {"type": "string", "pattern": r"\$\{.+\}"}
_REFERENCE = {
    "type": "string",
    "pattern": f"^({REFERENCE.pattern.replace('[^' + chr(92) + 'W' + chr(92) + 'd]', '[A-Za-z_]')})$",
}
_DURATION = {"type": "string", "pattern": f"^{DURATION.pattern}$"}


def schema() -> dict[str, Any]:
    """The schema of the whole file, with every section and every source type that is installed."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of a Patron service",
        **_of(file_shape(), ""),
    }


def _of(annotation: Any, name: str) -> dict[str, Any]:
    asked = kind(annotation)
    if asked is None:
        return _plain(annotation, name)
    made = _makers[type(asked)](asked)
    rest = (
        [m for m in members(annotation) if m is not type(None) and kind(m) is None]
        if isinstance(asked, Reference)
        else []
    )
    either = [made, *(_plain(m, name) for m in rest), *([{"type": "null"}] if optional(annotation) else [])]
    return made if len(either) == 1 else {"anyOf": either}


def _shape(shape: Shape, first: Mapping[str, Any] | None = None) -> dict[str, Any]:
    required = [*(first or ()), *(field.name for field in shape.fields if field.default is REQUIRED)]
    return {
        "type": "object",
        "properties": {**(first or {}), **{field.name: _field(field) for field in shape.fields}},
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }


def _field(field: Field) -> dict[str, Any]:
    text = field.described()
    described = {"description": text} if text else {}
    return {**_of(field.type, field.name), **described, **_default(field)}


def _default(field: Field) -> dict[str, Any]:
    """The default, where it is a value that the file could hold."""
    value = field.default
    if value is REQUIRED or dataclasses.is_dataclass(value) or isinstance(kind(field.type), Shape):
        return {}
    try:
        return {"default": json.loads(json.dumps(value, default=_listed))}
    except TypeError:
        return {}


def _listed(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError


def _many(many: Many) -> dict[str, Any]:
    return {"type": "array", "items": _of(many.of, "")}


def _named(named: Named) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": _of(named.of, "")}


def _either(either: Either) -> dict[str, Any]:
    return {"anyOf": [_of(either.word, ""), _shape(either.mapping)]}


def _choice(choice: Choice) -> dict[str, Any]:
    own = [{"type": "object", "properties": {choice.key: _REFERENCE}, "required": [choice.key]}]
    return {"oneOf": [*(_chosen(choice, name) for name in choice.names()), *(own if choice.own else ())]}


def _chosen(choice: Choice, name: str) -> dict[str, Any]:
    constant = {choice.key: {"const": name}}
    try:
        return _shape(choice.find(name), constant)
    except PatronError:  # its driver is not installed here: anything goes
        return {"type": "object", "properties": constant, "required": [choice.key]}


def _reference(reference: Reference) -> dict[str, Any]:
    return {"anyOf": [_REFERENCE, _INTERPOLATED]}


_makers: Mapping[type, Callable[[Any], dict[str, Any]]] = {
    Shape: _shape,
    Many: _many,
    Named: _named,
    Either: _either,
    Choice: _choice,
    Reference: _reference,
}


def _plain(annotation: Any, name: str) -> dict[str, Any]:
    own = _adapted(annotation)
    if wants(annotation, str) and own.get("type") == "string" and "enum" not in own:
        return own
    further = [_INTERPOLATED] if own else []
    if wants(annotation, float) and name not in RATIOS:
        further.insert(0, _DURATION)
    return {"anyOf": [*own.get("anyOf", [own]), *further]} if further else own


@functools.cache
def _adapted(annotation: Any) -> dict[str, Any]:
    return TypeAdapter(annotation).json_schema()
