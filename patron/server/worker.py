"""The gunicorn worker that is one whole service: HTTP in its loop, every component in a thread beside it."""

from __future__ import annotations

import os
import queue
import select
import selectors
import signal
import sys
import threading
import time
from concurrent import futures
from typing import Any

from patron.errors import ConfigError, MissingExtra, NotASource
from patron.live import LiveService
from patron.observe import log
from patron.server import run
from patron.server.answering import AnsweringWorker
from patron.server.parent import die_with_parent, signal_at_parents_death, unblock_signals
from patron.slots import Slot
from patron.supervisor import describe_work

__all__ = ["PatronWorker"]

#: Seconds that are left for closing when "now" was asked for.
NOW = 0.5
_ORPHANED = signal.SIGUSR2
_WATCHED = (signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, _ORPHANED)


class PatronWorker(AnsweringWorker):
    """
    Reads requests in the main thread, runs them in the pool, and the rest of the service beside them.

    The main thread runs no user code, so it always answers signals and the arbiter's heartbeat.
    Everything here that has no other note belongs to it.
    """

    live: LiveService
    wsgi: Any
    sockets: list[Any]

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Called by the arbiter before it is ready: our hooks go in front of the user's. Exits when it cannot be."""
        super().check_config(cfg, log)
        if cfg.protocol != "http" or "h2" in cfg.http_protocols or cfg.http2_cleartext != "off":
            run.report(
                ConfigError(
                    "Patron's worker speaks HTTP/1.1: leave out protocol, http_protocols, http2_cleartext"
                )
            )
            sys.exit(2)
        run.install_hooks(cfg)

    # Starting.

    def init_process(self) -> None:
        """Open the service in this process, then run until it is stopped; ends the process."""
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._ended: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._orphan = self._now = False
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
        self.live.on_started = self._wake  # the others may end now: take the requests at once
        self.live.on_end = self._ask_end
        self.wsgi = self.live.app
        self.limit_requests(self.live.service.http, self.live.app.intake)

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
        self._wake()

    def _wake(self) -> None:
        """End the wait of the loop. Any thread may call."""
        self.method_queue.defer(lambda: None)

    # The loop.

    def run(self) -> None:
        """Serve until the end is asked for, then stop everything within the budget."""
        self.poller.register(
            self.method_queue.fileno(), selectors.EVENT_READ, self.method_queue.run_callbacks
        )
        self.poller.register(self.PIPE[0], selectors.EVENT_READ, self._drain_wakeups)
        self.live.port = _port(self.sockets)
        self.live.start()
        self._accept_what_fits()
        while self.alive:
            self._turn(1.0)
            self._handle_signals()
            self._handle_ends()
            if self.alive:
                self._accept_what_fits()
        self._stop()

    def _accept_what_fits(self) -> None:
        self.make_room()
        self.set_accept_enabled(self.nr_conns < self.worker_connections and self._is_wanted())

    def _is_wanted(self) -> bool:
        """While it starts, a worker answers 503 and health checks: not when others could answer in its place."""
        return self.live.started.is_set() or not self.live.others_serve()

    def _turn(self, timeout: float) -> None:
        self.notify()
        self.wait_for_and_dispatch_events(timeout)
        self.close_overdue()

    def _drain_wakeups(self, pipe: int) -> None:
        try:
            os.read(pipe, 4096)
        except BlockingIOError:
            pass

    def _handle_signals(self) -> None:
        while (number := self._next(self._signals)) is not None:
            if number == signal.SIGHUP:
                if self.alive:
                    self.renew_certificates()
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

    # Stopping.

    def _stop(self) -> None:
        """The one stop budget: drain, stop the intakes, finish, close, report."""
        grace = NOW if self._now else self.live.service.process.grace
        deadline = time.monotonic() + grace
        self.live.begin_stop()
        if self._orphan:
            self._close_listeners(take_backlog=False)
        elif not self._now:
            self._serve_until(min(deadline, time.monotonic() + self.live.service.process.drain))
        self._stop_intakes(deadline)
        self._until(lambda: self.busy() == 0 and not self.live.working(), deadline)
        self._until(self.live.close(), max(deadline, time.monotonic() + NOW))
        self._exit(deadline)

    def _serve_until(self, end: float) -> None:
        while time.monotonic() < end and not self._now:
            self._turn(min(1.0, max(0.0, end - time.monotonic())))
            self._handle_signals()
            self._accept_what_fits()

    def _stop_intakes(self, deadline: float) -> None:
        self._close_listeners(take_backlog=not self._now and self._is_wanted())
        self.live.stop(deadline)
        self.end_soon(deadline)

    def _close_listeners(self, *, take_backlog: bool) -> None:
        self.set_accept_enabled(False)
        for listener in self.sockets:
            if take_backlog:
                self._take_backlog(listener)
            listener.close()  # at once: who comes between the two is reset
        self.sockets = []

    def _take_backlog(self, listener: Any) -> None:
        """Take the connections that the kernel has accepted for us: closing the listener would reset them."""
        waits = self.nr_conns < self.worker_connections
        while waits and select.select([listener], [], [], 0)[0]:
            waits = self.accept(listener) and self.nr_conns < self.worker_connections

    def _until(self, done: Any, deadline: float) -> None:
        while not done() and (left := deadline - time.monotonic()) > 0:
            self._turn(min(0.05, left))
            self._handle_signals()
            if self._now:
                deadline = min(deadline, time.monotonic() + NOW)

    def _exit(self, deadline: float) -> None:
        """Report what is left, flush, and end the process."""
        abandoned = [describe_work(work) for work in (*self.live.in_flight(), *self.unsent())]
        errors = self.live.errors()
        status = 1 if abandoned or errors else 0
        if abandoned:
            log.error(
                "work abandoned at the end of the stop budget", count=len(abandoned), abandoned=abandoned
            )
        if errors:
            _log_errors(self.live.service.name, errors)
            _tell(errors)
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


def _port(listeners: list[Any]) -> int | None:
    """The first port that is listened on; None: only Unix sockets are."""
    addresses = (listener.getsockname() for listener in listeners)
    return next((address[1] for address in addresses if isinstance(address, tuple)), None)


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


def _tell(errors: list[BaseException]) -> None:
    """One plain line for each error, to a person at a terminal, below the lines for machines."""
    if sys.stderr.isatty():
        sys.stderr.write("".join(f"patron: {line}\n" for error in errors for line in str(error).splitlines()))


def _plain(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else RuntimeError(repr(error))
