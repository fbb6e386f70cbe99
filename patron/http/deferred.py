"""Answers that come later: a processor may return a `concurrent.futures.Future`, or a `Response` with one in it."""

from __future__ import annotations

from concurrent.futures import CancelledError, Future
from dataclasses import replace
from typing import Any

from patron.errors import GatewayTimeout, ServiceUnavailable
from patron.http.message import Response
from patron.reliability.deadline import remaining

__all__ = ["settled"]


def settled(answer: Any) -> Any:
    """
    *answer* once it is there; blocks as long as the request's deadline allows.

    The error of a future is raised as if the processor had raised it.

    Raises:
        GatewayTimeout: the deadline passed; the future is cancelled if it has not begun.
        ServiceUnavailable: it was cancelled.
    """
    while isinstance(answer, Future):  # the result of one may be another
        answer = _result(answer)
    if isinstance(answer, Response) and isinstance(answer.payload, Future):
        return replace(answer, payload=settled(answer.payload))
    return answer


def _result(future: Future[Any]) -> Any:
    try:
        # Not `concurrent.futures.wait`: for one that was cancelled before it ran, that waits for ever.
        return future.result(remaining())
    except CancelledError as error:
        raise ServiceUnavailable(
            {"error": "the answer was cancelled"}, headers={"Retry-After": "1"}
        ) from error
    except TimeoutError as error:
        if future.done():  # the error of the work itself, or it has just become ready
            return future.result()
        future.cancel()
        raise GatewayTimeout({"error": "the answer did not come in time"}) from error
