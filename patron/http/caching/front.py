"""A cached route in front of Flask: a hit is answered without it, a miss is Flask's to answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from patron import encoding
from patron.http.caching.capture import Answer, Application, capture
from patron.http.caching.engine import Cache
from patron.http.caching.replies import as_reply, moved
from patron.http.instrument import EXCHANGE
from patron.http.message import Request
from patron.http.negotiate import choose
from patron.http.processor import FRONT, reply

if TYPE_CHECKING:
    from patron.http.processor import View

__all__ = ["Front"]


class Front:
    """
    The WSGI application that answers GET and HEAD of one route with a cache; all threads share it.

    It runs the chain in front of the cache. Behind the cache Flask runs, with its hooks and error
    handlers, and so it does for an error that the chain raises.
    """

    def __init__(
        self, view: View, flask: Application, *, service: str = "service", watches: bool = True
    ) -> None:
        assert view.route.cache is not None
        self.view = view
        self._flask = flask
        self._settings = settings = view.route.cache
        self._cache = Cache(
            settings,
            view.route.path,
            service=service,
            authenticated=view.route.authenticator is not None,
            watches=watches,
        )
        self._chain: Callable[[Request], Any] | None = None
        self._offers: tuple[str, ...] = ()
        self._bare = False  # whether there is nothing in front of the cache

    def start(self, resources: Mapping[str, Any]) -> None:
        """Open the store, and put the chain of the view around the cache; after the view's own start."""
        if self._settings.enabled:
            self._cache.open(resources)
        innermost = self._reply if self.view.route.middlewares else self._answer
        self._chain = self.view.around(innermost)
        self._bare = self._chain == innermost
        self._offers = self.view.route.produces or encoding.media_types()

    def invalidate(self, path: str) -> None:
        """Serve nothing any more of what was kept for *path*. Never raises."""
        if self._settings.enabled:
            self._cache.invalidate(path)

    def close(self) -> None:
        """Close the store. May be called twice."""
        self._cache.close()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if not self._settings.enabled:
            return self._flask(environ, start_response)
        try:
            answer = self._answered(environ)
        except Exception as error:  # noqa: BLE001 - the user's error handlers have a word in it
            environ[FRONT] = error
            return self._flask(environ, start_response)
        if isinstance(answer, Answer):
            start_response(answer.status, answer.headers)
            return answer.body
        made: Application = answer
        return made(environ, start_response)

    def _answered(self, environ: dict[str, Any]) -> Any:
        """An `Answer`, or the response that a middleware made of it."""
        if self._bare:
            accepted = choose(environ.get("HTTP_ACCEPT"), self._offers)
            if accepted is not None:
                return self._cache.answer(environ, accepted, None, self._run)
        assert self._chain is not None, "the gate lets nobody in before start()"
        request = self.view.request(environ, environ[EXCHANGE].match.args)
        answer = self._chain(request)
        return answer if isinstance(answer, Answer) else reply(answer, request)

    def _answer(self, request: Request) -> Answer:
        """The innermost handler of the chain: the cache, and behind it Flask with the processor."""

        def run(environ: dict[str, Any]) -> Answer:
            return self._dispatched(request, environ)

        return self._cache.answer(request.environ, request.accepted, request.principal, run)

    def _run(self, environ: dict[str, Any]) -> Answer:
        """The same without a chain: a hit needs no `Request`."""
        request = self.view.request(environ, environ[EXCHANGE].match.args)
        return self._dispatched(request, environ)

    def _dispatched(self, request: Request, environ: dict[str, Any]) -> Answer:
        environ[FRONT] = moved(request, environ)
        try:
            return capture(self._flask, environ, self._settings.max_body)
        finally:
            environ.pop(FRONT, None)  # a hook of Flask's may have answered before the view

    def _reply(self, request: Request) -> Any:
        """The same for middlewares, which expect Flask's kind of response."""
        return as_reply(self._answer(request))
