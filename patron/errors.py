"""
Every error that Patron raises, in one tree.

::

    PatronError
    ├── ConfigError              the file, the environment or an argument is wrong: fix it
    ├── MissingExtra             a package is not installed: the message names the extra
    ├── Panic                    `patron.observe.log.panic` was called
    ├── ServiceError
    │   ├── ComponentFailed      a component raised; ``__cause__`` is its error
    │   └── WorkAbandoned        the stop budget ended before the work did
    ├── DeadlineExceeded         the time for this piece of work is over
    ├── RetriesExhausted         every attempt failed; ``__cause__`` is the last error
    ├── CodecError
    │   ├── DecodeError          the bytes are not what the content type says, or not the shape asked for
    │   ├── EncodeError          the value cannot be written in that content type
    │   └── UnknownContentType   no codec is registered for that type
    ├── CacheError               a cache store failed; a miss is no error
    ├── SourceError
    │   ├── ConnectionLost       the broker went away: open again
    │   ├── Stale                the lane was taken away: forget what belonged to it
    │   ├── PublishFailed        the broker did not confirm
    │   │   └── BatchFailed      it did not confirm all of a batch; ``outcomes`` tells which
    │   ├── StorageFull          the disk is full: nothing was written, try later
    │   └── NotASource           the file or server is there but is something else
    ├── Outcome                  a processor steers, it is not a failure
    │   ├── Retry                try again after a delay
    │   ├── Reject               to the dead letters, with this reason
    │   └── Skip                 done with it, on purpose
    └── HTTPError                an answer with a status, payload and headers
        ├── BadRequest 400, Unauthorized 401, Forbidden 403, NotFound 404,
        ├── MethodNotAllowed 405, NotAcceptable 406, Conflict 409, ContentTooLarge 413,
        ├── UnsupportedMediaType 415, UnprocessableContent 422, TooManyRequests 429,
        └── InternalServerError 500, ServiceUnavailable 503, GatewayTimeout 504
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

__all__ = [
    "BadRequest",
    "BatchFailed",
    "CacheError",
    "CodecError",
    "ComponentFailed",
    "ConfigError",
    "Conflict",
    "ConnectionLost",
    "ContentTooLarge",
    "DeadlineExceeded",
    "DecodeError",
    "EncodeError",
    "Forbidden",
    "GatewayTimeout",
    "HTTPError",
    "InternalServerError",
    "MethodNotAllowed",
    "MissingExtra",
    "NotASource",
    "NotAcceptable",
    "NotFound",
    "Outcome",
    "Panic",
    "PatronError",
    "PublishFailed",
    "Reject",
    "RetriesExhausted",
    "Retry",
    "ServiceError",
    "ServiceUnavailable",
    "Skip",
    "SourceError",
    "Stale",
    "StorageFull",
    "TooManyRequests",
    "Unauthorized",
    "UnknownContentType",
    "UnprocessableContent",
    "UnsupportedMediaType",
    "WorkAbandoned",
    "http_error",
]


class PatronError(Exception):
    """The root of every error in this package."""


class ConfigError(PatronError, ValueError):
    """
    A setting is wrong.

    *problems* holds one line for each mistake, each with its place and what to do; the message is
    their join, so that one exception reports all of them at once.
    """

    def __init__(self, *problems: str) -> None:
        self.problems: tuple[str, ...] = problems
        super().__init__("\n".join(problems))


class MissingExtra(PatronError, ImportError):
    """A package that an optional feature needs is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f'{package} is not installed: pip install "patron[{extra}]"')


class Panic(PatronError, RuntimeError):
    """Something happened that must not: it was logged at level ``panic`` and raised."""


class ServiceError(PatronError):
    """The service as a whole could not do its work."""


class ComponentFailed(ServiceError):
    """A component ended with an error, which is the ``__cause__``."""

    def __init__(self, component: str, detail: str) -> None:
        self.component = component
        super().__init__(f"component {component} failed: {detail}")


class WorkAbandoned(ServiceError):
    """The stop budget ended before this work did."""


class DeadlineExceeded(PatronError, TimeoutError):
    """The time given to this piece of work is over."""


class RetriesExhausted(PatronError):
    """Every attempt failed; the last error is the ``__cause__``."""


class CodecError(PatronError, ValueError):
    """A body and its content type do not go together."""


class DecodeError(CodecError):
    """
    The bytes are not what their content type says, or not the shape that was asked for.

    *fields* maps the path of each wrong field (``items.0.quantity``) to what is wrong with it; it
    is empty when the bytes could not be parsed at all.
    """

    def __init__(self, message: str, fields: Mapping[str, str] | None = None) -> None:
        self.fields: Mapping[str, str] = dict(fields or {})
        super().__init__(message)


class EncodeError(CodecError):
    """The value cannot be written in that content type."""


