"""Routes that a service's own code lists, among those of the file."""

from __future__ import annotations

from typing import Any

import pytest

CODE = """
from patron import Route

LISTED = [Route("GET", "/a", lambda request: 1), Route("GET", "/b", lambda request: 2)]
NO_ROUTES = [1, 2]


def made():
    return iter(LISTED)


def numbers():
    return NO_ROUTES


def fails():
    raise LookupError("no document")


def show(request):
    return 3
"""


@pytest.mark.parametrize("name", ["LISTED", "made"])
def test_a_list_of_routes_or_what_makes_one_stands_among_the_routes(world: Any, name: str) -> None:
    world.module("wares", CODE)
    configuration = world.load(
        f"name: a\nhttp: {{routes: ['wares:{name}', {{method: GET, path: /c, processor: 'wares:show'}}]}}\n"
    )
    assert [route.path for route in configuration.service.routes] == ["/a", "/b", "/c"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("NO_ROUTES", "http.routes[0]"),
        ("numbers", "which is no list of routes"),
        ("fails", "LookupError: no document"),
    ],
)
def test_what_makes_no_routes_is_a_mistake_of_the_file(world: Any, name: str, said: str) -> None:
    world.module("wares", CODE)
    assert said in world.problem(f"name: a\nhttp: {{routes: ['wares:{name}']}}\n")
