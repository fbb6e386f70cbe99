"""The operations of an OpenAPI document, each with what it checks, and the route that it becomes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from werkzeug import wrappers

from contract.checks import ABSENT, Parameter, Schema, SchemaPath, dialect, locations
from patron import Request, Response, Route, encoding
from patron.errors import BadRequest, ConfigError, UnknownContentType, UnsupportedMediaType
from patron.http import Authenticator, Principal
from patron.http.routes import METHODS, Handler, Processor

__all__ = ["Document", "Operation", "Scheme"]

#: An authenticator for a security scheme, or what makes one out of the scopes that an operation asks for.
Scheme: TypeAlias = Authenticator | Callable[[Sequence[str]], Authenticator]

#: Media type → its schema, None where it has none that can be checked.
Content: TypeAlias = Mapping[str, Schema | None]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation, with everything looked up; all threads share it."""

    method: str
    path: str
    name: str
    parameters: tuple[Parameter, ...]
    body: Content
    body_required: bool
    answers: Mapping[str, Content]
    authenticator: Authenticator | None

    def route(
        self, prefix: str, processor: Processor, check_answers: bool, options: Mapping[str, Any]
    ) -> Route:
        """The route with the checks in front of *processor*, behind the authenticator."""
        middlewares = (partial(self._checked, check_answers=check_answers), *options.get("middlewares", ()))
        given = {
            "authenticator": self.authenticator,
            "name": self.name,
            "produces": self._produced(),
            **options,
        }
        return Route(
            self.method, prefix + _pattern(self.path), processor, **{**given, "middlewares": middlewares}
        )

    def _produced(self) -> tuple[str, ...]:
        """What its successes are written in, as far as the document says so without ``*``."""
        types = [name for status, content in self.answers.items() if status[0] == "2" for name in content]
        return () if any("*" in name for name in types) else tuple(dict.fromkeys(types))

    def _checked(self, handler: Handler, *, check_answers: bool) -> Handler:
        def checked(request: Request) -> Any:
            self._check(request)
            answer = handler(request)
            if check_answers:
                self._check_answer(request, answer)
            return answer

        return checked

    def _check(self, request: Request) -> None:
        wrong: dict[str, str] = {}
        self._read_parameters(request, wrong)
        if self.body:
            wrong.update(self._body_problems(request))
        if wrong:
            text = "; ".join(f"{name}: {problem}" for name, problem in wrong.items())
            raise BadRequest({"error": text, "fields": wrong})

    def _read_parameters(self, request: Request, wrong: dict[str, str]) -> None:
        """Put the values of the parameters into *request*."""
        if not self.parameters:
            return
        where = locations(request, {name: request.params[_identifier(name)] for name in _names(self.path)})
        values: dict[str, dict[str, Any]] = {place: {} for place in where}
        for parameter in self.parameters:
            value = parameter.read(where[parameter.place], wrong)
            if value is not ABSENT:
                values[parameter.place][parameter.name] = value
        request.params = {**values["query"], **values["path"]}  # which request.fields has, too

    def _body_problems(self, request: Request) -> Mapping[str, str]:
        if not request.body():
            return {"body": "is required"} if self.body_required else {}
        schema = self._schema_of(request)
        return schema.problems(request.decode()) if schema is not None else {}

    def _schema_of(self, request: Request) -> Schema | None:
        try:
            essence = encoding.media_type(request.content_type or encoding.JSON)[0]
            return self.body[_matching(self.body, essence)]
        except (UnknownContentType, KeyError):
            accepted = ", ".join(self.body)
            raise UnsupportedMediaType(
                {"error": f"content type {request.content_type!r} is not supported: use {accepted}"},
                headers={"Accept": accepted},
            ) from None

    def _check_answer(self, request: Request, answer: Any) -> None:
        status, essence, value = _answered(request, answer)
        content = next((self.answers[key] for key in _statuses(status) if key in self.answers), None)
        if content is None:
            raise ValueError(f"{self.name} answered {status}, which its document does not have")
        schema = content.get(_matching(content, essence)) if content and essence else None
        if schema is not None and (wrong := schema.problems(value())):
            raise ValueError(f"{self.name} answered {status} with what its document does not allow: {wrong}")


def _answered(request: Request, answer: Any) -> tuple[int, str | None, Callable[[], Any]]:
    """The status of *answer*, its media type when it can be checked, and what reads its value."""
    if isinstance(answer, wrappers.Response):
        return answer.status_code, answer.mimetype if answer.is_json else None, answer.get_json
    response = answer if isinstance(answer, Response) else Response(answer)
    payload = response.payload
    status = response.status or (204 if payload is None else 201 if request.method == "POST" else 200)
    if payload is None or isinstance(payload, bytes | bytearray | memoryview | Iterator):
        return status, None, lambda: None
    essence = response.content_type or request.accepted
    return status, essence if _is_json(essence) else None, lambda: json.loads(encoding.encode(payload))


