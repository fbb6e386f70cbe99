"""Everything that an application serves, listed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import flask

from patron.http.processor import View
from patron.http.router import Application, Endpoint
from patron.http.routes import METHODS, Route, RouteInfo

__all__ = ["admin_infos", "flask_infos", "mount_infos"]


def flask_infos(application: flask.Flask) -> Iterator[RouteInfo]:
    """Processors and views."""
    for rule in application.url_map.iter_rules():
        view = application.view_functions.get(rule.endpoint)
        route = view.route if isinstance(view, View) else None
        for method in sorted(_own_methods(rule.methods or set(), route)):
            yield _info(method, rule.rule, rule.endpoint, view, route)


def _own_methods(methods: Iterable[str], route: Route | None) -> Iterable[str]:
    """The methods that were asked for, without those that Flask adds: HEAD to GET, OPTIONS to all."""
    if route is not None:
        return [route.method]
    chosen = set(methods) & set(METHODS)
    return chosen - {"OPTIONS"} - ({"HEAD"} if "GET" in chosen else set()) or chosen


def _info(method: str, path: str, endpoint: str, view: Any, route: Route | None) -> RouteInfo:
    if route is None:
        return RouteInfo(method, path, endpoint, "view", _named(view))
    return RouteInfo(
        method,
        path,
        endpoint,
        "processor",
        _named(route.processor),
        type(route.authenticator).__name__ if route.authenticator is not None else None,
        _cache(route),
        "; ".join(map(str, route.limits)) or None,
    )


def _cache(route: Route) -> str | None:
    if route.cache is None:
        return None
    return f"{route.cache.min:g} to {route.cache.max:g} s"


def mount_infos(mounts: Mapping[str, Application]) -> Iterator[RouteInfo]:
    """Mounted applications."""
    for prefix, application in mounts.items():
        yield RouteInfo("*", f"{prefix}/*", prefix, "mount", _named(application))


def admin_infos(admin: Mapping[str, Endpoint]) -> Iterator[RouteInfo]:
    """The admin routes."""
    for path in admin:
        yield RouteInfo("GET", path, f"admin {path}", "admin", "patron")


def _named(what: Any) -> str:
    name = getattr(what, "__qualname__", None) or type(what).__qualname__
    return f"{getattr(what, '__module__', '?')}:{name}"
