"""Answers as Flask's kind of response, for middlewares."""

from __future__ import annotations

from typing import Any

from patron.http.caching.capture import Answer
from patron.http.processor import Reply

__all__ = ["as_reply"]


def as_reply(answer: Answer) -> Any:
    """*answer* as a response with the same status, headers and body."""
    response = Reply(answer.body, answer.status, answer.headers)
    if not any(name.lower() == "content-type" for name, _ in answer.headers):
        response.headers.remove("Content-Type")  # werkzeug gives one to every response without
    return response
