"""
HTTP: routes and processors, negotiation, authentication, admin routes, behind one WSGI callable.

What only describes a service is imported at once; Flask comes with `build`, when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from patron.http.auth import ApiKey, Authenticator, Basic, Bearer, Principal
from patron.http.caching import RouteCache, cached, cached_app
from patron.http.compression import Compression
from patron.http.cors import Cors, cors
from patron.http.limits import RateLimit
from patron.http.message import Request, Response
from patron.http.routes import Route, RouteInfo, delete, get, patch, post, put
from patron.http.settings import AccessLog, HttpSettings
from patron.http.static import StaticFiles, spa
from patron.http.tls import Tls

if TYPE_CHECKING:
    from patron.http.admin import Admin
    from patron.http.app import HttpApp, build

__all__ = [
    "AccessLog",
    "Admin",
    "ApiKey",
    "Authenticator",
    "Basic",
    "Bearer",
    "Compression",
    "Cors",
    "HttpApp",
    "HttpSettings",
    "Principal",
    "RateLimit",
    "Request",
    "Response",
    "Route",
    "RouteCache",
    "RouteInfo",
    "StaticFiles",
    "Tls",
    "build",
    "cached",
    "cached_app",
    "cors",
    "delete",
    "get",
    "patch",
    "post",
    "put",
    "spa",
]

_late = {"Admin": "patron.http.admin", "HttpApp": "patron.http.app", "build": "patron.http.app"}


def __getattr__(name: str) -> Any:
    if name not in _late:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_late[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_late})
