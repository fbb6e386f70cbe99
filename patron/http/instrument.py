"""The outermost WSGI layer: correlation, span, metrics, access log, the work in flight, and recovery."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import get_ident
from typing import TYPE_CHECKING, Any

from patron import correlation
from patron.component import Work
from patron.errors import GatewayTimeout
from patron.http import deadlines, failure, head
from patron.http.body import guard
from patron.http.bodylog import LIMIT, log_body
from patron.http.cors import ERROR_HEADERS, CrossOrigin
from patron.http.message import Headers
from patron.http.remote import PROXIES, Proxies, client_address
from patron.http.settings import HttpSettings, statuses
from patron.http.telling import tag, write_line
from patron.observe import Operation, log, report_error
from patron.reliability.deadline import Deadline
from patron.reliability.deadline import current as current_deadline

if TYPE_CHECKING:
    from contextvars import Token

    from patron.http.router import Match, Router

__all__ = ["EXCHANGE", "Exchange", "Instrumentation"]

EXCHANGE = "patron.exchange"
"""Where the WSGI environment holds the `Exchange`."""

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Exchange:
    """
    One request and its answer, from the first layer to the last; the thread that serves it owns it.

    The head of the answer waits here for the first byte of the body, so that an error before can
    replace all of it: servers add the headers of a second ``start_response`` to those of the first.
    It is also the body of an answer that is streamed: it ends when the server closes it.
    """

    __slots__ = (
        "_body",
        "_chunks",
        "_deadline",
        "_first",
        "_head",
        "_home",
        "_kept",
        "_length",
        "_passed",
        "_send",
        "_write",
        "bytes",
        "environ",
        "error",
        "match",
        "operation",
        "started",
        "status",
        "thread",
    )

    def __init__(self, home: Instrumentation, environ: dict[str, Any], send: Any, match: Match) -> None:
        self._home = home
        self._send = send
        self._head: tuple[str, list[tuple[str, str]]] | None = None
        self._length = 0  # what the head promises
        self._passed = False  # whether the server was given the head
        self._body: Any = None
        self._kept: bytearray | None = None  # the beginning of the body, when that is to be logged
        self._deadline: Token[Deadline | None] | None = None
        self.thread = get_ident()
        self.environ = environ
        self.match = match
        self.error: BaseException | None = None  # what an error handler of the user's made an answer of
        self.status = 0  # until start_response is called
        self.bytes = 0
        self.started = time.monotonic()
        self.operation: Operation = match.endpoint.instrument(match.method).start(Headers(environ))

    @property
    def service(self) -> str:
        """The name of the service that the request came to."""
        return self._home.service

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        """WSGI's: checks and keeps the head, with the correlation header added."""
        if exc_info is not None:
            if self._passed:  # PEP 3333: it is too late to replace it
                raise exc_info[1].with_traceback(exc_info[2])
        elif self._head is not None:
            raise RuntimeError("start_response was called a second time, without exc_info")
        code = failure.STATUS_CODES.get(status) or head.status_code(status)
        self._length = head.content_length(headers) or 0
        self._head = status, [*headers, (correlation.settings().header, self.operation.correlation_id)]
        self.status = code
        return self.write

    def write(self, data: bytes) -> None:
        """WSGI's old way to send a body, from before there were iterables."""
        self._pass_on()
        self._write(self._counted(data))

    def _pass_on(self) -> None:
        """Give the head to the server, once."""
        if self._passed:
            return
        if self._head is None:
            raise RuntimeError("the application answered without calling start_response")
        self._passed = True
        self._write = self._send(*self._head)

    def _counted(self, chunk: bytes) -> bytes:
        if not isinstance(chunk, bytes):
            raise TypeError(f"the body has a {type(chunk).__name__} in it: use bytes")
        self.bytes += len(chunk)
        if self._kept is not None:
            self._kept += chunk[: LIMIT - len(self._kept)]
        return chunk

    def limit_time(self, limit: float | None) -> None:
        """
        Give the request its deadline: what the client asks for, and at most *limit* seconds.

        Raises:
            GatewayTimeout: it has passed already.
        """
        chosen = deadlines.deadline_of(self.environ, limit, self.started)
        token = current_deadline.set(chosen)
        self._deadline = self._deadline or token
        if chosen is not None and not chosen.remaining():
            raise GatewayTimeout({"error": "the deadline of the request has passed"})

    def _end_short(self) -> None:
        """The body is shorter than its head says: a client would take the next answer for the rest."""
        if self.environ["REQUEST_METHOD"] != "HEAD" and self.status not in failure.BODILESS:
            raise ValueError(f"the body has {self.bytes} bytes, but Content-Length is {self._length}")

    def names(self) -> dict[str, Any]:
        """What identifies the request in a log line."""
        return {"route": self.match.endpoint.pattern, "method": self.match.method, "path": self.match.path}

    def complete(self, body: list[bytes] | tuple[bytes, ...]) -> Iterable[bytes]:
        """Answer with *body*, and end."""
        kept = self.status in self._home.bodies
        if kept:
            self._kept = bytearray()
        for chunk in body:
            if type(chunk) is bytes and not kept:  # the way of nearly every answer
                self.bytes += len(chunk)
            else:
                self._counted(chunk)
        if self.bytes < self._length:
            self._end_short()
        self._pass_on()
        self.finish()
        return body

    def stream(self, body: Iterable[bytes]) -> Exchange:
        """Be the body of the answer, which *body* yields; its first chunk that is not empty is fetched."""
        self._body = body
        if self.status in self._home.bodies:
            self._kept = bytearray()
        self._chunks = iter(body)
        self._first = next(filter(None, map(self._counted, self._chunks)), None)
        if self._first is None and self.bytes < self._length:
            self._end_short()
        self._pass_on()
        return self

    def answer(self, error: BaseException) -> list[bytes]:
        """Answer with what *error* means, and end. Raises when the head is with the server already."""
        self._close_body()
        if self._passed:
            raise self._cut(error) from error
        failed = self._failure(error)
        self.status, self._passed, self.bytes = failed.status, True, 0
        body = [] if self.environ["REQUEST_METHOD"] == "HEAD" else [failed.body]
        header = correlation.settings().header, self.operation.correlation_id
        further = self.environ.get(ERROR_HEADERS, ())
        self._head = failure.STATUS_LINES[failed.status], [*failed.headers, *further, header]
        self._kept = bytearray(b"".join(body)[:LIMIT]) if self.status in self._home.bodies else None
        try:
            self._send(*self._head)
        except BaseException as refused:
            raise self._cut(refused) from refused
        self.bytes = sum(map(len, body))
        self.finish()
        return body

    def _failure(self, error: BaseException) -> failure.Failure:
        try:
            return failure.answer(error, self)
        except BaseException as worse:  # noqa: BLE001 - a codec of the user's, or an error's own properties
            log.error("error answer failed", **self.names(), exc_info=worse)
            self.operation.fail(worse)
            return failure.PLAIN

    def _cut(self, error: BaseException) -> ConnectionResetError:
        """
        End an answer whose head is sent: all that is left is to cut the connection, so that the client notices.

        Servers take what this returns for a lost connection and do not log it a second time.
        """
        self._break_off(error)
        self.finish()
        return ConnectionResetError(errno.ECONNRESET, "the response broke off")

    def _break_off(self, error: BaseException) -> None:
        self.status = 500  # what it is counted as, whatever the client was told before
        log.error("response broke off", **self.names(), exc_info=error)
        report_error(error, **self.names())
        self.operation.fail(error)

    def finish(self) -> None:
        """Count, log and forget the request. A second call changes nothing."""
        home = self._home
        if home.live.pop(self, False) is False:
            return
        if self.status >= 500 and self.error is not None and self.operation.error is None:
            self.operation.fail(self.error)
        try:
            self._log()
            if self._kept and self._head is not None:
                log_body(self.status, self.names(), self._head[1], bytes(self._kept))
        finally:
            if self._deadline is not None:
                self._end_deadline()
            operation = self.operation
            operation.outcome = _TEXTS[self.status]
            if operation.sampled:
                tag(operation, self.environ, self.match.method, self.match.path, self.status)
            operation.finish()
            # A cycle would have to wait for the garbage collector.
            self.environ.pop(EXCHANGE, None)
            self.error = None

    def _end_deadline(self) -> None:
        token, self._deadline = self._deadline, None
        try:
            if token is not None:
                current_deadline.reset(token)
        except ValueError:
            pass  # Another thread ends the answer than began it; the next request there starts afresh.

    def _log(self) -> None:
        endpoint = self.match.endpoint
        home = self._home
        write = home.access.get(self.status) if not endpoint.admin or home.logs_admin else None
        if write is None:
            return
        write_line(
            write,
            route=endpoint.pattern,
            method=self.match.method,
            path=self.match.path,
            status=self.status,
            started=self.started,
            sent=self.bytes,
            remote=client_address(self.environ),
        )

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        first, self._first = self._first, None
        if first is not None:
            return first
        try:
            for chunk in self._chunks:
                return self._counted(chunk)
            if self.bytes < self._length:
                self._end_short()
        except BaseException as error:
            raise self._cut(error) from error
        raise StopIteration

    def close(self) -> None:
        """End the answer; the server calls it, also when the client went away."""
        self._close_body()
        self.finish()

    def _close_body(self) -> None:
        body, self._body = self._body, None
        close = getattr(body, "close", None)
        if close is None:
            return
        try:
            close()
        except BaseException as error:  # noqa: BLE001 - the edge of the request
            log.error("response could not be closed", **self.names(), exc_info=error)


