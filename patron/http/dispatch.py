"""Flask, told which route matched, and with our form for errors that nobody handles."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit, urlunsplit

import flask
from flask.sessions import NullSession, SecureCookieSessionInterface
from werkzeug.exceptions import HTTPException
from werkzeug.routing import MapAdapter, RequestRedirect

from patron.errors import http_error
from patron.http import failure
from patron.http.instrument import EXCHANGE, Exchange
from patron.http.processor import Reply, View
from patron.http.router import Match

__all__ = ["Dispatcher"]


class _Matched(MapAdapter):
    """Flask's URL adapter with the matching done already; all else it has is made when somebody asks."""

    def __init__(self, application: Dispatcher, request: flask.Request, match: Match) -> None:
        self._application = application
        self._request = request
        self._found = match

    def __getattr__(self, name: str) -> Any:
        if name not in _ADAPTER_ATTRIBUTES:
            raise AttributeError(name)
        self.__dict__.update(vars(flask.Flask.create_url_adapter(self._application, self._request)))
        return self.__dict__[name]

    def match(self, path_info: Any = None, method: Any = None, *args: Any, **options: Any) -> Any:
        if path_info is not None or method is not None or not options.get("return_rule"):
            return super().match(path_info, method, *args, **options)
        if self._found.error is not None:
            raise self._found.error
        return self._found.rule, self._found.args


_ADAPTER_ATTRIBUTES = frozenset(MapAdapter.__init__.__code__.co_varnames[1:9])


class _Sessions(SecureCookieSessionInterface):
    """Flask's sessions, where all requests without a secret key share the one session that refuses writes."""

    def __init__(self) -> None:
        self._null = self.null_session_class()

    def make_null_session(self, app: flask.Flask) -> NullSession:
        return self._null


class Dispatcher(flask.Flask):
    """Flask, told which route matched, and with our form for errors that nobody handles."""

    response_class = Reply
    session_interface = _Sessions()

    def create_url_adapter(self, request: flask.Request | None) -> MapAdapter | None:
        exchange: Exchange | None = request.environ.get(EXCHANGE) if request is not None else None
        if request is None or exchange is None or self.config["TRUSTED_HOSTS"] is not None:
            return super().create_url_adapter(request)
        match = exchange.match
        if match.rule is None and match.error is None:
            return super().create_url_adapter(request)
        return _Matched(self, request, match)

    def ensure_sync(self, func: Any) -> Any:
        return func if type(func) is View else super().ensure_sync(func)

    def make_response(self, rv: Any) -> flask.Response:
        if type(rv) is Reply:
            return rv
        if isinstance(rv, HTTPException):
            if rv.response is None and (rv.code or 500) >= 400:
                return _reply(failure.from_flask(rv, flask.request.environ))
            if isinstance(rv, RequestRedirect):
                rv.new_url = _relative(rv.new_url, flask.request.host)
            rv = rv.get_response(flask.request.environ)  # a redirect, or what abort() was given
        return super().make_response(rv)

    def handle_user_exception(self, e: Exception) -> Any:
        exchange: Exchange | None = flask.request.environ.get(EXCHANGE)
        if exchange is not None:
            exchange.error = e  # the span's, when what a handler makes of it is a 5xx
        return super().handle_user_exception(e)

    def handle_exception(self, e: Exception) -> flask.Response:
        environ = flask.request.environ
        exchange: Exchange | None = environ.get(EXCHANGE)  # none: Flask was called without what is around it
        meant = failure.meaning(e, exchange) if exchange is not None else http_error(e)
        if meant is None:
            return super().handle_exception(e)  # a user's handler for 500 applies
        answer = failure.render(meant.status, meant.payload, meant.headers.items(), environ)
        return self.finalize_request(_reply(answer), from_error_handler=True)

    def log_exception(self, exc_info: Any) -> None:
        """Log nothing that `failure.meaning` has logged."""
        if EXCHANGE not in flask.request.environ:
            super().log_exception(exc_info)


def _relative(url: str, host: str) -> str:
    """*url* without the *host* that the client named itself (RFC 9110, section 10.2.2); another one stays."""
    parts = urlsplit(url)
    if parts.netloc != host:
        return url
    # With two slashes in front it would name a host again.
    return urlunsplit(("", "", "/" + parts.path.lstrip("/"), parts.query, ""))


def _reply(failed: failure.Failure) -> flask.Response:
    return Reply([failed.body], failure.STATUS_LINES[failed.status], failed.headers)
