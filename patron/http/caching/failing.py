"""What counts as a failure of the processor, and who is told of one that the client does not see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from werkzeug.exceptions import HTTPException

from patron.errors import http_error
from patron.http import failure
from patron.http.instrument import EXCHANGE, Exchange
from patron.observe import log, report_error

__all__ = ["is_failure", "tell"]


def is_failure(error: BaseException) -> bool:
    """Whether *error* is answered with a 5xx, and is not just an answer of another kind."""
    meant = http_error(error)
    if meant is not None:
        return meant.status >= 500
    return not isinstance(error, HTTPException) or (error.code or 500) >= 500


def tell(error: BaseException, environ: Mapping[str, Any], route: str) -> None:
    """Tell log, span and error reporter of *error*, in whose place an old answer is given."""
    exchange: Exchange | None = environ.get(EXCHANGE)
    if exchange is not None:
        failure.meaning(error, exchange)
        return
    log.error("request failed", route=route, exc_info=error)
    report_error(error, route=route)
