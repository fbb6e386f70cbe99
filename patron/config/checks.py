"""Mistakes that no single value shows: names given twice, functions that do not fit, ports used twice."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

from patron import calling, http, resources
from patron.cache.spec import resource_problems
from patron.config.document import Node
from patron.config.layout import file_shape
from patron.config.making import Http, Part
from patron.config.names import did_you_mean
from patron.config.reading import Built, Reader
from patron.http import RateLimit, Route, RouteCache
from patron.http.routes import shape as same_requests

__all__ = ["run"]


def run(root: Node, values: Mapping[str, Any], reader: Reader) -> None:
    """Note every such mistake in what *reader* has built of the file."""
    parts = [built for built in reader.built if isinstance(built.value, Part)]
    routes = [built for built in reader.built if isinstance(built.value, Route)]
    _unique(
        reader,
        parts,
        lambda part: part.component.name,
        lambda part: f"the component name {part.component.name!r}",
    )
    # What clashes here would only be found once more by the application.
    if _unique(reader, routes, _requests, lambda route: f"the route '{route.method} {route.path}'"):
        _served(root, values, reader)
    _ports(parts, values, reader)
    _calls(root, reader)
    _stores(root, reader)
    _memory_per_worker(values, reader)


def _requests(route: Route) -> Hashable:
    """Equal for two routes that answer the same requests."""
    return route.method, same_requests(route.path)


def _unique(
    reader: Reader, built: Iterable[Built], key: Callable[[Any], Hashable], called: Callable[[Any], str]
) -> bool:
    """Note each of *built* whose *key* another one before has; whether there is none."""
    first: dict[Hashable, Built] = {}
    taken = [one for one in built if first.setdefault(key(one.value), one) is not one]
    for one in taken:
        earlier = first[key(one.value)]
        where = f"{earlier.path} in line {earlier.node.place.line}"
        reader.problems.add(one.node.place, one.path, f"{called(one.value)} is taken by {where}")
    return not taken


def _served(root: Node, values: Mapping[str, Any], reader: Reader) -> None:
    """Routes, blueprints and mounts that clash with each other or with the admin routes."""
    served = values.get("http")
    if isinstance(served, Http):
        with reader.problems.at(_node(root, "http").place, "http"):
            http.build(served.settings, **served.serves)


def _node(root: Node, name: str) -> Node:
    inner = root.value.get(name) if isinstance(root.value, dict) else None
    return inner or root


def _ports(parts: Iterable[Built], values: Mapping[str, Any], reader: Reader) -> None:
    """Components that listen where HTTP, or a component before them, does; port 0 is a free one."""
    served = values.get("http", file_shape().field("http").default)
    taken = {served.settings.port: "http"} if isinstance(served, Http) else {}
    for part in parts:
        for _, port in getattr(part.value.component, "ports", ()):
            if port and port in taken:
                reader.problems.add(
                    part.node.place, part.path, f"port {port} is taken by {taken[port]}: choose another"
                )
            taken.setdefault(port, part.path)


#: By the key where each kind of function stands: how many arguments Patron calls it with, and whether
#: the others are resources by name.
_CALLS = {
    "processor": (1, True),
    "function": (0, True),
    "on_start": (0, True),
    "on_stop": (0, True),
    "ready_checks": (0, True),
    "alive_check": (0, False),
    "on_sighup": (0, False),
    "error_reporter": (2, False),
}


def _calls(root: Node, reader: Reader) -> None:
    """Functions that do not take what they are called with, or ask for what is no resource."""
    opened = _keys(root, "resources")
    for found in reader.named:
        if found.path.partition(".")[0] == "ready_checks":
            key = "ready_checks"  # and then the name of one
        else:
            key = found.path.rpartition(".")[2].partition("[")[0]
        if key in _CALLS:
            _arguments(found, *_CALLS[key], opened, "give the argument a default", reader)
    for built in reader.built:
        if built.path.startswith("resources.") and callable(built.value):
            _arguments(built, 0, True, opened, "give it to the factory under 'args'", reader)


def _arguments(
    found: Built, given: int, injects: bool, opened: Sequence[str], otherwise: str, reader: Reader
) -> None:
    written = found.node.value
    function = written if isinstance(written, str) else calling.named(found.value)
    for name in resources.wanted_names(found.value, given=given) if injects else ():
        if name not in opened:
            hint = did_you_mean(name, opened) or f" (there are: {', '.join(opened) or 'none'})"
            reader.problems.add(
                found.node.place,
                found.path,
                f"{function!r} asks for {name!r}, which is no resource{hint}: "
                f"add it under 'resources', or {otherwise}",
            )
    if misfit := calling.misfit(found.value, given, injects=injects):
        reader.problems.add(found.node.place, found.path, misfit)


def _keys(root: Node, name: str) -> tuple[str, ...]:
    node = _node(root, name)
    return tuple(node.value) if node is not root and isinstance(node.value, dict) else ()


def _stores(root: Node, reader: Reader) -> None:
    """Caches and limits that name a resource which is not there."""
    opened = _keys(root, "resources")
    for built in reader.built:
        if isinstance(built.value, RateLimit | RouteCache):
            for problem in resource_problems(built.value.store, opened):
                reader.problems.add(_node(built.node, "store").place, f"{built.path}.store", problem)


def _memory_per_worker(values: Mapping[str, Any], reader: Reader) -> None:
    workers = values.get("workers", 1)
    for built in reader.built:
        if isinstance(workers, int) and workers > 1 and getattr(built.value, "system", None) == "memory":
            reader.problems.warn(
                built.node.place,
                built.path,
                f"each of the {workers} workers has its own memory source: they share no messages",
            )
