"""From a file and an environment to a service; the way in for the command line and for the workers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from patron.config import checks, described
from patron.config.document import Node, read
from patron.config.environment import overlay
from patron.config.layout import RATIOS, file_shape, sections
from patron.config.making import Http, Part
from patron.config.names import importable_from
from patron.config.problems import Place, Problems
from patron.config.reading import INVALID, Entry, Reader
from patron.config.shapes import shape_of
from patron.errors import ConfigError
from patron.service import Inspection, Service
from patron.supervisor import ProcessSettings

__all__ = ["Configuration", "build", "inspect", "load"]


@dataclass(frozen=True, slots=True)
class Configuration:
    """A configuration without a mistake: the service that it describes, and where each value came from."""

    origin: str
    service: Service
    entries: tuple[Entry, ...]
    warnings: tuple[str, ...]


def load(path: str | Path, environ: Mapping[str, str] = os.environ) -> Configuration:
    """
    Read the file *path* completely, with the variables of *environ* on top.

    *path* may also be ``module:service``, a service that is described in code.
    It imports the modules that the file names, from the directory of the file first, and starts nothing.

    Raises:
        ConfigError: with one problem for each mistake.
    """
    if not str(path):
        raise ConfigError(
            "the name of the configuration is empty: give a file, or a service as module:service"
        )
    if described.is_reference(path):
        return _load_described(str(path), environ)
    path = Path(path)
    problems = Problems()
    root = read(path, environ, problems)
    overlay(root, environ, file_shape(), problems)
    importable_from(path.absolute().parent)
    reader = Reader(problems, RATIOS)
    values = reader.mapping(root, file_shape(), "") or {}
    process = _process(values, root, reader)
    checks.run(root, values, reader)
    problems.raise_if_any()
    with problems.at(Place(str(path)), ""):
        service = _service(values, process)
    problems.raise_if_any()
    return Configuration(str(path), service, tuple(reader.entries), problems.warnings)


def _load_described(reference: str, environ: Mapping[str, str]) -> Configuration:
    service = described.find(reference)
    result = described.overlaid(service, environ, reference)
    return Configuration(described.where(reference), result.service, result.entries, result.warnings)


def build(path: str | Path, environ: Mapping[str, str] = os.environ) -> Service:
    """The service that *path* describes. Raises as `load`."""
    return load(path, environ).service


def inspect(path: str | Path, environ: Mapping[str, str] = os.environ) -> Inspection:
    """What the parent process must know of the service at *path*. Raises as `load`."""
    configuration = load(path, environ)
    return configuration.service.inspect(configuration.warnings)


_DIRECT = (
    "name",
    "version",
    "resources",
    "on_start",
    "on_stop",
    "on_sighup",
    "alive_check",
    "ready_checks",
    "error_reporter",
    "log",
    "trace",
    "correlation",
)


def _service(values: Mapping[str, Any], process: Any) -> Service:
    http: Http = values.get("http") or cast("Http", file_shape().field("http").default)
    parts = [*values.get("consumers", ()), *values.get("components", ()), *_from_sections(values)]
    return Service(
        **{name: values[name] for name in _DIRECT if name in values},
        **http.serves,
        http=http.settings,
        components=[part.component for part in parts],
        process=process,
        restart={part.component.name: part.restart for part in parts if part.restart},
    )


def _process(values: Mapping[str, Any], root: Node, reader: Reader) -> Any:
    """The settings whose keys stand at the top of the file, or `INVALID`."""
    shape = shape_of(ProcessSettings)
    names = {field.name for field in shape.fields}
    return reader.make(root, shape, "", {name: value for name, value in values.items() if name in names})


def _from_sections(values: Mapping[str, Any]) -> list[Part]:
    made = []
    for section in sections():
        given = values.get(section.name)
        if section.components and given is not None and given is not INVALID:
            made += [Part(component) for component in section.components(given)]
    return made
