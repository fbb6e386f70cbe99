"""Between the cache and Flask: requests with another environment, answers as Flask's kind of response."""

from __future__ import annotations

from typing import Any

from patron.http.caching.capture import Answer
from patron.http.message import Request
from patron.http.processor import Reply

__all__ = ["as_reply", "moved"]


def as_reply(answer: Answer) -> Reply:
    """*answer* as a response with the same status, headers and body."""
    response = Reply(answer.body, answer.status, answer.headers)
    if not any(name.lower() == "content-type" for name, _ in answer.headers):
        response.headers.remove("Content-Type")  # werkzeug gives one to every response without
    return response


def moved(request: Request, environ: dict[str, Any]) -> Request:
    """*request* with another environment."""
    if environ is request.environ:
        return request
    copy = Request(environ, request.params, request.route, request.accepted)
    copy.principal = request.principal
    return copy
