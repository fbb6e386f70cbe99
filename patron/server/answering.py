"""What a thread of the pool does: parse one request, run the application, and send what the client takes at once."""

from __future__ import annotations

import io
from datetime import datetime
from typing import Any

from patron.http.failure import PLAIN, STATUS_LINES
from patron.observe import log
from patron.server.connections import Connection, Flowing
from patron.server.internals import Response, at_end, gunicorn_wsgi, is_chunked
from patron.server.loop import LoopWorker
from patron.server.refusals import meaning

__all__ = ["AnsweringWorker"]

#: Bytes of a complete answer that the main thread takes over from the pool when the client is slow to read.
HAND_BACK = 8 * 1024 * 1024
#: Bytes of a streamed answer that may wait for the client before the application has to.
STREAM_AHEAD = 256 * 1024
#: What is answered to clients of later minor versions: the highest that is spoken here (RFC 9110, section 6.2).
_VERSION = (1, 1)


class AnsweringWorker(LoopWorker):
    """The half of the worker that runs in the threads of the pool. Several at a time may call."""

    nr: int
    max_requests: int
    log: Any
    wsgi: Any

    def handle(self, conn: Connection) -> bool:
        """Answer one request; returns whether the connection may carry another."""
        conn.broken = True
        try:
            keep = self._handle(conn)
            conn.broken = False
            return keep
        except OSError as error:
            log.debug("connection lost", remote=conn.remote, error=repr(error))
        except BaseException as error:  # noqa: BLE001 - the edge of the request: the thread goes on
            log.error("answer broke off", request=conn.asked, remote=conn.remote, exc_info=error)
        return False

    def _handle(self, conn: Connection) -> bool:
        conn.asked = ""
        received = conn.reader.buf.getvalue()
        try:
            request, answer, environ = self._begin(conn)
        except StopIteration:
            return False
        except Exception as error:  # noqa: BLE001 - the parser refuses, or a hook of the user's breaks
            self._refuse_error(conn, error, received)
            return False
        try:
            self._run(request, answer, environ, conn)
        except BaseException as error:
            if answer.headers_sent:
                raise
            log.error("request failed", request=conn.asked, remote=conn.remote, exc_info=error)
            self._send_failure(request, conn)
            return False
        return not answer.should_close() and (conn.complete or _read(request, conn))

    def _begin(self, conn: Connection) -> tuple[Any, Answer, dict[str, Any]]:
        request = next(conn.parser)
        conn.asked = f"{request.method} {request.path}"
        request.version = min(request.version, _VERSION)
        body = _body(request, conn)
        self.cfg.pre_request(self, request)
        answer, environ = gunicorn_wsgi.create(
            request, conn.outgoing, conn.client, conn.server, self.cfg, Answer, (conn,)
        )
        environ["wsgi.input"] = body
        environ["wsgi.multithread"] = True
        environ["gunicorn.socket"] = conn.sock
        environ["patron.arrived"] = conn.arrived
        return request, answer, environ

    def _refuse_error(self, conn: Connection, error: Exception, received: bytes) -> None:
        meant = meaning(error, self.cfg)
        if meant is None:
            log.error("request failed", request=conn.asked, remote=conn.remote, exc_info=error)
        status, why = meant or (500, "Internal Server Error")
        self._send_refusal(conn, status, why, received, conn.arrived)

    def _run(self, request: Any, answer: Answer, environ: dict[str, Any], conn: Connection) -> None:
        began = datetime.now()
        self._count(answer)
        try:
            _send(self.wsgi(environ, answer.start_response), answer, conn)
        finally:
            self.log.access(answer, request, environ, datetime.now() - began)
            self._run_hook_after(request, environ, answer)

    def _send_failure(self, request: Any, conn: Connection) -> None:
        """What every server answers when the application raises; whoever instruments it has counted that."""
        answer = Answer(request, conn.outgoing, self.cfg, conn)
        answer.force_close()
        answer.start_response(STATUS_LINES[PLAIN.status], PLAIN.headers)
        _send([] if request.method == "HEAD" else [PLAIN.body], answer, conn)

    def _count(self, answer: Any) -> None:
        """One more request; the last one before the worker is replaced, or stops, closes its connection."""
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self.log.info("Autorestarting worker after current request.")
            self.alive = False
        if not self.alive or not self.cfg.keepalive:
            answer.force_close()

    def _run_hook_after(self, request: Any, environ: dict[str, Any], answer: Any) -> None:
        try:
            self.cfg.post_request(self, request, environ, answer)
        except Exception:
            self.log.exception("Exception in post_request hook")


class Answer(Response):  # type: ignore[misc]
    """gunicorn's answer, whose pieces wait for each other, so that head and body leave together."""

    def __init__(self, request: Any, outgoing: Any, cfg: Any, conn: Connection) -> None:
        super().__init__(request, _Later(conn), cfg)
        self._conn = conn

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        """WSGI's; what it returns sends at once."""
        super().start_response(status, headers, exc_info)
        self._conn.framed = self.chunked or self.response_length is not None
        return self._write_now

    def _write_now(self, data: bytes) -> None:
        self.write(data)
        self._conn.outgoing.flush(STREAM_AHEAD)

    def send_headers(self) -> None:
        """Keep them for the next flush. Behind them there is no 100 Continue any more."""
        self._conn.reader.expects = False
        if self._conn.reader.flowing and not _read(self.req, self._conn):
            self.force_close()  # nobody knows where the next request begins
        super().send_headers()

    def can_sendfile(self) -> bool:
        """It waits for slow clients: no."""
        return False


class _Later:
    """A socket as far as `Response` needs one: it keeps what it is given for the next flush."""

    def __init__(self, conn: Connection) -> None:
        self.sendall = conn.outgoing.add


def _body(request: Any, conn: Connection) -> Any:
    """
    The body of *request* to read from.

    Decoded as far as it is here, so that the parser refuses what is malformed before the application runs.
    """
    request._expected_100_continue = False  # it was sent, if it was needed
    if conn.reader.flowing:
        return io.BufferedReader(Flowing(request.body, conn.reader), 65536)
    if conn.complete or is_chunked(request.body):
        return io.BytesIO(request.body.read())
    request.force_close()  # a length over the limit: the application refuses it, and nobody reads it
    return request.body


def _send(body: Any, answer: Answer, conn: Connection) -> None:
    """Send *body* and close it; a complete one may be left to the main thread, in part."""
    whole = isinstance(body, list | tuple)
    try:
        for piece in body:
            answer.write(piece)
            if not whole:
                conn.outgoing.flush(STREAM_AHEAD)
        answer.close()
        conn.outgoing.flush(HAND_BACK if whole else STREAM_AHEAD)
    finally:
        if hasattr(body, "close"):
            body.close()


def _read(request: Any, conn: Connection) -> bool:
    """Whether all of a flowing body was read, so that the next request begins behind it."""
    return conn.reader.flowing and at_end(request.body)
