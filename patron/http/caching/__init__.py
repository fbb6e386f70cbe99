"""
The cache of routes: answers are kept and served again, by the rules of HTTP (RFC 9111) as far as clients may ask.

What describes a cache is imported at once; what makes it live, and Flask with it, when it is first used.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from patron.http.caching.settings import RouteCache

if TYPE_CHECKING:
    from patron.http.caching.middleware import CachedApp, CachedHandler

__all__ = ["RouteCache", "cached", "cached_app"]


def cached(settings: RouteCache, *, service: str = "") -> CachedHandler:
    """
    A cache as a middleware of a route: ``get("/books", books, middlewares=(cached(RouteCache(max=30)),))``.

    It runs inside Flask, so hooks apply to hits too. *service* names the service in keys that
    several services can see; by default it is the one that is asked.
    """
    from patron.http.caching.middleware import CachedHandler

    return CachedHandler(settings, service)


def cached_app(
    settings: RouteCache, *, paths: Iterable[str] = (), route: str = "*", service: str = ""
) -> CachedApp:
    """
    A cache as WSGI middleware, ``app -> app``, for Flask views and mounted applications.

    Args:
        settings: how long answers are kept.
        paths: what is cached, each with everything below it; empty is everything but the admin routes.
        route: the label of its metrics where no pattern is known.
        service: names the service in keys that several services can see; by default it is the one that is
            asked, and for applications outside of one it is ``service``.

    Raises:
        ConfigError: a path does not begin with ``/``.
    """
    from patron.http.caching.middleware import CachedApp

    return CachedApp(settings, paths, route, service)
