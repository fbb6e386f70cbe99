"""How an error becomes an answer, whatever raised it: processor, view, middleware or mounted application."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

from werkzeug.exceptions import HTTPException

from patron import encoding
from patron.errors import (
    ConnectionLost,
    DeadlineExceeded,
    EncodeError,
    GatewayTimeout,
    HTTPError,
    InternalServerError,
    PublishFailed,
    ServiceUnavailable,
    StorageFull,
    http_error,
)
from patron.http.head import is_header
from patron.http.negotiate import choose
from patron.observe import log, report_error

if TYPE_CHECKING:
    from patron.http.instrument import Exchange

__all__ = [
    "BODILESS",
    "PLAIN",
    "STATUS_CODES",
    "STATUS_LINES",
    "Failure",
    "answer",
    "from_flask",
    "meaning",
    "render",
]

# Long enough for a broker to be back or for somebody to make room, short enough for a person to wait.
_RETRY_AFTER = "5"


class Failure(NamedTuple):
    """An encoded error answer."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


def answer(error: BaseException, exchange: Exchange) -> Failure:
    """The answer to a request that failed with *error*. Nothing of an unexpected error gets into it."""
    meant = meaning(error, exchange) or InternalServerError()
    return render(meant.status, meant.payload, meant.headers.items(), exchange.environ)


def meaning(error: BaseException, exchange: Exchange) -> HTTPError | None:
    """What *error* means to the client, None when it is unexpected; tells the log and the operation."""
    meant = http_error(error) or _translated(error)
    if meant is None:
        log.error("request failed", **exchange.names(), exc_info=error)
        report_error(error, **exchange.names())
    elif not isinstance(error, HTTPError) and meant.status >= 500:
        log.warn(
            "request failed",
            **exchange.names(),
            status=meant.status,
            error=f"{type(error).__name__}: {error}",
        )
    if meant is None or meant.status >= 500:
        exchange.operation.fail(error)
    return meant


def _translated(error: BaseException) -> HTTPError | None:
    """What to answer for an error of ours that is no `HTTPError`, found when wrapped; None for any other."""
    for cause in _causes(error):
        if isinstance(cause, StorageFull | ConnectionLost | PublishFailed):
            return ServiceUnavailable(headers={"Retry-After": _RETRY_AFTER})
        if isinstance(cause, DeadlineExceeded):
            return GatewayTimeout()
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def from_flask(error: HTTPException, environ: Mapping[str, Any]) -> Failure:
    """The answer for Flask's own exceptions: ``abort(404)``, no such route, no such method."""
    status = error.code or 500
    usual = type(error).description
    text = error.description if isinstance(usual, str | None) and error.description != usual else None
    return render(status, {"error": text or phrase(status)}, error.get_headers(), environ)


def phrase(status: int) -> str:
    """The reason phrase of *status*."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


STATUS_LINES = {status: f"{status} {phrase(status)}" for status in range(100, 600)}
STATUS_CODES = {line: status for status, line in STATUS_LINES.items()}

#: Answers that have no body, whatever their length says (RFC 9110, section 6.4.1).
BODILESS = frozenset((*range(100, 200), 204, 304))

# What is answered when even the answer to an error fails.
PLAIN = Failure(500, [("Content-Type", "text/plain"), ("Content-Length", "22")], b"Internal Server Error\n")

# The headers that say how the body is framed and encoded: `render` knows that itself.
_OURS = frozenset(("content-length", "content-type", "transfer-encoding"))


def render(
    status: int, payload: Any, headers: Iterable[tuple[str, str]], environ: Mapping[str, Any]
) -> Failure:
    """*payload* as the ``Accept`` header wants it, or as JSON when that is not possible."""
    body, content_type = _encoded(payload, choose(environ.get("HTTP_ACCEPT"), encoding.media_types()))
    # An odd header must not turn the answer into another error.
    clean = [(name, value) for name, value in headers if is_header(name, value) and name.lower() not in _OURS]
    return Failure(status, [("Content-Type", content_type), ("Content-Length", str(len(body))), *clean], body)


def _encoded(payload: Any, wanted: str | None) -> tuple[bytes, str]:
    for media_type in (wanted or encoding.JSON, encoding.JSON):
        codec = encoding.codec(media_type)
        try:
            return codec.encode(payload), codec.content_type or media_type
        except EncodeError as error:
            failed = error
    log.warn("error payload cannot be encoded", error=str(failed))
    return b'{"error":"Internal Server Error"}', encoding.codec(encoding.JSON).content_type or encoding.JSON
