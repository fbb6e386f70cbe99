"""How much of a request's body the server may read, and when: asked before the first byte of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from patron.http.router import Router
from patron.http.routes import Route

__all__ = ["Intake", "Intakes"]


class Intake(NamedTuple):
    """*limit* is in bytes; with *stream* the body is not read ahead of the processor."""

    limit: int
    stream: bool


class Intakes:
    """What each request may bring. All threads share it."""

    def __init__(self, router: Router, limit: int, routes: Iterable[Route]) -> None:
        self._router = router
        self._usual = Intake(limit, False)
        self._asks = any(route.stream or route.max_body is not None for route in routes)

    def of(self, method: str, target: str) -> Intake:
        """
        For a request of *method* and *target*, as the request line has it (latin-1). Never raises.
        """
        if not self._asks:
            return self._usual
        endpoint = self._router.match(method, _path(target)).endpoint
        limit = self._usual.limit if endpoint.max_body is None else endpoint.max_body
        return Intake(limit, endpoint.stream)


def _path(target: str) -> str:
    """The path of *target* as WSGI has it, whether it is in origin form or in absolute form."""
    path = target.partition("?")[0].partition("#")[0]
    if not path.startswith("/"):  # RFC 9112, section 3.2.2
        path = "/" + path.partition("://")[2].partition("/")[2]
    return unquote_to_bytes(path.encode("latin-1", "replace")).decode("latin-1") if "%" in path else path
