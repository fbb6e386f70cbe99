"""A service that is described in code: found as ``module:service``, with the ``PATRON_*`` variables on top."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from patron.calling import named, shown
from patron.config.calls import CALL, called
from patron.config.document import Node
from patron.config.environment import overlay
from patron.config.layout import RATIOS, file_shape
from patron.config.names import REFERENCE, importable_from, resolve
from patron.config.problems import Place, Problems
from patron.config.reading import Entry, Reader
from patron.config.shapes import Field, Shape, kind, shape_of
from patron.errors import ConfigError
from patron.service import Service

__all__ = ["Overlaid", "find", "is_reference", "overlaid", "service_of", "where", "with_environment"]

#: The settings of a service that have a key of their own; those of the process stand beside them.
_PARTS = ("http", "log", "trace", "correlation")


@dataclass(frozen=True, slots=True)
class Overlaid:
    """A service with the variables applied, and where each of its settings came from."""

    service: Service
    entries: tuple[Entry, ...]
    warnings: tuple[str, ...]


def is_reference(path: str | Path) -> bool:
    """Whether *path* is no file but ``module:service``, or ``module:factory(...)``."""
    text = str(path)
    return bool(REFERENCE.fullmatch(text) or CALL.fullmatch(text)) and not os.path.exists(path)


def find(reference: str) -> Service:
    """
    The service that ``module:service`` names, or that a function makes which is called with literals.

    It imports the module, from the working directory first.

    Raises:
        ConfigError: there is no such module or attribute, or it is something else.
    """
    importable_from(Path.cwd())
    return service_of(called(reference) if CALL.fullmatch(reference) else resolve(reference), reference)


def service_of(found: Any, reference: str) -> Service:
    """
    *found*, which *reference* named, as a service: it is one, or a Flask application with the plug-in.

    Raises:
        ConfigError: it is something else.
    """
    extensions = getattr(found, "extensions", None)
    plugged = extensions.get("patron") if isinstance(extensions, dict) else None
    service = getattr(plugged, "service", found)
    if not isinstance(service, Service):
        raise ConfigError(
            f"{reference!r} is {shown(found)}, which is no patron.Service, and no Flask application "
            f"with patron.Patron{_advice(found, reference)}"
        )
    return service


def _advice(found: Any, reference: str) -> str:
    if isinstance(found, type) or not callable(found) or not hasattr(found, "__name__"):
        return ""
    return f": if {named(found)} makes one, say so: '{reference}()'"


def where(reference: str) -> str:
    """*reference*, once its module is imported, with the file of that."""
    return f"{reference} in {getattr(sys.modules[reference.partition(':')[0]], '__file__', 'no file')}"


def with_environment(
    service: Service, environ: Mapping[str, str] = os.environ
) -> tuple[Service, tuple[str, ...]]:
    """
    *service* with the ``PATRON_*`` variables of *environ* on top of its settings, and a warning for each unknown one.

    The variables and their checks are those of a configuration file. *service* itself stays as it is.

    Raises:
        ConfigError: with one problem for each variable that is wrong.
    """
    result = overlaid(service, environ)
    return result.service, result.warnings


def overlaid(service: Service, environ: Mapping[str, str], origin: str = "code") -> Overlaid:
    """As `with_environment`; what no variable sets comes from *origin*."""
    problems = Problems()
    root = Node({}, Place(origin))
    overlay(root, environ, file_shape(), problems)
    reader = Reader(problems, RATIOS)
    process = _over(service.process)
    parts = tuple(Field(name, _over(getattr(service, name)), getattr(service, name), "") for name in _PARTS)
    values = reader.mapping(root, Shape("Service", (*process.fields, *parts)), "") or {}
    own = {field.name: values[field.name] for field in process.fields if field.name in values}
    values["process"] = reader.make(root, process, "", own)
    problems.raise_if_any()
    with problems.at(Place(origin), ""):
        service = service.with_settings(**{n: values[n] for n in (*_PARTS, "process") if n in values})
    problems.raise_if_any()
    named = (Entry("name", service.name, origin), Entry("version", service.version, origin))
    rest = (replace(e, origin=origin) if e.origin == "default" else e for e in reader.entries)
    return Overlaid(service, (*named, *rest), problems.warnings)


def _over(settings: Any) -> Shape:
    """The shape that changes *settings* where a key is given."""
    shape = shape_of(settings.__class__)
    fields = tuple(_with_value(field, getattr(settings, field.name)) for field in shape.fields)
    return replace(shape, fields=fields, build=partial(replace, settings))


def _with_value(field: Field, value: Any) -> Field:
    nested = isinstance(kind(field.type), Shape) and is_dataclass(value)
    return replace(field, type=_over(value) if nested else field.type, default=value)
