"""
Checks requests and answers by an OpenAPI document, with the parts of openapi-core.

What openapi-core looks up in the document for each request is looked up here once for each operation: that takes a
tenth of the time and finds the same mistakes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl

from jsonschema.exceptions import best_match  # type: ignore[import-untyped]
from jsonschema_path import SchemaPath
from openapi_core.casting.schemas import casters, oas30_casters_dict, oas31_casters_dict
from openapi_core.casting.schemas.exceptions import CastError
from openapi_core.casting.schemas.factories import SchemaCastersFactory
from openapi_core.deserializing.exceptions import DeserializeError
from openapi_core.deserializing.styles import style_deserializers
from openapi_core.deserializing.styles.factories import StyleDeserializersFactory
from openapi_core.schema.parameters import get_style_and_explode
from openapi_core.validation import schemas
from openapi_core.validation.schemas.exceptions import InvalidSchemaValue
from openapi_spec_validator import OpenAPIV30SpecValidator, OpenAPIV31SpecValidator
from werkzeug.datastructures import MultiDict
from werkzeug.http import parse_cookie

from patron import Request
from patron.errors import ConfigError

__all__ = ["ABSENT", "Dialect", "Location", "Parameter", "Schema", "SchemaPath", "dialect", "locations"]

Location = Mapping[str, Any]

#: What a parameter is that the client did not send, and that has no default.
ABSENT: Any = object()

_LONGEST = 200  # characters of a message, which may quote the client's own value


class _Integer(casters.IntegerCaster):
    """Integers as JSON writes them; Python's ``int`` takes ``1_0`` and other digits too."""

    def validate(self, value: Any) -> None:
        if not re.fullmatch(r"-?[0-9]+", value):
            raise ValueError("not an integer")


class _Number(casters.NumberCaster):
    """Numbers as JSON writes them, so neither ``nan`` nor ``inf``."""

    def validate(self, value: Any) -> None:
        if not re.fullmatch(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", value):
            raise ValueError("not a number")


class Dialect:
    """One version of OpenAPI: how its documents are checked, and values by its schemas."""

    def __init__(self, document: Any, types: Mapping[str, Any], asked: Any, answered: Any) -> None:
        self.document = document
        self.asked = asked
        self.answered = answered
        types = {**types, "integer": _Integer, "number": _Number}
        caster = casters.TypesCaster(types, casters.AnyCaster, multi=casters.PrimitiveCaster)
        self.styles = StyleDeserializersFactory(
            SchemaCastersFactory(asked, caster), style_deserializers=style_deserializers
        )


_DIALECTS = {
    "3.0": Dialect(
        OpenAPIV30SpecValidator,
        oas30_casters_dict,
        schemas.oas30_write_schema_validators_factory,
        schemas.oas30_read_schema_validators_factory,
    ),
    "3.1": Dialect(
        OpenAPIV31SpecValidator,
        oas31_casters_dict,
        schemas.oas31_schema_validators_factory,
        schemas.oas31_schema_validators_factory,
    ),
}


def dialect(contents: Mapping[str, Any], base: str) -> Dialect:
    """
    The dialect of the document *contents*, which was read from the URL *base*.

    Raises:
        ConfigError: the document is wrong; every mistake, with its place.
    """
    version = str(contents.get("openapi"))
    found = _DIALECTS.get(version[:3])
    if found is None:
        raise ConfigError(f"openapi is {version!r}: use {' or '.join(_DIALECTS)}")
    if problems := list(_problems(found.document(contents, base_uri=base))):
        raise ConfigError(*problems)
    return found


def _problems(document: Any) -> Iterator[str]:
    try:
        for error in document.iter_errors():
            place = ".".join(str(part) for part in error.absolute_path)
            yield f"{place}: {_short(error.message)}" if place else _short(error.message)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        # The checker itself stumbles over what has another type than it expects, after it has said so.
        yield f"the rest cannot be read: {type(error).__name__}: {error}"


class Schema:
    """A schema and what it says about values; *answers* tells those that are sent from those that come."""

    def __init__(self, dialect: Dialect, root: SchemaPath, schema: SchemaPath, answers: bool = False) -> None:
        factory = dialect.answered if answers else dialect.asked
        self._validator = factory.create(root, schema)

    def problems(self, value: Any, name: str = "") -> dict[str, str]:
        """Field → what is wrong with it in *value*; *name* is that of the whole."""
        try:
            self._validator.validate(value)
        except InvalidSchemaValue as error:
            found = [entry for each in error.schema_errors for entry in _fields(each, name)]
            return dict(reversed(found))  # of several mistakes of one field the first one counts
        return {}


def _fields(error: Any, name: str) -> Iterator[tuple[str, str]]:
    deepest = best_match((error,)) or error
    place = [*([name] if name else []), *map(str, deepest.absolute_path)]
    if deepest.validator == "required":
        missing = (part for part in deepest.validator_value if part not in deepest.instance)
        yield from ((".".join([*place, part]), "is required") for part in missing)
    else:
        yield ".".join(place) or "body", _short(deepest.message)


def _short(message: str) -> str:
    return message if len(message) <= _LONGEST else f"{message[:_LONGEST]}..."


class Parameter:
    """One parameter of an operation: how it is written in the request, and what it may be."""

    def __init__(self, dialect: Dialect, root: SchemaPath, parameter: SchemaPath) -> None:
        self.name = (parameter / "name").read_str()
        self.place = (parameter / "in").read_str()
        if "schema" not in parameter:
            raise ConfigError(f"parameter {self.name} has no schema: one by content is not supported")
        schema = parameter / "schema"
        if isinstance((schema / "type").read_str_or_list(""), list):
            raise ConfigError(f"parameter {self.name} has several types: name them in anyOf")
        self._required = (parameter / "required").read_bool(default=False)
        self._default = (schema / "default").read_value() if "default" in schema else ABSENT
        self._schema = Schema(dialect, root, schema)
        style, explode = get_style_and_explode(parameter)
        self._written = dialect.styles.create(root, schema, style, explode, name=self.name)

    def read(self, location: Location, wrong: dict[str, str]) -> Any:
        """The value in *location*, the default, or `ABSENT`; what is wrong goes into *wrong*."""
        try:
            value = self._written.deserialize(location)
        except KeyError:
            if self._required:
                wrong[self.name] = "is required"
            return self._default
        except CastError as error:
            wrong[self.name] = _short(f"{error.value!r} is not of type {error.type!r}")
            return ABSENT
        except DeserializeError:
            wrong[self.name] = f"is not written in the style {self._written.style!r}"
            return ABSENT
        wrong.update(self._schema.problems(value, self.name))
        return value


def locations(request: Request, path: Location) -> Mapping[str, Location]:
    """Where the parameters of *request* stand, by OpenAPI's names of the places."""
    query = request.query
    return {
        "path": path,
        "query": MultiDict(parse_qsl(query, keep_blank_values=True)) if query else {},
        "header": request.headers,
        "cookie": parse_cookie(request.headers.get("Cookie")),
    }