_TEXTS = {status: str(status) for status in range(1000)}


class Instrumentation:
    """The outermost WSGI application. All threads call it."""

    def __init__(
        self, application: Application, router: Router, settings: HttpSettings, service: str = "service"
    ) -> None:
        self.service = service
        self._cross_origin = CrossOrigin(application, settings.cors) if settings.cors is not None else None
        self._application = self._cross_origin or application
        self._router = router
        self._max_body = settings.max_body
        self._timeout = settings.timeout
        self._proxies = Proxies(settings.trusted_proxies) if settings.trusted_proxies else None
        self.logs_admin = settings.access_log.admin
        # Status → function that writes the access log line. Statuses without a line are left out.
        self.access = {
            status: getattr(log, level)
            for status in range(100, 1000)
            if (level := settings.access_log.level_of(status)) is not None
        }
        self.bodies = frozenset(status for text in settings.log_bodies for status in statuses(text))
        # The keys are what is answered now. Each thread adds and removes its own only, so it needs no lock.
        self.live: dict[Exchange, None] = {}

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        match = self._router.match(environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""))
        exchange = Exchange(self, environ, start_response, match)
        self.live[exchange] = None
        environ[EXCHANGE] = exchange
        if self._proxies is not None:
            environ[PROXIES] = self._proxies
        if self._cross_origin is not None:  # said here, since what follows may refuse the request
            environ[ERROR_HEADERS] = self._cross_origin.headers(environ.get("HTTP_ORIGIN"))
        try:
            head.check_host(environ)
            endpoint = match.endpoint
            timeout = endpoint.timeout or self._timeout
            if (timeout is not None or deadlines.VARIABLE in environ) and not endpoint.admin:
                exchange.limit_time(timeout)
            elif current_deadline.get() is not None:  # of an answer that another thread ended
                current_deadline.set(None)
            if environ.get("CONTENT_LENGTH") or environ.get("HTTP_TRANSFER_ENCODING"):
                guard(environ, self._max_body if endpoint.max_body is None else endpoint.max_body)
            body = self._application(environ, exchange.start_response)
            if type(body) is list or type(body) is tuple:
                return exchange.complete(body)
            return exchange.stream(body)
        except BaseException as error:  # noqa: BLE001 - user code: even SystemExit is one failed request
            return exchange.answer(error)

    def in_flight(self) -> Sequence[Work]:
        """The requests that are being answered now."""
        return [
            Work(f"{exchange.match.method} {exchange.match.path}", exchange.started, exchange.thread)
            for exchange in list(self.live)
        ]
