"""
Routes out of an OpenAPI document: the document first, the processors second.

``routes_from("pets.yaml", handlers)`` makes one route of each operation. Its ``operationId`` names the processor; path,
parameters and body are checked as the document says before the processor runs. Needs openapi-core 0.23.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from contract.operations import Document, Scheme
from patron import Request, Response, Route
from patron.errors import ConfigError
from patron.http.routes import Processor

__all__ = ["routes_from"]

JSON = "application/json"


def routes_from(
    document: str | Path | Mapping[str, Any],
    handlers: Mapping[str, Processor] | ModuleType,
    *,
    authenticators: Mapping[str, Scheme] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    prefix: str = "",
    check_answers: bool = False,
    served_at: str | None = "/openapi.json",
) -> list[Route]:
    """
    One route for each operation of *document*, and one that serves the document.

    ``request.params`` and ``request.fields`` hold values of the types that the document gives them, defaults included.
    What does not fit the document is a 400 that names the ``fields``, or a 415, and does not reach the processor.

    Args:
        document: the file, in YAML or JSON, or what stands in it: OpenAPI 3.0 or 3.1.
        handlers: ``operationId`` → processor, or the module that has processors of these names.
        authenticators: security scheme → who it lets in. One that is used with scopes is a function from the
            scopes to an authenticator.
        options: ``operationId`` → further arguments of its `Route`: ``cache``, ``limits``, ``middlewares`` ...
        prefix: stands before every path: the path of the document's ``servers``, unless a proxy takes it away.
        check_answers: check what the processors answer, too; what does not fit is a 500, with the reason in the log.
        served_at: the path of the document, as JSON; None serves it nowhere.

    Raises:
        ConfigError: the document is wrong, or it and the arguments do not go together; every problem at once.
    """
    contents, base = _read(document)
    read = Document(contents, base, authenticators or {})
    options = options or {}
    routes, problems = [], [*_unknown(handlers, options, read.operations)]
    for name in read.operations:
        try:
            operation, processor = read.operation(name), _handler(handlers, name)
            routes.append(operation.route(prefix, processor, check_answers, options.get(name, {})))
        except ConfigError as error:
            problems += [f"operation {name}: {problem}" for problem in error.problems]
    if problems:
        raise ConfigError(*problems)
    return routes if served_at is None else [*routes, _serving(contents, served_at)]


def _read(document: str | Path | Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """What stands in the document, as JSON has it (``200`` is a string), and its URL."""
    if isinstance(document, Mapping):
        contents, base = document, ""
    else:
        path = Path(document).resolve()
        try:
            contents, base = yaml.safe_load(path.read_text("utf-8")), path.as_uri()
        except (OSError, UnicodeError, yaml.YAMLError) as error:
            raise ConfigError(f"OpenAPI document {path}: {error}") from error
    if not isinstance(contents, Mapping):
        raise ConfigError(f"OpenAPI document {base}: there is no mapping in it")
    return json.loads(json.dumps(contents, default=str)), base


def _serving(contents: Mapping[str, Any], path: str) -> Route:
    body = json.dumps(contents).encode()

    def show(request: Request) -> Response:
        return Response(body, content_type=JSON)

    return Route("GET", path, show, produces=(JSON,))


def _handler(handlers: Mapping[str, Processor] | ModuleType, name: str) -> Processor:
    found = getattr(handlers, name, None) if isinstance(handlers, ModuleType) else handlers.get(name)
    if found is None:
        where = handlers.__name__ if isinstance(handlers, ModuleType) else "handlers"
        raise ConfigError(f"there is no processor of that name in {where}")
    processor: Processor = found
    return processor


def _unknown(handlers: Any, options: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[str]:
    given = {*options, *(() if isinstance(handlers, ModuleType) else handlers)}
    for name in sorted(given.difference(known)):
        yield f"{name!r} is no operationId of the document: there are {', '.join(sorted(known))}"
