"""The outermost WSGI layer: correlation, span, metrics, access log, the work in flight, and recovery."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import get_ident
from typing import TYPE_CHECKING, Any

from patron import correlation
from patron.component import Work
from patron.http import failure
from patron.http.body import guard
from patron.http.message import Headers
from patron.http.settings import HttpSettings
from patron.observe import Operation, log, report_error

if TYPE_CHECKING:
    from patron.http.router import Match, Router

__all__ = ["EXCHANGE", "Exchange", "Instrumentation"]

EXCHANGE = "patron.exchange"
"""Where the WSGI environment holds the `Exchange`."""

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Exchange:
    """
    One request and its answer, from the first layer to the last; the thread that serves it owns it.

    It is also the body of an answer that is streamed: it ends when the server closes it.
    """

    __slots__ = (
        "_body",
        "_home",
        "_send",
        "bytes",
        "environ",
        "match",
        "operation",
        "started",
        "status",
        "thread",
    )

    def __init__(self, home: Instrumentation, environ: dict[str, Any], send: Any, match: Match) -> None:
        self._home = home
        self._send = send
        self._body: Any = None
        self.thread = get_ident()
        self.environ = environ
        self.match = match
        self.status = 0  # until start_response is called
        self.bytes = 0
        self.started = time.monotonic()
        self.operation: Operation = match.endpoint.instrument(match.method).start(Headers(environ))

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        """The server's ``start_response``, with the correlation header added."""
        self.status = int(status[:3])
        headers = [*headers, (correlation.settings().header, self.operation.correlation_id)]
        return self._send(status, headers) if exc_info is None else self._send(status, headers, exc_info)

    def names(self) -> dict[str, Any]:
        """What identifies the request in a log line."""
        return {"route": self.match.endpoint.pattern, "method": self.match.method, "path": self.match.path}

    def answer(self, error: BaseException) -> list[bytes]:
        """Answer with what *error* means; whatever had been prepared is replaced."""
        failed = failure.answer(error, self)
        # Only an answer that was begun already has to be replaced (PEP 3333).
        exc_info = (type(error), error, error.__traceback__) if self.status else None
        try:
            self.start_response(failure.STATUS_LINES[failed.status], failed.headers, exc_info)
        except BaseException as sent:  # the server may refuse to replace an answer that is on its way
            self.finish(0)
            raise _cut() from sent
        return [] if self.environ["REQUEST_METHOD"] == "HEAD" else [failed.body]

    def finish(self, size: int) -> None:
        """Count, log and forget the request, whose answer has *size* bytes. A second call changes nothing."""
        home = self._home
        if home.live.pop(self, False) is False:
            return
        if not self.status:
            self.status = 500  # the application returned without an answer
        endpoint = self.match.endpoint
        write = home.access.get(self.status) if not endpoint.admin or home.logs_admin else None
        if write is not None:
            match = self.match
            write(
                "request",
                route=endpoint.pattern,
                method=match.method,
                path=match.path,
                status=self.status,
                duration=round(time.monotonic() - self.started, 6),
                bytes=size,
                remote=self.environ.get("REMOTE_ADDR"),
            )
        operation = self.operation
        operation.outcome = _TEXTS[self.status]
        if operation.sampled:
            self._tag()
        operation.finish()
        self.environ.pop(EXCHANGE, None)  # a cycle would have to wait for the garbage collector

    def _tag(self) -> None:
        self.operation.tag("http.method", self.match.method)
        query = self.environ.get("QUERY_STRING")
        self.operation.tag("http.url", f"{self.match.path}?{query}" if query else self.match.path)
        self.operation.tag("http.status_code", self.status)
        if self.status >= 500:
            self.operation.tag("error", True)

    def stream(self, body: Any) -> Exchange:
        """Be the body of the answer, which *body* yields."""
        self._body = body
        return self

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._body:
                self.bytes += len(chunk)
                yield chunk
        except BaseException as error:
            if isinstance(error, GeneratorExit):
                raise
            log.error("response broke off", **self.names(), exc_info=error)
            report_error(error, **self.names())
            self.operation.fail(error)
            raise _cut() from error

    def close(self) -> None:
        """End the answer; the server calls it, also when the client went away."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        except BaseException as error:  # noqa: BLE001 - the edge of the request
            log.error("response could not be closed", **self.names(), exc_info=error)
        finally:
            self.finish(self.bytes)


def _cut() -> ConnectionResetError:
    """
    What ends an answer whose status is sent: all that is left is to cut the connection, so that the client notices.

    Servers take it for a lost connection and do not log it a second time.
    """
    return ConnectionResetError(errno.ECONNRESET, "the response broke off")


_TEXTS = {status: str(status) for status in range(1000)}


class Instrumentation:
    """The outermost WSGI application. All threads call it."""

    def __init__(self, application: Application, router: Router, settings: HttpSettings) -> None:
        self._application = application
        self._router = router
        self._max_body = settings.max_body
        self.logs_admin = settings.access_log.admin
        # Status → function that writes the access log line. Statuses without a line are left out.
        self.access = {
            status: getattr(log, level)
            for status in range(100, 1000)
            if (level := settings.access_log.level_of(status)) is not None
        }
        # The keys are what is answered now. Each thread adds and removes its own only, so it needs no lock.
        self.live: dict[Exchange, None] = {}

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        match = self._router.match(environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""))
        exchange = Exchange(self, environ, start_response, match)
        self.live[exchange] = None
        environ[EXCHANGE] = exchange
        try:
            if environ.get("CONTENT_LENGTH") or environ.get("HTTP_TRANSFER_ENCODING"):
                guard(environ, self._max_body)
            body = self._application(environ, exchange.start_response)
        except BaseException as error:  # noqa: BLE001 - user code: even SystemExit is one failed request
            body = exchange.answer(error)
        if type(body) is list or type(body) is tuple:
            exchange.finish(sum(map(len, body)))
            return body
        return exchange.stream(body)

    def in_flight(self) -> Sequence[Work]:
        """The requests that are being answered now."""
        return [
            Work(f"{exchange.match.method} {exchange.match.path}", exchange.started, exchange.thread)
            for exchange in list(self.live)
        ]
