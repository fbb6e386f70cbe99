"""How a processor runs as a Flask view: negotiation, authentication, middlewares, and its answer's way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

import flask
from werkzeug import wrappers
from werkzeug.datastructures import Headers

from patron import encoding
from patron.calling import refuse_awaitable
from patron.errors import EncodeError, NotAcceptable, UnknownContentType
from patron.http.auth import identify
from patron.http.deferred import settled
from patron.http.failure import BODILESS, STATUS_LINES
from patron.http.message import Request, Response
from patron.http.negotiate import choose
from patron.http.routes import Handler, Middleware, Route
from patron.resources import bind

__all__ = ["FRONT", "Reply", "View", "reply"]

FRONT = "patron.front"
"""
Where the WSGI environment holds the `Request`, when the application in front of Flask calls Flask: the
chain around the processor has run already. Or the error that it ended with.
"""

_PLAIN = frozenset((dict, list, str, bytes, int, float, bool, type(None)))
_NONE: frozenset[str] = frozenset()
_LINKS = frozenset(("location", "content-location"))


class Reply(flask.Response):
    """
    Flask's response, with a short way out for bodies that are complete.

    Such a body goes to the server as a list, by which the instrumentation knows that the request is
    over and counts it before the client can have the answer.
    """

    default_mimetype = "text/html"

    def __call__(self, environ: Any, start_response: Any) -> Any:
        body = self.response
        if self._on_close or type(body) is not list:
            return super().__call__(environ, start_response)
        headers = self.headers.to_wsgi_list()
        names = {name.lower() for name, _ in headers}
        if (
            environ["REQUEST_METHOD"] == "HEAD"
            or self.status_code in BODILESS
            or not names.isdisjoint(_LINKS)
        ):
            return list(super().__call__(environ, start_response))
        chunks = [chunk if type(chunk) is bytes else chunk.encode() for chunk in body]
        if "content-length" not in names:
            headers.append(("Content-Length", str(sum(map(len, chunks)))))
        start_response(self.status, headers)
        return chunks


class View:
    """
    One route's Flask view; all threads share it.

    The chain, outermost first: limits by address and route, authenticator, limits by principal, the
    route's middlewares, the cache, the processor. Where there is a cache, an application in front of
    Flask runs the chain with `around`, and Flask only the processor.
    """

    def __init__(self, route: Route, workers: int = 1, service: str = "service") -> None:
        self.route = route
        self.__name__ = route.endpoint
        self._workers = workers
        self._service = service
        self._layers: tuple[Middleware, ...] = ()
        self._processor: Handler | None = None
        self._handler: Handler | None = None

    @property
    def view(self) -> View:
        """Itself: what is started and closed can say which route it is for."""
        return self

    def start(self, resources: Mapping[str, Any]) -> None:
        """Build the chain around the processor with *resources* in its arguments. Raises `ConfigError`."""
        route = self.route
        self._layers = (
            *self._limiters(resources, before=True),
            *((self._authenticated,) if route.authenticator is not None else ()),
            *self._limiters(resources, before=False),
            *(partial(_behind, middleware) for middleware in route.middlewares),
        )
        self._processor = bind(route.processor, resources, given=1)
        self._handler = self.around(self._processor)

    def close(self) -> None:
        """Close what `start` opened. May be called twice."""
        layers, self._layers = self._layers, ()
        for layer in layers:
            opened: Any = layer.args[0] if isinstance(layer, partial) else layer
            if hasattr(opened, "close") and not isinstance(opened, type):
                opened.close()

    def around(self, handler: Handler) -> Handler:
        """*handler* behind everything of the chain but the cache and the processor. After `start`."""
        for layer in reversed(self._layers):
            handler = layer(handler)
        return handler

    def _limiters(self, resources: Mapping[str, Any], *, before: bool) -> Iterator[Middleware]:
        """The limits that are asked *before* the authenticator, or behind it."""
        chosen = [limit for limit in self.route.limits if (limit.by == "principal") is not before]
        if not chosen:
            return
        from patron.http.limits import limiter

        for limit in chosen:
            yield limiter(
                limit,
                route=self.route.path,
                method=self.route.method,
                workers=self._workers,
                resources=resources,
                service=self._service,
            )

    def _authenticated(self, handler: Handler) -> Handler:
        authenticator = self.route.authenticator
        assert authenticator is not None

        def authenticated(request: Request) -> Any:
            request.principal = identify(authenticator, request)
            return handler(request)

        return authenticated

    def request(self, environ: dict[str, Any], params: Mapping[str, Any]) -> Request:
        """
        The request that *environ* holds.

        Raises:
            NotAcceptable: it accepts nothing that the route can answer.
        """
        offers = self.route.produces or encoding.media_types()
        accepted = _accepted(environ, offers)
        if accepted is None:
            raise NotAcceptable({"error": f"nothing acceptable: use {', '.join(offers)}"})
        return Request(environ, params, self.route.path, accepted)

    def __call__(self, **params: Any) -> wrappers.Response:
        environ = flask.request.environ
        if FRONT in environ:
            return self._behind_front(environ.pop(FRONT))
        request = self.request(environ, params)
        assert self._handler is not None, "the gate lets nobody in before start()"
        return reply(self._handler(request), request)

    def _behind_front(self, given: Request | Exception) -> wrappers.Response:
        if isinstance(given, BaseException):
            raise given
        assert self._processor is not None, "the front is started after its view"
        return reply(self._processor(given), given)


def _behind(middleware: Middleware, handler: Handler) -> Handler:
    return middleware(_normalized(handler))


def _normalized(handler: Handler) -> Handler:
    """*handler* with what it returns made a `Response`, so that a middleware can count on one."""

    def normalized(request: Request) -> Any:
        answer = settled(handler(request))
        return answer if isinstance(answer, Response | wrappers.Response) else Response(answer)

    return normalized


def reply(answer: Any, request: Request) -> wrappers.Response:
    """
    What a processor returned, as Flask's response: a `Response`, a Flask response, or a bare payload.

    Waits for what is not there yet.
    """
    if isinstance(answer, wrappers.Response):
        return answer
    response = answer if isinstance(answer, Response) else Response(answer)
    payload = response.payload
    if type(payload) not in _PLAIN:
        if isinstance(payload, Future):
            return reply(settled(answer), request)
        refuse_awaitable(payload)
    status = response.status or (204 if payload is None else 201 if request.method == "POST" else 200)
    headers = Headers(_checked(response.headers) if response.headers else None)
    if payload is None:
        return _empty(status, headers)
    # Not asked of werkzeug's headers: they raise, inside, for what they do not have.
    given = frozenset(map(str.lower, response.headers)) if response.headers else _NONE
    body, content_type = _body(payload, response.content_type)
    if content_type is None:
        if "vary" not in given:
            headers.add("Vary", "Accept")  # for caches on the way: RFC 9110, section 12.5.5
        body, content_type = _negotiated(payload, request.accepted)
    if "content-type" not in given:
        headers.add("Content-Type", content_type)
    return Reply(body, _status_line(status), headers)


def _status_line(status: int) -> str:
    if status not in STATUS_LINES:
        raise ValueError(f"{status!r} is no HTTP status: use 200 to 599")
    return STATUS_LINES[status]


def _checked(headers: Mapping[str, str | list[str]]) -> Mapping[str, str | list[str]]:
    """*headers*, if they can be sent: WSGI takes latin-1 only. (Line ends are refused by werkzeug.)"""
    for name, value in headers.items():
        for text in (name, *(value if isinstance(value, list) else (value,))):
            if not isinstance(text, str):
                raise TypeError(f"header {name!r} is {text!r}: use a string")
            if not text.isascii():
                text.encode("latin-1")
    return headers


def _empty(status: int, headers: Headers) -> flask.Response:
    response = Reply([], _status_line(status), headers)
    if "Content-Type" not in headers or status == 204:
        response.headers.remove("Content-Type")
    return response


def _body(payload: Any, content_type: str | None) -> tuple[Any, str | None]:
    """The body, as a list when it is complete, and its content type; without one it is still to be negotiated."""
    if type(payload) is dict and content_type is None:  # what nearly every processor returns
        return None, None
    if isinstance(payload, bytes | bytearray | memoryview):
        return [bytes(payload)], content_type or "application/octet-stream"
    if isinstance(payload, Iterator):
        return payload, content_type or "application/octet-stream"
    if content_type is None:
        return None, None
    if isinstance(payload, str):
        return [payload.encode()], _with_charset(content_type)
    return [encoding.encode(payload, content_type)], content_type


def _with_charset(content_type: str) -> str:
    text = content_type.startswith("text/") and "charset" not in content_type
    return f"{content_type}; charset=utf-8" if text else content_type


def _accepted(environ: Mapping[str, Any], offers: tuple[str, ...]) -> str | None:
    """
    The one of *offers* to answer in, None when the client accepts none of them.

    Who does not say what it accepts gets the format that it sent, as in the Go original: clients of Protocol
    Buffers often say no more than ``Content-Type``. Not for GET, whose answers others keep by ``Accept`` alone.
    """
    accept, sent = environ.get("HTTP_ACCEPT"), environ.get("CONTENT_TYPE")
    if sent and not accept and environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        essence = sent.partition(";")[0].strip().lower()
        if essence in offers and essence in encoding.media_types():
            return str(essence)
    return choose(accept, offers)


def _negotiated(payload: Any, accepted: str) -> tuple[list[bytes], str]:
    """
    *payload* as *accepted*, or as JSON when that format has no form for it.

    The processor has run by then, so a 406 would hide what it did; RFC 9110 (section 12.5.1) allows
    to answer as if there were no ``Accept``.
    """
    if accepted != encoding.JSON:
        try:
            codec = encoding.codec(encoding.media_type(accepted)[0])
            return [codec.encode(payload)], codec.content_type or accepted
        except (EncodeError, UnknownContentType):
            pass
    codec = encoding.codec(encoding.JSON)
    return [codec.encode(payload)], codec.content_type or encoding.JSON
