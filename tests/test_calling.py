"""Functions that could not be called as Patron calls them are refused before anything runs."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from patron import Consumer, MemorySource, Periodic, Request, Route, Service, resources
from patron.cache import LRUStore
from patron.component import Stop
from patron.errors import ConfigError
from patron.http import RateLimit, RouteCache, get


async def later(*arguments: object) -> None: ...


async def each(*arguments: object) -> AsyncIterator[None]:
    yield


class Later:
    async def __call__(self, *arguments: object) -> None: ...

    async def method(self, *arguments: object) -> None: ...


ASYNC = [later, each, Later(), Later().method, functools.partial(functools.partial(Later(), 1), 2)]

PLACES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "GET /a": lambda function: {"routes": [Route("GET", "/a", function)]},
    "component c": lambda function: {"components": [Consumer("c", MemorySource("t"), function)]},
    "component p": lambda function: {"components": [Periodic("p", function, every=1)]},
    "on_start hook": lambda function: {"on_start": [function]},
    "on_stop hook": lambda function: {"on_stop": [function]},
    "on_sighup": lambda function: {"on_sighup": function},
    "alive_check": lambda function: {"alive_check": function},
    "ready check 'db'": lambda function: {"ready_checks": {"db": function}},
    "resource 'db'": lambda function: {"resources": {"db": function}},
    "error_reporter": lambda function: {"error_reporter": function},
    "mount '/asgi'": lambda function: {"mounts": {"/asgi": function}},
}


def problems(**described: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        Service("shop", **described)
    return caught.value.problems


@pytest.mark.parametrize("function", ASYNC, ids=["function", "generator", "callable", "method", "partial"])
@pytest.mark.parametrize("where", PLACES)
def test_what_is_async_is_refused_wherever_a_function_is_given(where: str, function: Any) -> None:
    found = [problem for problem in problems(**PLACES[where](function)) if "is async" in problem]
    assert len(found) == 1
    assert found[0].startswith(f"{where}: ")
    assert found[0].endswith("is async: Patron calls plain functions")


def test_a_component_with_an_async_run_is_refused() -> None:
    class Job:
        name = "job"

        async def run(self, stop: Stop) -> None: ...

    (problem,) = problems(components=[Job()])
    assert problem.startswith("component job: run: ")


@pytest.mark.parametrize("function", ASYNC)
def test_binding_refuses_what_is_async_even_where_nobody_looked_before(function: Any) -> None:
    with pytest.raises(ConfigError, match="is async: Patron calls plain functions"):
        resources.bind(function, {})


def nothing() -> None: ...


def one(request: Request) -> None: ...


def only_by_name(*, db: object) -> None: ...


@pytest.mark.parametrize("where", ["GET /a", "component c"])
@pytest.mark.parametrize("function", [nothing, only_by_name, functools.partial(one, None)])
def test_a_processor_takes_what_it_is_to_process(where: str, function: Any) -> None:
    (problem,) = problems(**PLACES[where](function), resources={"db": list})
    assert problem.startswith(f"{where}: test_calling:")
    assert "does not fit: Patron calls it with one argument (too many positional arguments)" in problem


@pytest.mark.parametrize("where", ["alive_check", "on_sighup"])
def test_what_is_called_without_arguments_takes_none(where: str) -> None:
    (problem,) = problems(**PLACES[where](one), resources={"request": list})
    assert problem.startswith(f"{where}: test_calling:one(request: ")
    assert problem.endswith("calls it with no argument (missing a required argument: 'request')")


@pytest.mark.parametrize("where", ["ready check 'db'", "on_start hook", "component p"])
def test_what_gets_resources_by_name_may_ask_for_those_that_there_are(where: str) -> None:
    assert Service("shop", **PLACES[where](only_by_name), resources={"db": list})
    (problem,) = problems(**PLACES[where](only_by_name), resources={"cache": list})
    assert problem.startswith(f"{where} asks for 'db', which is no resource (there are: cache)")


def test_an_argument_of_a_resource_can_be_filled_in() -> None:
    def open_db(path: str) -> object: ...

    (problem,) = problems(resources={"db": open_db})
    assert problem.endswith("add it under 'resources', or fill it in (functools.partial)")
    assert Service("shop", resources={"db": functools.partial(open_db, path="x")})


def test_a_function_without_a_signature_is_believed() -> None:
    assert Service("shop", on_sighup=type, ready_checks={"db": dict})


@pytest.mark.parametrize(
    "kept", [{"cache": RouteCache(1.0, store="kv")}, {"limits": (RateLimit(1, store="kv"),)}]
)
def test_a_store_that_is_no_resource_is_a_mistake_of_the_service(kept: dict[str, Any]) -> None:
    routes = [get("/a", lambda request: 1, **kept)]
    assert Service("shop", routes=routes, resources={"kv": LRUStore})
    (problem,) = problems(routes=routes, resources={"other": LRUStore})
    assert problem.startswith(
        "route GET /a: store 'kv' is no resource of the service (there are: other): use"
    )
