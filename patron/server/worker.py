"""The gunicorn worker that is one whole service: HTTP in its loop, every component in a thread beside it."""

from __future__ import annotations

import errno
import heapq
import os
import queue
import select
import selectors
import signal
import socket
import threading
import time
from concurrent import futures
from functools import partial
from typing import Any

from patron.errors import ConfigError, MissingExtra, NotASource
from patron.live import LiveService
from patron.observe import log
from patron.server import run
from patron.server.internals import TConn, ThreadWorker, Unreader, gunicorn_http
from patron.server.parent import die_with_parent, signal_at_parents_death, unblock_signals
from patron.server.reading import Incoming, State
from patron.slots import Slot
from patron.supervisor import describe_work

__all__ = ["PatronWorker"]

#: Seconds that a kept-alive connection stays open when the worker stops, for a request that is on its way.
STOP_LINGER = 1.0
#: Seconds that a closed connection is drained, so that the peer reads the answer before a reset (RFC 9112 section 9.6).
CLOSE_LINGER = 2.0
#: Seconds that are left for closing when "now" was asked for.
NOW = 0.5
#: Seconds between two looks at the deadlines of the connections that are read.
SWEEP_INTERVAL = 0.25
#: Seconds that one write to a client may take; a reader that is slower than that loses its answer.
WRITE_TIMEOUT = 60.0
#: Bytes of unfinished requests that one worker holds at most.
MAX_UNFINISHED = 64 * 1024 * 1024
_ORPHANED = signal.SIGUSR2
_WATCHED = (signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, _ORPHANED)


