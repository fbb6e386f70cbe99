"""Which entry a request is about: what its key is made of."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any
from urllib.parse import unquote_plus

from patron.cache.spec import MEMORY, is_resource
from patron.http.auth import Principal
from patron.http.caching.settings import RouteCache

__all__ = ["Keys", "sorted_query"]

_LONGEST = 200
#: Stands for the header that HTTP/1.0 may leave out: no client can send it, since values are stripped.
_NO_HOST = " "
_PARTS = ("wsgi.url_scheme", "HTTP_HOST", "SCRIPT_NAME", "PATH_INFO")


class Keys:
    """
    Makes the keys of one route.

    Scheme and host are in them, since links in an answer may be made of what the client said in
    ``Host``. Where somebody else can read the keys they are hashed.
    """

    def __init__(self, service: str, route: str, settings: RouteCache, *, private: bool) -> None:
        # With other settings what was kept before means something else: after a change nothing of it is found.
        meaning = _digest(repr((settings.max, settings.stale_if_error, settings.vary, private)))[:8]
        # A store of our own has the service in its prefix.
        owner = f"{service}:" if is_resource(settings.store) else ""
        self._place = f"{owner}{route}:{meaning}:"
        # Without the route: a path may be changed by a route with another pattern.
        self._marks = f"{owner}~changed:{meaning}:"
        self._vary = tuple(_environ_key(name) for name in settings.vary)
        self._hashed = settings.store != MEMORY

    def of(self, environ: Mapping[str, Any], accepted: str, principal: Principal | None) -> str:
        """The key of the request in *environ*, whose answer will be in the format *accepted*."""
        get = environ.get
        query = get("QUERY_STRING", "")
        text = (
            f"{get('wsgi.url_scheme')}\0{get('HTTP_HOST', _NO_HOST)}\0{get('SCRIPT_NAME')}\0{get('PATH_INFO')}"
            f"\0{sorted_query(query) if '&' in query else query}\0{accepted}"
        )
        if text.count("\0") != 5:
            text = repr([*map(get, _PARTS), query, accepted])  # a part has a zero byte in it
        if self._vary:
            text = repr((text, [get(name, "").strip() if name in environ else None for name in self._vary]))
        if principal is not None:
            text = f"{fingerprint(principal, environ)}\0{text}"
        if self._hashed or len(text) > _LONGEST:
            text = _digest(text)
        return self._place + text

    def mark_of(self, path: str) -> str:
        """Where a store that is shared keeps the mark of *path*."""
        return self._marks + _digest(path)


def _environ_key(name: str) -> str:
    key = name.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + key


def sorted_query(query: str) -> str:
    """
    *query* with its parameters sorted by name.

    Those of one name stay in their order, for it may matter. Names are compared decoded, for ``%61`` is
    another way to write ``a``.
    """
    return "&".join(sorted(query.split("&"), key=_name)) if "&" in query else query


def _name(parameter: str) -> str:
    name = parameter.partition("=")[0]
    return unquote_plus(name) if "%" in name or "+" in name else name


def fingerprint(principal: Principal, environ: Mapping[str, Any]) -> str:
    """
    Who asks, as nobody can read it.

    The credentials are part of it: a validator that only says yes gives everybody the same name.
    """
    claims = sorted(principal.claims.items()) if principal.claims else ""
    return _digest(repr((principal.name, claims, environ.get("HTTP_AUTHORIZATION"))))


def _digest(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()
