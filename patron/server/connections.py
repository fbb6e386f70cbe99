"""How a worker reads requests: in its main thread, as a whole, and only then by a thread of the pool."""

from __future__ import annotations

import errno
import heapq
import selectors
import socket
import time
from concurrent import futures
from functools import partial
from typing import Any

from patron.observe import log
from patron.server.internals import TConn, ThreadWorker, Unreader, gunicorn_http
from patron.server.reading import Incoming, State

__all__ = ["STOP_LINGER", "Connection", "ReadingWorker"]

#: Seconds that a kept-alive connection stays open when the worker stops, for a request that is on its way.
STOP_LINGER = 1.0
#: Seconds that a closed connection is drained, so that the peer reads the answer before a reset (RFC 9112 section 9.6).
CLOSE_LINGER = 2.0
#: Seconds between two looks at the deadlines of the connections that are read.
SWEEP_INTERVAL = 0.25
#: Seconds that one write to a client may take; a reader that is slower than that loses its answer.
WRITE_TIMEOUT = 60.0
#: Bytes of unfinished requests that one worker holds at most.
MAX_UNFINISHED = 64 * 1024 * 1024


class _Received(Unreader):  # type: ignore[misc]
    """The bytes that the main thread has received, and then the end: a thread of the pool never waits for more."""

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Nothing more."""
        return b""


class Connection(TConn):  # type: ignore[misc]
    """A connection with the bytes of its unfinished request; the main thread owns it while it is read."""

    def __init__(self, cfg: Any, sock: socket.socket, client: Any, server: Any, incoming: Incoming) -> None:
        super().__init__(cfg, sock, client, server)
        self.parser: Any
        self.incoming = incoming
        self.deadline = 0.0
        self.continued = False
        self.closing = False
        self.complete = True

    def resume(self) -> None:
        """Give what was received to the parser, which then has a whole request without reading."""
        if self.parser is None:
            self.parser = gunicorn_http.get_parser(self.cfg, self.sock, self.client)
            self.parser.unreader = _Received()
            self.initialized = True
        self.complete = self.incoming.complete
        self.parser.unreader.buf.write(self.incoming.take())


class ReadingWorker(ThreadWorker):  # type: ignore[misc]
    """
    gunicorn's threaded worker, but for this: a request takes a thread only when it is there as a whole.

    The main thread owns every connection until then, and again after the answer, so that a client
    that is slow to send, or to close, costs no thread. What has no other note belongs to it.
    """

    alive: bool

    def init_process(self) -> None:
        """Begin with nothing read."""
        self._reading: set[Connection] = set()
        self._unfinished = 0
        self._next_sweep = 0.0
        super().init_process()

    def limit_requests(self, max_head: int, max_body: int, read_timeout: float) -> None:
        """Bytes of the header section and of the body, and seconds that a request may take to arrive."""
        self._max_head, self._max_body, self._read_timeout = max_head, max_body, read_timeout

    def busy(self) -> int:
        """Connections that still owe or expect something; those that only linger for the peer's sake do not count."""
        return int(self.nr_conns) - sum(conn.closing for conn in self._reading)

    def end_soon(self, deadline: float) -> None:
        """End the waits for requests: *deadline* (monotonic seconds) is for those that are on their way."""
        linger = time.monotonic() + STOP_LINGER
        for conn in self._reading:
            conn.deadline = min(conn.deadline, deadline if len(conn.incoming) else linger)

    def accept(self, listener: Any) -> None:
        """Take one connection; its request may be there already."""
        try:
            sock, client = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                time.sleep(0.05)  # the connection waits in the backlog
            return  # accept(2): what went wrong with the connection is no error of the listener
        self.nr_conns += 1
        incoming = Incoming(self._max_head, self._max_body)
        conn = Connection(self.cfg, sock, client, listener.getsockname(), incoming)
        if self.cfg.is_ssl:
            self.enqueue_req(conn)
        else:
            self._await_request(conn, self._read_timeout)
            self._on_readable(conn, sock)

    def _await_request(self, conn: Connection, patience: float) -> None:
        conn.sock.setblocking(False)
        conn.deadline = time.monotonic() + (patience if self.alive else STOP_LINGER)
        self._reading.add(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_readable, conn))

    def _on_readable(self, conn: Connection, sock: Any) -> None:
        if conn not in self._reading:
            return
        try:
            data = conn.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._forget(conn)
        elif not conn.closing:
            self._take_in(conn, data)

    def _take_in(self, conn: Connection, data: bytes) -> None:
        if not len(conn.incoming):
            conn.deadline = time.monotonic() + self._read_timeout
        self._unfinished += len(data)
        state = conn.incoming.feed(data)
        if state is State.WHOLE:
            self._hand_over(conn)
        elif state is State.HEAD_TOO_LARGE:
            self._refuse(conn, 431, "Request Header Fields Too Large", "the header section is over the limit")
        elif state is State.BODY_TOO_LARGE:
            self._refuse(conn, 413, "Content Too Large", f"at most {self._max_body} bytes are accepted")
        elif self._unfinished > MAX_UNFINISHED:
            self._refuse(conn, 503, "Service Unavailable", "too many unfinished requests")
        elif state is State.CONTINUE:
            conn.continued = True
            self._send(conn, b"HTTP/1.1 100 Continue\r\n\r\n")

    def _hand_over(self, conn: Connection) -> None:
        self._unwatch(conn)
        conn.resume()
        self.enqueue_req(conn)

    def _unwatch(self, conn: Connection) -> None:
        self._unfinished -= len(conn.incoming)
        self._reading.discard(conn)
        try:
            self.poller.unregister(conn.sock)
        except (KeyError, ValueError, OSError):
            pass

    def _send(self, conn: Connection, data: bytes) -> None:
        """Send a few bytes to a socket that takes them now; one that does not is the peer's loss."""
        try:
            conn.sock.send(data)
        except OSError:
            pass

    def _refuse(self, conn: Connection, status: int, phrase: str, why: str) -> None:
        log.warn("request refused", status=status, reason=why, remote=_address(conn.client))
        body = f'{{"error":"{phrase}","detail":"{why}"}}'.encode()
        head = (
            f"HTTP/1.1 {status} {phrase}\r\nConnection: close\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._send(conn, head.encode() + body)
        self._linger(conn)

    def _linger(self, conn: Connection) -> None:
        """Close for writing, and read on for a moment, so that the answer is not lost to a reset."""
        self._unfinished -= len(conn.incoming)
        conn.incoming.take()
        conn.closing = True
        conn.deadline = time.monotonic() + CLOSE_LINGER
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._forget(conn)

    def _forget(self, conn: Connection) -> None:
        self._unwatch(conn)
        self.nr_conns -= 1
        conn.close()

    def close_overdue(self) -> None:
        now = time.monotonic()
        if now < self._next_sweep:
            return
        self._next_sweep = now + SWEEP_INTERVAL
        for conn in [c for c in self._reading if c.deadline <= now]:
            if conn.closing or not len(conn.incoming):
                self._forget(conn)
            else:
                self._refuse(conn, 408, "Request Timeout", f"not received within {self._read_timeout:g} s")

    def make_room(self) -> None:
        """When every connection is taken, those that ask for nothing go first, the longest idle before the others."""
        if self.nr_conns < self.worker_connections:
            return
        idle = [conn for conn in self._reading if not len(conn.incoming)]
        for conn in heapq.nsmallest(self.worker_connections // 20 + 1, idle, key=lambda c: c.deadline):
            self._forget(conn)

    def finish_request(self, conn: Connection, fs: futures.Future[bool]) -> None:
        """A request is answered: wait for the next one on its connection, or close it."""
        # With TLS the bytes may already be in the library's buffer, where no poll sees them: one request each.
        keep = not self.cfg.is_ssl and not fs.cancelled() and fs.exception() is None and fs.result()
        try:
            conn.sock.setblocking(False)
            if not keep:
                self._reading.add(conn)
                self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_readable, conn))
                self._linger(conn)
                return
            conn.continued = False
            self._await_request(conn, self.cfg.keepalive)
            if rest := conn.parser.unreader.take_buffered():
                self._take_in(conn, rest)
        except (OSError, ValueError, KeyError):
            self._forget(conn)

    # In a thread of the pool.

    def handle(self, conn: Connection) -> bool:
        """Parse and answer one request; returns whether the connection may carry another."""
        if not conn.initialized:
            return bool(super().handle(conn))
        request = None
        try:
            conn.sock.settimeout(WRITE_TIMEOUT)
            request = next(conn.parser)
            if conn.continued or not conn.complete:
                request._expected_100_continue = False
            keep = self.handle_request(request, conn)
            return conn.complete and bool(self._keepalive_after(conn, keep))
        except (StopIteration, gunicorn_http.errors.NoMoreData):
            return False
        except OSError as error:
            log.debug("connection lost", remote=_address(conn.client), error=repr(error))
        except Exception as error:  # noqa: BLE001 - the edge of the request: the parser's refusals end here
            self.handle_error(request, conn.sock, conn.client, error)
        return False


def _address(client: Any) -> str:
    return str(client[0]) if isinstance(client, tuple) else str(client)