def _statuses(status: int) -> tuple[str, str, str]:
    return str(status), f"{status // 100}XX", "default"


def _matching(content: Mapping[str, Any], essence: str) -> str:
    """The key of *content* for a media type, ranges last. Raises KeyError."""
    for key in (essence, f"{essence.partition('/')[0]}/*", "*/*"):
        if key in content:
            return key
    raise KeyError(essence)


def _is_json(essence: str) -> bool:
    essence = essence.partition(";")[0].strip()
    return essence == encoding.JSON or essence.endswith("+json")


_NAME = re.compile(r"\{([^{}]+)\}")


def _names(path: str) -> list[str]:
    return _NAME.findall(path)


def _identifier(name: str) -> str:
    """*name* as Flask can have it: ``pet-id`` is ``pet_id``."""
    return re.sub(r"\W", "_", name, flags=re.ASCII)


def _pattern(path: str) -> str:
    """``/pets/{id}`` as ``/pets/<id>``."""
    return _NAME.sub(lambda found: f"<{_identifier(found[1])}>", path)


class Document:
    """A checked OpenAPI document; *operations* holds where each of them stands, by its id."""

    def __init__(self, contents: Mapping[str, Any], base: str, authenticators: Mapping[str, Scheme]) -> None:
        self._dialect = dialect(contents, base)
        self._root = SchemaPath.from_dict(contents, base_uri=base)
        self._authenticators = authenticators
        self.operations = dict(self._found())

    def _found(self) -> Iterator[tuple[str, tuple[str, str, SchemaPath]]]:
        for path, item in (self._root / "paths").str_items():
            for method in (method for method in METHODS if method.lower() in item):
                name = (item / method.lower() / "operationId").read_str(f"{method} {path}")
                yield name, (method, path, item)

    def operation(self, name: str) -> Operation:
        """
        The operation called *name*.

        Raises:
            ConfigError: it asks for what is not supported, or has no authenticator.
        """
        method, path, item = self.operations[name]
        found = item / method.lower()
        body = found / "requestBody" if "requestBody" in found else None
        return Operation(
            method,
            path,
            name,
            tuple(self._parameters(found, item)),
            self._content(body) if body is not None else {},
            body is not None and (body / "required").read_bool(default=False),
            {status: self._content(answer, True) for status, answer in (found / "responses").str_items()},
            self._authenticator(found),
        )

    def _parameters(self, *places: SchemaPath) -> Iterator[Parameter]:
        """Those of the operation, and those of its path that it does not have itself."""
        seen: set[tuple[str, str]] = set()
        for place in places:
            for each in place / "parameters" if "parameters" in place else ():
                parameter = Parameter(self._dialect, self._root, each)
                if (parameter.place, parameter.name) not in seen:
                    seen.add((parameter.place, parameter.name))
                    yield parameter

    def _content(self, owner: SchemaPath, answers: bool = False) -> Content:
        if "content" not in owner:
            return {}
        return {
            essence: self._schema(essence, kind, answers) for essence, kind in (owner / "content").str_items()
        }

    def _schema(self, essence: str, kind: SchemaPath, answers: bool) -> Schema | None:
        if "schema" not in kind or not _is_json(essence):
            return None  # other formats than JSON are for the processor to read
        return Schema(self._dialect, self._root, kind / "schema", answers)

    def _authenticator(self, operation: SchemaPath) -> Authenticator | None:
        owner = operation if "security" in operation else self._root
        wanted = (owner / "security").read_value() if "security" in owner else []
        if not wanted:
            return None
        found = [self._one(requirement) for requirement in wanted]
        return found[0] if len(found) == 1 else _AnyOf(tuple(found))

    def _one(self, requirement: Mapping[str, Sequence[str]]) -> Authenticator:
        if len(requirement) != 1:
            raise ConfigError(
                f"security {dict(requirement)} is not supported: name one scheme in each requirement"
            )
        [(scheme, scopes)] = requirement.items()
        found = self._authenticators.get(scheme)
        if found is None:
            raise ConfigError(
                f"security scheme {scheme!r} has no authenticator: give it one in authenticators"
            )
        if not isinstance(found, Authenticator):
            return found(tuple(scopes))
        if scopes:
            raise ConfigError(
                f"nobody checks the scopes {list(scopes)}: let {scheme!r} be a function of them"
            )
        return found


class _AnyOf:
    """Who is known to one of several authenticators, asked one after the other."""

    def __init__(self, authenticators: tuple[Authenticator, ...]) -> None:
        self._authenticators = authenticators
        self.challenge = ", ".join(getattr(one, "challenge", type(one).__name__) for one in authenticators)

    def authenticate(self, request: Request) -> Principal | None:
        """The first principal that is found."""
        return next(filter(None, (one.authenticate(request) for one in self._authenticators)), None)