class UnknownContentType(CodecError):
    """No codec is registered for that content type."""


class CacheError(PatronError):
    """A cache store failed; a miss is no error."""


class SourceError(PatronError):
    """A broker or an embedded queue refused or failed."""


class ConnectionLost(SourceError):
    """The broker went away; the subscription is of no more use and must be opened again."""


class Stale(SourceError):
    """
    A lane or lease was taken away; what is known of it must be forgotten, and nothing more settled.

    *messages* are the ones concerned, and the rest of the call was done; empty: all of the call.
    """

    def __init__(self, *args: object, messages: Sequence[Any] = ()) -> None:
        self.messages: tuple[Any, ...] = tuple(messages)
        super().__init__(*args)


class PublishFailed(SourceError):
    """The broker did not confirm the message, so it may not be there."""


class BatchFailed(PublishFailed):
    """
    Some messages of a batch were not confirmed.

    *outcomes* holds for each message of the batch, in order, what confirms it, or its error.
    """

    def __init__(self, outcomes: Sequence[Any]) -> None:
        self.outcomes: tuple[Any, ...] = tuple(outcomes)
        errors = [outcome for outcome in self.outcomes if isinstance(outcome, BaseException)]
        super().__init__(
            f"{len(errors)} of {len(self.outcomes)} messages were not confirmed; the first: {errors[0]}"
        )


class StorageFull(SourceError):
    """The disk is full. Nothing was written; the same call may succeed later."""


class NotASource(SourceError):
    """The file or server is there, but it is something else; nothing was changed in it."""


class Outcome(PatronError):
    """Raised by a processor to steer what happens to its message; it is not counted as a failure."""


class Retry(Outcome):
    """Try the message again, after *delay* seconds (None: as the retry policy says)."""

    def __init__(self, delay: float | None = None, reason: str = "retry asked for") -> None:
        self.delay = delay
        super().__init__(reason)


class Reject(Outcome):
    """Send the message to the dead letters at once, with *reason*."""

    def __init__(self, reason: str = "rejected by the processor") -> None:
        super().__init__(reason)


class Skip(Outcome):
    """Acknowledge the message without having processed it, with *reason* in the log."""

    def __init__(self, reason: str = "skipped by the processor") -> None:
        super().__init__(reason)


class HTTPError(PatronError):
    """
    An answer of an HTTP route with *status*, *payload* and *headers*.

    The payload is encoded like any other answer's, by the ``Accept`` header; without one it is
    ``{"error": <reason phrase>}``. It is found when wrapped: a route that raises another error
    ``from`` it answers with it.
    """

    status: int = 500

    def __init__(
        self,
        payload: Any = None,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = type(self).status if status is None else _error_status(status)
        self.payload = {"error": HTTPStatus(self.status).phrase} if payload is None else payload
        self.headers: dict[str, str] = dict(headers or {})
        super().__init__(f"HTTP {self.status}: {self.payload}")


def _error_status(status: int) -> int:
    if not 400 <= status <= 599:
        raise ConfigError(f"status {status} is no error status: use one from 400 to 599")
    return HTTPStatus(status).value


class BadRequest(HTTPError):
    """400: the request is malformed."""

    status = 400


class Unauthorized(HTTPError):
    """401: who asks is not known; ``WWW-Authenticate`` should say how to tell."""

    status = 401


class Forbidden(HTTPError):
    """403: who asks is known and may not."""

    status = 403


class NotFound(HTTPError):
    """404: there is no such thing."""

    status = 404


class MethodNotAllowed(HTTPError):
    """405: the thing is there, but not for this method; ``Allow`` lists the ones it has."""

    status = 405


class NotAcceptable(HTTPError):
    """406: no representation fits the ``Accept`` header."""

    status = 406


class Conflict(HTTPError):
    """409: the state of the thing forbids it."""

    status = 409


class ContentTooLarge(HTTPError):
    """413: the body is larger than the server takes."""

    status = 413


class UnsupportedMediaType(HTTPError):
    """415: the body's content type is not understood."""

    status = 415


class UnprocessableContent(HTTPError):
    """422: the body is understood and makes no sense."""

    status = 422


class TooManyRequests(HTTPError):
    """429: over the rate limit; ``Retry-After`` says when to come back."""

    status = 429


class InternalServerError(HTTPError):
    """500: the server's own fault."""

    status = 500


class ServiceUnavailable(HTTPError):
    """503: not now; ``Retry-After`` says when to come back."""

    status = 503


class GatewayTimeout(HTTPError):
    """504: something that the answer needs did not answer in time."""

    status = 504


def http_error(error: BaseException | None) -> HTTPError | None:
    """The first `HTTPError` in the chain of causes of *error*, or None."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, HTTPError):
            return error
        seen.add(id(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None
