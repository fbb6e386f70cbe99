"""
One request to an application that is not ours, observed, with nothing of its answer changed.

`patron.http.instrument` owns the answer: it holds the head back and makes answers of errors. Here
everything goes on as the application and its server have it: heads, errors and bodies pass through.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from threading import get_ident
from typing import TYPE_CHECKING, Any, Protocol

from patron import correlation
from patron import resources as registry
from patron.http.message import Headers
from patron.http.remote import client_address
from patron.http.telling import tag, write_line
from patron.observe import report_error

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from patron.http.router import Endpoint

__all__ = ["WATCH", "Home", "Watch"]

WATCH = "patron.watch"
"""Where the WSGI environment holds the `Watch`."""

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Home(Protocol):
    """What all requests of one application share."""

    live: dict[Watch, None]
    resources: Mapping[str, Any] | None

    def endpoint(self, pattern: str) -> Endpoint: ...
    def writer(self, status: int) -> Callable[..., None] | None: ...


class Watch:
    """
    One request and its answer; the thread that serves it owns it.

    It ends with the last byte that its head promised, with the end of its body, or when the server
    closes that, whichever comes first: tests often read an answer, and close it never.
    """

    __slots__ = (
        "_forwarded",
        "_home",
        "_length",
        "_lent",
        "_pattern",
        "_send",
        "bytes",
        "environ",
        "error",
        "method",
        "operation",
        "path",
        "started",
        "status",
        "thread",
    )

    def __init__(self, home: Home, environ: dict[str, Any], send: Any, pattern: str) -> None:
        self._home = home
        self._send = send
        self._length: int | None = None  # what the head promises
        self._pattern = pattern
        self._lent: AbstractContextManager[None] | None = None
        self.thread = get_ident()
        self.environ = environ
        self.method: str = environ["REQUEST_METHOD"]
        self.path = _text(environ.get("PATH_INFO") or "/")
        self.error: BaseException | None = None
        self.status = 0  # until start_response is called
        self.bytes = 0
        self.started = time.monotonic()
        self.operation = home.endpoint(pattern).instrument(self.method).start(Headers(environ))
        self._forwarded = correlation.forwarded() or None
        self._lend()

    def found(self, pattern: str, method: str) -> None:
        """The application has matched the request."""
        self._pattern, self.method = pattern, method
        self.operation.become(self._home.endpoint(pattern).instrument(method))

    def failed(self, error: BaseException) -> None:
        """*error* is one that nobody in the application handles; it is reported once."""
        if error is not self.error:
            self.error = error
            report_error(error, **self._names())

    def run(self, application: Application) -> Iterable[bytes]:
        """The answer of *application*; what it raises goes on to the server."""
        self._home.live[self] = None
        self.environ[WATCH] = self
        try:
            body = application(self.environ, self.start_response)
        except BaseException as error:
            self.broke(error)
            raise
        if self._is_whole(body):
            self.finish()
            return body
        return _Body(self, body)

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        """WSGI's: passes on what it is given, and the correlation header."""
        self.status = _code(status)
        self._length = _length(headers)
        headers = self._with_id(headers)
        write = self._send(status, headers, exc_info) if exc_info else self._send(status, headers)

        def counted(data: bytes) -> Any:
            self.bytes += len(data)
            return write(data)

        return counted

    def _with_id(self, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        name = correlation.settings().header
        lowered = name.lower()
        if any(key.lower() == lowered for key, _ in headers):
            return headers  # the application has its own
        return [*headers, (name, self.operation.correlation_id)]

    def _is_whole(self, body: Iterable[bytes]) -> bool:
        """Whether the server gets *body* as it is, because it may know what to do with just that object."""
        if not self.status and "HTTP_UPGRADE" in self.environ:
            return True  # somebody else has taken the connection over
        if isinstance(body, list | tuple):
            self.bytes += sum(map(len, body))
            return True
        if isinstance(body, Sized) or self._is_file(body):
            self.bytes += self._length or 0
            return True
        return False

    def _is_file(self, body: Any) -> bool:
        """Whether the server made *body* of a file, to send it in its own way (PEP 3333)."""
        wrapper = self.environ.get("wsgi.file_wrapper")
        return wrapper is not None and (
            isinstance(body, wrapper) if isinstance(wrapper, type) else hasattr(body, "read")
        )

    def sent(self, count: int) -> None:
        """The server has got *count* bytes more."""
        self.bytes += count
        if self._length is not None and self.bytes >= self._length:
            self.finish()

    def broke(self, error: BaseException) -> None:
        """*error* leaves the application, and is the server's to tell of."""
        if not self.status and "HTTP_UPGRADE" in self.environ and _ends_upgrade(error):
            self.finish()  # how libraries of WebSockets leave the servers that they took a connection from
            return
        self.status = 500  # what it is counted as, whatever the client was told before
        self.failed(error)
        self.finish()

    def finish(self) -> None:
        """Count, log and forget the request. A second call changes nothing."""
        if self._home.live.pop(self, False) is False:
            return
        if not self.status:
            self.status = 101 if "HTTP_UPGRADE" in self.environ else 500
        if self.status >= 500 and self.error is not None:
            self.operation.fail(self.error)
        try:
            self._log()
        finally:
            self._end()

    def _log(self) -> None:
        write = self._home.writer(self.status)
        if write is not None:
            write_line(
                write,
                route=self._pattern,
                method=self.method,
                path=self.path,
                status=self.status,
                started=self.started,
                sent=self.bytes,
                remote=client_address(self.environ),
            )

    def _names(self) -> dict[str, Any]:
        return {"route": self._pattern, "method": self.method, "path": self.path}

    def _end(self) -> None:
        operation = self.operation
        operation.outcome = str(self.status)
        if operation.sampled:
            tag(operation, self.environ, self.method, self.path, self.status)
        operation.finish()
        self._leave()
        # A cycle would have to wait for the garbage collector.
        self.environ.pop(WATCH, None)
        self.error = None

    def close(self, body: Any) -> None:
        """The server has done with *body*; what that runs still belongs to the request."""
        close = getattr(body, "close", None)
        ended = self not in self._home.live
        if ended:
            self._resume()
        try:
            if close is not None:
                close()
        finally:
            if ended:
                self._leave()
            else:
                self.finish()

    def _resume(self) -> None:
        self.operation.resume(self._forwarded)
        self._lend()

    def _leave(self) -> None:
        self.operation.detach()
        if self._lent is not None:
            lent, self._lent = self._lent, None
            with contextlib.suppress(ValueError):  # another thread ends it, whose context never had them
                lent.__exit__(None, None, None)

    def _lend(self) -> None:
        if self._home.resources:
            self._lent = registry.use(self._home.resources)
            self._lent.__enter__()


class _Body:
    """The body of an answer, as the server reads it."""

    __slots__ = ("_body", "_chunks", "_watch")

    def __init__(self, watch: Watch, body: Iterable[bytes]) -> None:
        self._watch = watch
        self._body = body
        self._chunks: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._chunks is None:
                self._chunks = iter(self._body)
            chunk = next(self._chunks)
        except StopIteration:
            self._watch.finish()
            raise
        except BaseException as error:
            self._watch.broke(error)
            raise
        self._watch.sent(len(chunk))
        return chunk

    def close(self) -> None:
        """End the answer; the server calls it, also when the client went away."""
        self._watch.close(self._body)


def _text(path: str) -> str:
    """The path as WSGI has it, as text."""
    return path if path.isascii() else path.encode("latin-1", "replace").decode("utf-8", "replace")


def _code(status: str) -> int:
    code = status[:3]
    return int(code) if code.isdecimal() else 500  # the server will have its own opinion on that


def _length(headers: Iterable[tuple[str, str]]) -> int | None:
    for name, value in headers:
        if len(name) == 14 and name.lower() == "content-length":
            return int(value) if value.isdecimal() else None
    return None


def _ends_upgrade(error: BaseException) -> bool:
    return isinstance(error, StopIteration | ConnectionError)
