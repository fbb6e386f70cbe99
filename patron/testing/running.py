"""A live service inside the test's own process, on a free port."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import Any

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from patron import observe
from patron.errors import WorkAbandoned
from patron.live import LiveService
from patron.service import Service
from patron.supervisor import describe_work

__all__ = ["Running"]


class _QuietHandler(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """The service writes its own access log."""


class Running:
    """
    Runs *service* in this process for the length of a ``with`` block.

    The HTTP side listens on a free loopback port (`url`); resources are opened, components run in
    their threads as in a worker. *resources* replaces the factories of the same names by ready
    values. When the block ends the service is stopped within its own budget.

    Raises:
        ExceptionGroup: at the end of the block, with every error of a component, a resource or a
            hook, and a `WorkAbandoned` for work that outlived the budget; ``except*`` picks.
    """

    def __init__(self, service: Service, *, resources: Mapping[str, Any] | None = None) -> None:
        self.service = service
        self._replaced = dict(resources or {})
        self._ended = threading.Event()
        self._live: LiveService | None = None
        self._server: BaseWSGIServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def live(self) -> LiveService:
        """What is live of the service."""
        assert self._live is not None, "the service runs only inside the with block"
        return self._live

    @property
    def url(self) -> str:
        """The base address, as ``http://127.0.0.1:<port>``."""
        assert self._server is not None, "the service runs only inside the with block"
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def listening(self) -> bool:
        """Whether `url` answers already; true before the resources are open."""
        return self._thread is not None and self._thread.is_alive()

    def __enter__(self) -> Running:
        self._live = self.service.open(
            replaced={name: partial(_lent, value) for name, value in self._replaced.items()}
        )
        self._live.on_end = lambda reason: self._ended.set()
        self._server = make_server(
            "127.0.0.1", 0, self._live.app, threaded=True, request_handler=_QuietHandler
        )
        self._server.daemon_threads = True  # type: ignore[attr-defined]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), name="patron-http", daemon=True
        )
        self._thread.start()
        self._live.start()
        self._await_start()
        return self

    def _await_start(self) -> None:
        while not self.live.started.wait(0.01):
            if self._ended.is_set():
                return

    def wait_ended(self, timeout: float) -> bool:
        """Wait until the service ends by itself, at most *timeout* seconds; returns whether it did."""
        return self._ended.wait(timeout)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        deadline = time.monotonic() + self.service.process.grace
        live = self.live
        live.stop(deadline)
        self._await(deadline)
        abandoned = [WorkAbandoned(describe_work(work)) for work in live.in_flight()]
        closed = live.close()
        self._await_closed(closed, max(deadline, time.monotonic() + 0.5))
        self._close_server()
        observe.stop(1.0)
        failures = [*live.errors(), *abandoned]
        if failures and error is None:
            raise BaseExceptionGroup(f"service {self.service.name} failed", failures)

    def _await(self, deadline: float) -> None:
        while (self.live.working() or self.live.app.in_flight()) and time.monotonic() < deadline:
            time.sleep(0.005)

    def _await_closed(self, closed: Callable[[], bool], deadline: float) -> None:
        while not closed() and time.monotonic() < deadline:
            time.sleep(0.005)

    def _close_server(self) -> None:
        assert self._server is not None
        assert self._thread is not None
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _lent(value: Any) -> Iterator[Any]:
    """A resource that is the test's own: a generator, so that the service closes nothing of it."""
    yield value
