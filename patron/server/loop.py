"""The main thread of a worker: accepts, reads whole requests, writes what clients are slow to take, and refuses."""

from __future__ import annotations

import contextlib
import errno
import heapq
import math
import selectors
import ssl
import time
from collections.abc import Callable
from concurrent import futures
from functools import partial
from typing import Any

from patron.component import Work
from patron.http import HttpSettings
from patron.observe import log
from patron.server import tls
from patron.server.connections import Connection, Phase
from patron.server.internals import ThreadWorker
from patron.server.reading import Incoming, Plan, State
from patron.server.refusals import Refusals

__all__ = ["STOP_LINGER", "LoopWorker"]

#: Seconds that a connection stays open when the worker stops, for a request that is on its way: for its head.
STOP_LINGER = 1.0
#: Seconds before the end of the stop budget when a body that is still arriving is refused: to be told so.
STOP_REFUSAL = 0.5
#: Seconds that a closed connection is drained, so that the peer reads the answer before a reset (RFC 9112 section 9.6).
CLOSE_LINGER = 2.0
#: Seconds between two looks at the deadlines of the connections.
SWEEP_INTERVAL = 0.25
#: Bytes of unfinished requests that one worker holds at most.
MAX_UNFINISHED = 64 * 1024 * 1024
#: Bytes of answers that one worker holds at most for clients that are slow to take them.
MAX_UNSENT = 64 * 1024 * 1024

