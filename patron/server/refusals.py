"""What is answered to requests that no application gets to see; counted, logged and named like any other."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Any, NoReturn

from patron import correlation
from patron.http import HttpSettings
from patron.http.router import Endpoint
from patron.http.telling import write_line
from patron.observe import log
from patron.server.internals import parser_errors as errors

__all__ = ["REFUSED", "Refusals", "meaning"]

REFUSED = "refused"
"""The route of these requests, in metrics and in the log."""

_REQUEST_LINE = re.compile(rb"\s*([A-Z]{1,20}) ([^\s?]{1,2000})")
_MOST_HEADERS = 100
_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (errors.LimitRequestLine, 414),
    (errors.LimitRequestHeaders, 431),
    (errors.ExpectationFailed, 417),
    (errors.UnsupportedTransferCoding, 501),
    (errors.ForbiddenProxyRequest, 403),
    (errors.ConfigurationProblem, 500),
    (errors.ParseException, 400),
    (errors.NoMoreData, 400),
)


class Refusals:
    """Makes the answers to what the worker refuses. All threads share it."""

    def __init__(self, settings: HttpSettings) -> None:
        self._endpoint = Endpoint(REFUSED, _nothing)
        self._access = settings.access_log

    def answer(self, status: int, why: str, *, received: bytes, remote: str, began: float) -> bytes:
        """
        The whole answer, after which the connection closes; counts and logs it.

        *received* is what came of the request since *began* (monotonic seconds).
        """
        method, path = _asked(received)
        why = why[:300]
        with self._endpoint.instrument(method).start(_headers(received)) as operation:
            operation.started = began
            operation.outcome = str(status)
            body = json.dumps({"error": HTTPStatus(status).phrase, "detail": why}).encode()
            if (level := self._access.level_of(status)) is not None:
                write_line(
                    getattr(log, level),
                    route=REFUSED,
                    method=method,
                    path=path,
                    status=status,
                    started=began,
                    sent=len(body),
                    remote=remote,
                    reason=why,
                )
            return _head(status, operation.correlation_id, len(body)) + body


def meaning(error: Exception, cfg: Any) -> tuple[int, str] | None:
    """Status and reason of the parser's *error* under gunicorn's settings *cfg*; None when it refuses nothing."""
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), None)
    return None if status is None else (status, _why(error, cfg))


def _why(error: Exception, cfg: Any) -> str:
    if isinstance(error, errors.LimitRequestLine):
        return f"the request line has more than {cfg.limit_request_line} bytes (http.max_request_line)"
    if isinstance(error, errors.LimitRequestHeaders) and "size" not in str(error):
        return f"more than {cfg.limit_request_fields} header lines (http.max_header_fields)"
    if isinstance(error, errors.LimitRequestHeaders):
        return f"a header line or the trailers have more than {cfg.limit_request_field_size} bytes (http.max_header)"
    if isinstance(error, errors.NoMoreData):
        return "the request does not end where it says"
    return str(error) or type(error).__name__


def _nothing(environ: Any, start_response: Any) -> NoReturn:
    raise NotImplementedError


def _asked(received: bytes) -> tuple[str, str]:
    """Method and path, as far as they can be seen."""
    found = _REQUEST_LINE.match(received)
    return (found[1].decode(), found[2].decode("latin-1")) if found else ("", "")


def _headers(received: bytes) -> dict[str, str]:
    """The complete lines that look like headers: correlation and trace may be among them."""
    head, end, _ = received.decode("latin-1").partition("\r\n\r\n")
    lines = head.split("\r\n", _MOST_HEADERS + 1)
    pairs = (line.partition(":") for line in lines[1 : None if end else -1] if line.isprintable())
    return {name: value.strip() for name, _, value in pairs}


def _head(status: int, identifier: str, length: int) -> bytes:
    return (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        f"Connection: close\r\n"
        f"Content-Type: application/json\r\n"
        f"Content-Length: {length}\r\n"
        f"{correlation.settings().header}: {identifier}\r\n\r\n"
    ).encode("latin-1")
