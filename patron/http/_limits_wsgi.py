"""A rate limit in front of a WSGI application, or of views of Flask's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from patron.cache.opening import named
from patron.errors import ConfigError, HTTPError
from patron.http import failure
from patron.http._limits_enforced import Limiter
from patron.http.instrument import EXCHANGE, Exchange
from patron.http.limits import RateLimit, limiter
from patron.http.remote import client_address, counted_as

__all__ = ["Limited"]

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Limited:
    """A limit as WSGI middleware: ``app -> app``. All threads share it; its store is opened when it is first asked."""

    def __init__(self, limit: RateLimit, route: str, workers: int) -> None:
        if limit.by == "principal":
            raise ConfigError(
                "rate limit: who asks is known to routes with an authenticator only: limit by address or route here"
            )
        self.limit = limit
        self._route = route
        self._workers = workers
        self._lock = threading.Lock()  # guards the making of the limiter
        self._limiter: Limiter | None = None

    def __call__(self, application: Application) -> Application:
        """*application* behind the limit."""

        def limited(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            try:
                self.check(environ)
            except HTTPError as error:
                if EXCHANGE in environ:
                    raise  # what is around us makes an answer of it
                answer = failure.render(error.status, error.payload, error.headers.items(), environ)
                start_response(failure.STATUS_LINES[answer.status], answer.headers)
                return [answer.body]
            return application(environ, start_response)

        limited.close = self.close  # type: ignore[attr-defined]  # at the stop of the service that it is a part of
        return limited

    def check(self, environ: dict[str, Any]) -> None:
        """
        Let the request pass; for ``before_request`` of a blueprint.

        Raises:
            TooManyRequests: it is one too many. ServiceUnavailable: the store failed, and the limit refuses then.
        """
        key = counted_as(client_address(environ)) if self.limit.by == "address" else ""
        (self._limiter or self._opened(environ)).take(key)

    def _opened(self, environ: Mapping[str, Any]) -> Limiter:
        exchange: Exchange | None = environ.get(EXCHANGE)
        service = exchange.service if exchange is not None else "service"
        with self._lock:
            if self._limiter is None:
                self._limiter = limiter(
                    self.limit,
                    route=self._route,
                    workers=self._workers,
                    resources=named(self.limit.store),
                    service=service,
                )
            return self._limiter

    def close(self) -> None:
        """Close the store; the next request opens it again."""
        with self._lock:
            closing, self._limiter = self._limiter, None
        if closing is not None:
            closing.close()