_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class LoopWorker(ThreadWorker):  # type: ignore[misc]
    """
    gunicorn's threaded worker, but for this: a request takes a thread only when it is there as a whole.

    The main thread owns every connection until then, and again when the answer is made, so that a client
    that is slow to send, to read, or to close, costs no thread. What has no other note belongs to it.
    """

    alive: bool

    def init_process(self) -> None:
        """Begin with nothing read."""
        self.begin_loop()
        super().init_process()

    def begin_loop(self) -> None:
        """Watch nothing yet."""
        self._watched: set[Connection] = set()
        self._unfinished = 0
        self._heads_until = self._bodies_until = math.inf  # monotonic seconds, once the worker stops
        self._next_sweep = 0.0
        self._tls: ssl.SSLContext | None = None

    def limit_requests(self, settings: HttpSettings, plan: Plan | None = None) -> None:
        """Take in what *settings* allow; *plan* says what holds for the body of one request."""
        self._settings = settings
        self._plan = plan
        self._refusals = Refusals(settings)
        self._tls = tls.context(self.cfg)

    def renew_certificates(self) -> None:
        """Read the files of TLS again, for the connections that follow; those that do not hold change nothing."""
        try:
            self._tls = tls.context(self.cfg)
        except OSError as error:
            log.error("certificates are not renewed, the old ones stay", error=str(error))

    def busy(self) -> int:
        """Connections that still owe or expect something; those that only linger for the peer's sake do not count."""
        return int(self.nr_conns) - sum(conn.phase is Phase.CLOSING for conn in self._watched)

    def unsent(self) -> list[Work]:
        """The answers that clients have not taken yet."""
        return [
            Work(f"{conn.asked}: {conn.outgoing.size} bytes not taken", conn.arrived, None)
            for conn in self._watched
            if conn.phase is Phase.WRITING
        ]

    def end_soon(self, deadline: float) -> None:
        """
        End the waits for requests, which are then answered that they did not arrive.

        *deadline* (monotonic seconds) is the end of the stop budget, for bodies; what has not even a head
        is known to nobody but its client, who may send it again.
        """
        self._bodies_until = deadline - STOP_REFUSAL
        self._heads_until = min(time.monotonic() + STOP_LINGER, self._bodies_until)
        for conn in self._watched:
            if conn.phase is not Phase.WRITING:
                conn.deadline = min(conn.deadline, self._wait_ends(conn))

    def _wait_ends(self, conn: Connection) -> float:
        """When a stopping worker waits no longer for the request that arrives on *conn*."""
        return self._bodies_until if conn.incoming.has_head else self._heads_until

    # From the listener to the first byte.

    def accept(self, listener: Any) -> bool:
        """Take one connection; its request may be there already. False: the system has none to give now."""
        try:
            sock, client = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                time.sleep(0.05)  # the connection waits in the backlog
                return False
            return True  # accept(2): what went wrong with the connection is no error of the listener
        try:
            sock.setblocking(False)
            if self._tls is not None:
                sock = tls.wrap(self._tls, sock)
            conn = self._connection(sock, client, listener)
        except (OSError, ValueError):
            sock.close()
            return True
        self.nr_conns += 1
        self._guarded(self._receive_from, conn)
        return True

    def _connection(self, sock: Any, client: Any, listener: Any) -> Connection:
        own = self._settings
        incoming = Incoming(own.max_header, own.max_body, self._plan)
        return Connection(self.cfg, sock, client, listener.getsockname(), incoming, own.write_timeout)

    def _receive_from(self, conn: Connection, sock: Any = None) -> None:
        if self._tls is None:
            self._await_request(conn, self._settings.read_timeout)
            self._on_readable(conn)
        else:
            conn.phase = Phase.HANDSHAKE
            conn.deadline = time.monotonic() + self._settings.read_timeout
            self._watch(conn, _READ, self._on_handshake)
            self._on_handshake(conn)

    def _on_handshake(self, conn: Connection, sock: Any = None) -> None:
        try:
            event = tls.handshake(conn.sock)
        except (OSError, ValueError) as error:
            self._refuse_handshake(conn, error)
            return
        if event:
            self.poller.modify(conn.sock, event, partial(self._guarded, self._on_handshake, conn))
            return
        self._unwatch(conn)
        self._await_request(conn, self._settings.read_timeout)
        self._on_readable(conn)

    def _refuse_handshake(self, conn: Connection, error: Exception) -> None:
        if not tls.is_plain_http(error):
            log.debug("TLS handshake failed", remote=conn.remote, error=str(error))
            self._forget(conn)
            return
        self._unwatch(conn)
        self._watch(conn, _READ, self._on_readable)  # no handshake any more
        answer = self._refusals.answer(
            400, "this port speaks TLS: use https", received=b"", remote=conn.remote, began=time.monotonic()
        )
        tls.send_plainly(conn.sock, answer)
        self._linger(conn)

    # Watching.

    def _watch(self, conn: Connection, event: int, callback: Callable[..., None]) -> None:
        self._watched.add(conn)
        self.poller.register(conn.sock, event, partial(self._guarded, callback, conn))

    def _guarded(self, callback: Callable[..., None], conn: Connection, sock: Any = None) -> None:
        """Call *callback*; what nobody foresaw costs that connection, and not the worker with all the others."""
        try:
            callback(conn, sock)
        except Exception as error:  # noqa: BLE001 - a client has made something happen that nobody thought of
            log.error("connection given up, this is a bug in Patron", remote=conn.remote, exc_info=error)
            self._forget(conn)

    def _unwatch(self, conn: Connection) -> None:
        if conn in self._watched:
            self._unfinished -= len(conn.incoming)
            self._watched.remove(conn)
        try:
            self.poller.unregister(conn.sock)
        except (KeyError, ValueError, OSError):
            pass

    def _forget(self, conn: Connection) -> None:
        """Close it, and count it no more; a second time it changes nothing."""
        self._unwatch(conn)
        if conn.counted:
            conn.counted = False
            self.nr_conns -= 1
        conn.close()

    # Reading.

    def _await_request(self, conn: Connection, patience: float) -> None:
        conn.phase = Phase.READING
        conn.deadline = min(time.monotonic() + (patience if self.alive else STOP_LINGER), self._heads_until)
        self._watch(conn, _READ, self._on_readable)

    def _on_readable(self, conn: Connection, sock: Any = None) -> None:
        if conn not in self._watched:
            return
        data = conn.receive()
        if data:
            if conn.phase is Phase.READING:
                self._take_in(conn, data)
        elif data is not None:
            self._forget(conn)

    def _take_in(self, conn: Connection, data: bytes) -> None:
        if not len(conn.incoming):
            conn.began = time.monotonic()
        self._unfinished += len(data)
        state = conn.incoming.feed(data)
        if state is State.WHOLE:
            self._hand_over(conn)
        elif state is State.FLOWING:
            self._hand_over(conn, flowing=True)
        elif state is State.HEAD_TOO_LARGE:
            self._refuse(
                conn,
                431,
                f"the header section has more than {self._settings.max_header} bytes (http.max_header)",
            )
        elif state is State.BODY_TOO_LARGE:
            self._refuse(
                conn, 413, f"the body is too large: at most {conn.incoming.limit} bytes are accepted"
            )
        else:
            if state is State.CONTINUE:
                self._send(conn, b"HTTP/1.1 100 Continue\r\n\r\n")
            conn.deadline = min(conn.began + self._settings.read_timeout, self._wait_ends(conn))
            self._keep_unfinished_small()

    def _hand_over(self, conn: Connection, *, flowing: bool = False) -> None:
        self._unwatch(conn)
        conn.phase = Phase.ANSWERING
        conn.resume(flowing=flowing, read_timeout=self._settings.read_timeout)
        self.enqueue_req(conn)

    def _keep_unfinished_small(self) -> None:
        """The request that has been arriving for the longest makes room: the others are over soon."""
        if self._unfinished > MAX_UNFINISHED:
            reading = (c for c in self._watched if c.phase is Phase.READING and len(c.incoming))
            self._guarded(self._refuse_for_room, min(reading, key=lambda c: c.began))

    def _refuse_for_room(self, conn: Connection, sock: Any = None) -> None:
        self._refuse(conn, 503, "too many unfinished requests")

    # Refusing and closing.

    def _send(self, conn: Connection, data: bytes) -> None:
        """Send a few bytes to a socket that takes them now; one that does not is the peer's loss."""
        try:
            conn.outgoing.add(data)
            conn.outgoing.push()
        except OSError:
            pass

    def _refuse(self, conn: Connection, status: int, why: str) -> None:
        received = bytes(conn.incoming.data[: self._settings.max_header])
        self._send_refusal(conn, status, why, received, conn.began)
        self._linger(conn)

    def _send_refusal(self, conn: Connection, status: int, why: str, received: bytes, began: float) -> None:
        """Answer that there is no answer; the connection closes after it. Its owner calls."""
        self._send(
            conn, self._refusals.answer(status, why, received=received, remote=conn.remote, began=began)
        )

    def _linger(self, conn: Connection) -> None:
        """Close for writing, and read on for a moment, so that the answer is not lost to a reset."""
        self._unfinished -= len(conn.incoming)
        conn.incoming.take()
        conn.outgoing.clear()
        conn.phase = Phase.CLOSING
        conn.deadline = time.monotonic() + CLOSE_LINGER
        try:
            conn.close_writing()
        except (OSError, ValueError):
            self._forget(conn)

    def close_overdue(self) -> None:
        """End the waits that are over."""
        now = time.monotonic()
        if now < self._next_sweep:
            return
        self._next_sweep = now + SWEEP_INTERVAL
        for conn in [c for c in self._watched if c.deadline <= now]:
            self._guarded(self._end_wait, conn)

    def _end_wait(self, conn: Connection, sock: Any = None) -> None:
        if conn.phase is Phase.WRITING:
            self._give_up(conn, "the client reads too slowly")
        elif conn.phase is Phase.READING and len(conn.incoming):
            stops = conn.deadline < conn.began + self._settings.read_timeout
            within = "before the service stopped" if stops else f"within {self._settings.read_timeout:g} s"
            self._refuse(conn, 408, f"not received {within}")
        else:
            self._forget(conn)

    def make_room(self) -> None:
        """When every connection is taken, those that ask for nothing go first, as their waits would end."""
        if self.nr_conns < self.worker_connections:
            return
        idle = [c for c in self._watched if c.phase is not Phase.WRITING and not len(c.incoming)]
        for conn in heapq.nsmallest(self.worker_connections // 20 + 1, idle, key=lambda c: c.deadline):
            self._forget(conn)

    # Behind the answer.

    def finish_request(self, conn: Connection, fs: futures.Future[bool]) -> None:
        """A request is answered: send what is left, then wait for the next one, or close."""
        self._guarded(self._go_on, conn, fs)

    def _go_on(self, conn: Connection, fs: futures.Future[bool]) -> None:
        conn.keep = not fs.cancelled() and fs.exception() is None and fs.result()
        try:
            if conn.broken and not conn.framed:
                self._cut(conn)
            elif conn.outgoing.size:
                self._await_writable(conn)
            else:
                self._after_answer(conn)
        except (OSError, ValueError, KeyError):
            self._forget(conn)

    def _await_writable(self, conn: Connection) -> None:
        conn.phase = Phase.WRITING
        conn.deadline = conn.outgoing.deadline
        self._watch(conn, _WRITE, self._on_writable)
        self._keep_unsent_small()

    def _on_writable(self, conn: Connection, sock: Any = None) -> None:
        if conn not in self._watched:
            return
        try:
            conn.outgoing.push_slice()
            conn.deadline = conn.outgoing.deadline
            if not conn.outgoing.size:
                self._unwatch(conn)
                self._after_answer(conn)
        except (OSError, ValueError, KeyError):
            self._forget(conn)

    def _after_answer(self, conn: Connection) -> None:
        rest = conn.parser.unreader.take_buffered()
        if not conn.keep:
            self._watch(conn, _READ, self._on_readable)
            self._linger(conn)
            return
        self._await_request(conn, self.cfg.keepalive)
        if rest:
            self._take_in(conn, rest)

    def _keep_unsent_small(self) -> None:
        """The client that is closest to being too slow makes room."""
        waiting = [conn for conn in self._watched if conn.phase is Phase.WRITING]
        total = sum(conn.outgoing.size for conn in waiting)
        waiting.sort(key=lambda conn: conn.deadline, reverse=True)
        while total > MAX_UNSENT:
            conn = waiting.pop()
            total -= conn.outgoing.size
            self._guarded(self._give_up_for_room, conn)

    def _give_up_for_room(self, conn: Connection, sock: Any = None) -> None:
        self._give_up(conn, "too many bytes wait for slow clients")

    def _give_up(self, conn: Connection, why: str) -> None:
        log.warn(
            "answer cut off", request=conn.asked, left=conn.outgoing.size, remote=conn.remote, reason=why
        )
        self._cut(conn)

    def _cut(self, conn: Connection) -> None:
        """Close in the middle of an answer, so that the client notices."""
        conn.outgoing.clear()
        with contextlib.suppress(OSError):
            conn.refuse_to_end()
        self._forget(conn)