class _Received(Unreader):  # type: ignore[misc]
    """The bytes that the main thread has received, and then the end: a thread of the pool never waits for more."""

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Nothing more."""
        return b""


class _Connection(TConn):  # type: ignore[misc]
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


class PatronWorker(ThreadWorker):  # type: ignore[misc]
    """
    Reads requests in the main thread, runs them in the pool, and the rest of the service beside them.

    The main thread runs no user code, so it always answers signals and the arbiter's heartbeat. A
    request takes a pool thread only when it is there as a whole. Everything here that has no other
    note belongs to the main thread.
    """

    live: LiveService
    wsgi: Any
    alive: bool
    sockets: list[Any]

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Called by the arbiter before it is ready: our hooks go in front of the user's."""
        super().check_config(cfg, log)
        run.install_hooks(cfg)

    # Starting.

    def init_process(self) -> None:
        """Open the service in this process, then run until it is stopped; ends the process."""
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._ended: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reading: set[_Connection] = set()
        self._unfinished = 0
        self._orphan = self._now = False
        self._next_sweep = 0.0
        super().init_process()

    def get_thread_pool(self) -> futures.ThreadPoolExecutor:
        """The pool that runs the requests."""
        return futures.ThreadPoolExecutor(max_workers=self.cfg.threads, thread_name_prefix="patron-http")

    def init_signals(self) -> None:
        """Handlers only put into a queue; the wake-up pipe ends the poll (a handler may run while any lock is held)."""
        super().init_signals()
        for number in _WATCHED:
            signal.signal(number, self._on_signal)
            signal.siginterrupt(number, False)
        # The arbiter decides what a Ctrl-C means: the terminal sends it to the whole group.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        unblock_signals()
        # Until the user's modules are imported nothing reads our queue of signals.
        die_with_parent(self.ppid)

    def _on_signal(self, number: int, frame: Any) -> None:
        self._signals.put(number)

    def load_wsgi(self) -> None:
        """Build the service; what is wrong ends the run, not only this worker."""
        try:
            super().load_wsgi()
            self._open()
            signal_at_parents_death(_ORPHANED)
            if os.getppid() != self.ppid:
                self._signals.put(_ORPHANED)
        except Exception as error:  # noqa: BLE001 - user code is imported here; any error ends the run
            self._fail_boot(error)

    def _open(self) -> None:
        opener = getattr(self.wsgi, "open_in_worker", None)
        if opener is None:
            raise ConfigError(
                f"{self.wsgi!r} is no Patron service: name patron.wsgi:app in the gunicorn command"
            )
        self.live = opener(run.slot_of(self), run.state().metrics_directory)
        self.live.on_end = self._ask_end
        self.wsgi = self.live.app
        settings = self.live.service.http
        self._max_head, self._max_body = settings.max_header, settings.max_body
        self._read_timeout = settings.read_timeout

    def _fail_boot(self, error: Exception) -> None:
        status = 2 if isinstance(error, ConfigError) else 1
        board = run.state().board
        if board.ended() is None:  # the other workers find the same mistake: one report is enough
            board.end(status)
            run.report(error)
        run.slot_of(self).mark_clean(status)
        self._tell_parent()
        os._exit(status)

    def _ask_end(self, reason: str) -> None:
        """The service ends by itself. Any thread may call."""
        self._ended.put(reason)
        self.method_queue.defer(lambda: None)

    # The loop.

    def run(self) -> None:
        """Serve until the end is asked for, then stop everything within the budget."""
        self.poller.register(
            self.method_queue.fileno(), selectors.EVENT_READ, self.method_queue.run_callbacks
        )
        self.poller.register(self.PIPE[0], selectors.EVENT_READ, self._drain_wakeups)
        self.set_accept_enabled(True)
        self.live.start()
        while self.alive:
            self._turn(1.0)
            self._handle_signals()
            self._handle_ends()
            if self.alive:
                self._make_room()
                self.set_accept_enabled(self.nr_conns < self.worker_connections)
        self._stop()

    def _turn(self, timeout: float) -> None:
        self.notify()
        self.wait_for_and_dispatch_events(timeout)
        self._close_overdue()

    def _drain_wakeups(self, pipe: int) -> None:
        try:
            os.read(pipe, 4096)
        except BlockingIOError:
            pass

    def _handle_signals(self) -> None:
        while (number := self._next(self._signals)) is not None:
            if number == signal.SIGHUP:
                if self.alive:
                    self.live.call_sighup()
                continue
            self.alive = False
            self._orphan = self._orphan or (number == _ORPHANED and os.getppid() != self.ppid)
            self._now = self._now or number == signal.SIGQUIT

    def _handle_ends(self) -> None:
        reason = self._next(self._ended)
        if reason is not None:
            run.state().board.end(1 if self.live.errors() else 0)
            self.alive = False
            self._tell_parent()

    def _next(self, source: queue.SimpleQueue[Any]) -> Any:
        try:
            return source.get_nowait()
        except queue.Empty:
            return None

    def _tell_parent(self) -> None:
        """The run ends: the arbiter stops every worker at once, instead of starting this one again."""
        if os.getppid() == self.ppid:
            os.kill(self.ppid, signal.SIGTERM)

    # Connections.

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
        conn = _Connection(self.cfg, sock, client, listener.getsockname(), incoming)
        if self.cfg.is_ssl:
            self.enqueue_req(conn)
        else:
            self._await_request(conn, self._read_timeout)
            self._on_readable(conn, sock)

    def _await_request(self, conn: _Connection, patience: float) -> None:
        conn.sock.setblocking(False)
        conn.deadline = time.monotonic() + (patience if self.alive else STOP_LINGER)
        self._reading.add(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_readable, conn))

    def _on_readable(self, conn: _Connection, sock: Any) -> None:
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

    def _take_in(self, conn: _Connection, data: bytes) -> None:
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

    def _hand_over(self, conn: _Connection) -> None:
        self._unwatch(conn)
        conn.resume()
        self.enqueue_req(conn)

    def _unwatch(self, conn: _Connection) -> None:
        self._unfinished -= len(conn.incoming)
        self._reading.discard(conn)
        try:
            self.poller.unregister(conn.sock)
        except (KeyError, ValueError, OSError):
            pass

    def _send(self, conn: _Connection, data: bytes) -> None:
        """Send a few bytes to a socket that takes them now; one that does not is the peer's loss."""
        try:
            conn.sock.send(data)
        except OSError:
            pass

    def _refuse(self, conn: _Connection, status: int, phrase: str, why: str) -> None:
        log.warn("request refused", status=status, reason=why, remote=_address(conn.client))
        body = f'{{"error":"{phrase}","detail":"{why}"}}'.encode()
        head = (
            f"HTTP/1.1 {status} {phrase}\r\nConnection: close\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._send(conn, head.encode() + body)
        self._linger(conn)

    def _linger(self, conn: _Connection) -> None:
        """Close for writing, and read on for a moment, so that the answer is not lost to a reset."""
        self._unfinished -= len(conn.incoming)
        conn.incoming.take()
        conn.closing = True
        conn.deadline = time.monotonic() + CLOSE_LINGER
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._forget(conn)

    def _forget(self, conn: _Connection) -> None:
        self._unwatch(conn)
        self.nr_conns -= 1
        conn.close()

    def _close_overdue(self) -> None:
        now = time.monotonic()
        if now < self._next_sweep:
            return
        self._next_sweep = now + SWEEP_INTERVAL
        for conn in [c for c in self._reading if c.deadline <= now]:
            if conn.closing or not len(conn.incoming):
                self._forget(conn)
            else:
                self._refuse(conn, 408, "Request Timeout", f"not received within {self._read_timeout:g} s")

    def _make_room(self) -> None:
        """When every connection is taken, those that ask for nothing go first, the longest idle before the others."""
        if self.nr_conns < self.worker_connections:
            return
        idle = [conn for conn in self._reading if not len(conn.incoming)]
        for conn in heapq.nsmallest(self.worker_connections // 20 + 1, idle, key=lambda c: c.deadline):
            self._forget(conn)

    def finish_request(self, conn: _Connection, fs: futures.Future[bool]) -> None:
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

    def handle(self, conn: _Connection) -> bool:
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

    # Stopping.

    def _stop(self) -> None:
        """The one stop budget: drain, stop the intakes, finish, close, report."""
        grace = NOW if self._now else self.live.service.process.grace
        deadline = time.monotonic() + grace
        self.live.begin_stop()
        if self._orphan:
            self._close_listeners()
        elif not self._now:
            self._serve_until(min(deadline, time.monotonic() + self.live.service.process.drain))
        self._stop_intakes(deadline)
        self._until(lambda: self._busy() == 0 and not self.live.working(), deadline)
        self._until(self.live.close(), max(deadline, time.monotonic() + NOW))
        self._exit(deadline)

    def _serve_until(self, end: float) -> None:
        while time.monotonic() < end and not self._now:
            self._turn(min(1.0, max(0.0, end - time.monotonic())))
            self._handle_signals()

    def _stop_intakes(self, deadline: float) -> None:
        self._take_backlog()
        self.set_accept_enabled(False)
        self._close_listeners()
        self.live.stop(deadline)
        linger = time.monotonic() + STOP_LINGER
        for conn in self._reading:
            conn.deadline = min(conn.deadline, deadline if len(conn.incoming) else linger)

    def _take_backlog(self) -> None:
        """Take the connections that the kernel has accepted for us: closing the listener would reset them."""
        if self._orphan or self._now:
            return
        for listener in self.sockets:
            while select.select([listener], [], [], 0)[0] and self.nr_conns < self.worker_connections:
                self.accept(listener)

    def _close_listeners(self) -> None:
        self.set_accept_enabled(False)
        for listener in self.sockets:
            listener.close()
        self.sockets = []

    def _busy(self) -> int:
        """Connections that still owe or expect something; those that only linger for the peer's sake do not count."""
        return int(self.nr_conns) - sum(conn.closing for conn in self._reading)

    def _until(self, done: Any, deadline: float) -> None:
        while not done() and (left := deadline - time.monotonic()) > 0:
            self._turn(min(0.05, left))
            self._handle_signals()
            if self._now:
                deadline = min(deadline, time.monotonic() + NOW)

    def _exit(self, deadline: float) -> None:
        """Report what is left, flush, and end the process."""
        abandoned = [describe_work(work) for work in self.live.in_flight()]
        errors = self.live.errors()
        status = 1 if abandoned or errors else 0
        if abandoned:
            log.error(
                "work abandoned at the end of the stop budget", count=len(abandoned), abandoned=abandoned
            )
        if errors:
            _log_errors(self.live.service.name, errors)
        self._finish_telemetry()
        run.slot_of(self).mark_clean(status)
        if abandoned:
            os._exit(status)  # threads that hang would keep the interpreter from ending
        self.tpool.shutdown(wait=False)
        _end_at(max(deadline, time.monotonic() + NOW), run.slot_of(self))

    def _finish_telemetry(self) -> None:
        from patron import observe

        log.info("service stopped", name=self.live.service.name)
        observe.stop(1.0)


def _end_at(deadline: float, slot: Slot) -> None:
    """End the process at *deadline* at the latest: a thread of the user's that is no daemon may keep it alive."""

    def wait() -> None:
        time.sleep(max(0.0, deadline - time.monotonic()))
        names = [t.name for t in threading.enumerate() if not t.daemon and t is not threading.main_thread()]
        log.error("threads outlived the stop budget", threads=names)
        slot.mark_clean(1)
        os._exit(1)

    threading.Thread(target=wait, name="patron-last-call", daemon=True).start()


def _log_errors(name: str, errors: list[BaseException]) -> None:
    """Every error in one line; with the tracebacks, unless all of them are mistakes that a user can mend."""
    mistakes = all(isinstance(error.__cause__, ConfigError | NotASource | MissingExtra) for error in errors)
    group = (
        None if mistakes else ExceptionGroup(f"service {name} failed", [_plain(error) for error in errors])
    )
    log.error("service failed", errors=[str(error) for error in errors], exc_info=group)


def _plain(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else RuntimeError(repr(error))


def _address(client: Any) -> str:
    return str(client[0]) if isinstance(client, tuple) else str(client)
