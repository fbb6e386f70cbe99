"""Routes: what is served where, checked before anything runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from patron import encoding
from patron.errors import ConfigError, UnknownContentType
from patron.http.auth import Authenticator
from patron.http.caching.settings import RouteCache
from patron.http.limits import RateLimit
from patron.http.message import Request
from patron.http.settings import MOST_SECONDS, is_time_out

__all__ = [
    "Handler",
    "Middleware",
    "Processor",
    "Route",
    "RouteInfo",
    "delete",
    "get",
    "patch",
    "post",
    "put",
]

# A processor takes the request, and by name the resources that it wants.
Processor = Callable[..., Any]
Handler = Callable[[Request], Any]
Middleware = Callable[[Handler], Handler]

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
#: RFC 9110, section 9.2.1. Every other method may change something, those that nobody knows included.
SAFE = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))


@dataclass(frozen=True, slots=True)
class Route:
    """
    One method of one path.

    Args:
        method: ``GET`` and so on; GET answers HEAD too.
        path: as in Flask: ``/orders/<id>``, ``/pages/<int:number>``, ``/files/<path:name>``.
        processor: gets a `Request`, and the service's resources that it names as arguments.
        middlewares: ``handler -> handler``, the first one outermost, all of them behind the authenticator.
        authenticator: who may ask; None is everybody.
        name: for ``url_for``; ``"GET /orders/<id>"`` without one.
        produces: media types that the processor may answer with, where it is not for the codecs to
            say (``("text/csv",)``); ``request.accepted`` tells which one the client wants.
        cache: how long answers are kept and given again; for GET only, HEAD is answered from the same.
        limits: how often it may be asked; more is answered with 429.
        timeout: seconds that an answer may take; None is ``http.timeout``. A client can ask for less
            with ``X-Request-Timeout-Ms``, not for more.
        max_body: bytes of a request's body, instead of ``http.max_body``.
        stream: the body is not read ahead of the processor: ``request.raw`` reads from the connection.
    """

    method: str
    path: str
    processor: Processor
    middlewares: tuple[Middleware, ...] = ()
    authenticator: Authenticator | None = None
    name: str | None = None
    produces: tuple[str, ...] = ()
    cache: RouteCache | None = None
    limits: tuple[RateLimit, ...] = ()
    timeout: float | None = None
    max_body: int | None = None
    stream: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", str(self.method).upper())
        for name in _LISTS:
            object.__setattr__(self, name, _listed(getattr(self, name)))
        if problems := [f"route {self.method} {self.path}: {problem}" for problem in _problems(self)]:
            raise ConfigError(*problems)

    @property
    def endpoint(self) -> str:
        """Its name in Flask."""
        return self.name or f"{self.method} {self.path}"

    @property
    def stores(self) -> tuple[str, ...]:
        """Where its limits and its cache keep what they know."""
        return (*(limit.store for limit in self.limits), *((self.cache.store,) if self.cache else ()))


@dataclass(frozen=True, slots=True)
class RouteInfo:
    """One served route, for listings: *kind* is ``processor``, ``view``, ``mount``, ``static`` or ``admin``."""

    method: str
    path: str
    name: str
    kind: str
    handler: str
    authenticator: str | None = None
    cache: str | None = None
    limits: str | None = None


_LISTS = ("middlewares", "produces", "limits")


def _listed(value: Any) -> Any:
    """*value* as a tuple; what is no list stays what it is, for `_list_problems`."""
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else value


def _problems(route: Any) -> Iterable[str]:
    wrong = list(_list_problems(route))
    yield from wrong or _own_problems(route)


def _list_problems(route: Any) -> Iterable[str]:
    for name in _LISTS:
        if not isinstance(getattr(route, name), tuple):
            yield f"{name} is {getattr(route, name)!r}: use a list"


def _own_problems(route: Any) -> Iterable[str]:
    if route.method not in METHODS:
        yield f"method {route.method!r} is unknown: use {', '.join(METHODS)}"
    yield from path_problems(route.path)
    if not callable(route.processor):
        yield f"processor {route.processor!r} cannot be called"
    for middleware in route.middlewares:
        if not callable(middleware):
            yield f"middleware {middleware!r} cannot be called"
    if route.authenticator is not None and not isinstance(route.authenticator, Authenticator):
        yield f"authenticator {type(route.authenticator).__name__} has no authenticate(request)"
    for name in route.produces:
        try:
            encoding.media_type(name)
        except UnknownContentType as error:
            yield str(error)
    if route.name is not None and not isinstance(route.name, str):
        yield f"name is {route.name!r}: use a string"
    yield from _cache_problems(route)
    yield from _limit_problems(route)
    yield from _body_problems(route)


def _cache_problems(route: Any) -> Iterable[str]:
    if route.cache is None:
        return
    if not isinstance(route.cache, RouteCache):
        yield f"cache is {route.cache!r}: use a RouteCache"
    if route.method != "GET":
        yield f"a cache goes with GET only, not with {route.method}"
    if route.stream:
        yield "a cached route has no body to stream: leave out stream or cache"


def _limit_problems(route: Any) -> Iterable[str]:
    for limit in route.limits:
        if not isinstance(limit, RateLimit):
            yield f"limit {limit!r} is no RateLimit"
        elif limit.by == "principal" and route.authenticator is None:
            yield "a limit by principal needs an authenticator: add one, or limit by address"
    if route.timeout is not None and not is_time_out(route.timeout):
        yield f"timeout is {route.timeout!r}: use seconds above 0, and at most {MOST_SECONDS}"


def _body_problems(route: Any) -> Iterable[str]:
    if not isinstance(route.stream, bool):
        yield f"stream is {route.stream!r}: use True or False"
    size = route.max_body
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= 2**40):
        yield f"max_body is {size!r}: use a whole number of bytes from 0 to {2**40}"


def path_problems(path: Any) -> Iterable[str]:
    """What is wrong with the pattern *path*."""
    if not isinstance(path, str) or not path.startswith("/"):
        yield f"path {path!r} must begin with /"
    elif "{" in path or re.search(r"/[:*]", path):
        yield "write path parameters as /orders/<id>"
    elif not path.isprintable() or any(mark in path for mark in "?# "):
        yield "a path has no spaces, ? or #"


_PARAMETER = re.compile(r"<(?:([a-zA-Z_]\w*(?:\([^)]*\))?):)?[^<>]*>")


def shape(path: str) -> str:
    """*path* without the names of its parameters: two paths of one shape match the same requests."""
    return _PARAMETER.sub(lambda found: f"<{found[1] or 'string'}>", path).replace("<default>", "<string>")


def clashes(served: Sequence[tuple[str, str, str]]) -> list[str]:
    """A problem for each (method, path, who) that cannot be reached since another one answers already."""
    owners: dict[tuple[str, str], str] = {}
    problems = []
    for method, path, who in sorted(served, key=lambda entry: entry[0] == "HEAD"):
        key = (method, shape(path))
        other = owners.get(key) or (owners.get(("GET", key[1])) if method == "HEAD" else None)
        if other is not None:
            problems.append(
                f"{who}: {method} {path} is already served by {other}: give it another path or method"
            )
        owners.setdefault(key, who)
    return problems


def _helper(method: str) -> Callable[..., Route]:
    def route(path: str, processor: Processor, **options: Any) -> Route:
        return Route(method, path, processor, **options)

    route.__name__ = route.__qualname__ = method.lower()
    route.__doc__ = f"A `Route` for {method}, with the same options."
    return route


get = _helper("GET")
post = _helper("POST")
put = _helper("PUT")
patch = _helper("PATCH")
delete = _helper("DELETE")
