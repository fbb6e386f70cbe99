"""One connection that makes something happen which nobody foresaw does not end the worker with all the others."""

from __future__ import annotations

import selectors
import socket
from typing import Any

import pytest

from patron.server.loop import LoopWorker


class Silent:
    """As much of a connection as the guard needs."""

    remote = "192.0.2.1"
    incoming = b""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.close = sock.close


@pytest.mark.parametrize(
    "error", [AttributeError("a bug"), OSError(9, "Bad file descriptor")], ids=["bug", "system"]
)
def test_an_unforeseen_error_of_a_connection_is_logged_and_costs_that_connection(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(conn: Any, sock: Any) -> None:
        raise error

    ours, peer = socket.socketpair()
    with peer, selectors.DefaultSelector() as poller:
        worker = LoopWorker.__new__(LoopWorker)
        vars(worker).update(poller=poller, nr_conns=2, _watched=set(), _unfinished=0)
        worker._watch(Silent(ours), 1, fail)  # type: ignore[arg-type]
        peer.send(b"x")
        worker.wait_for_and_dispatch_events(1.0)
        assert (worker.nr_conns, worker._watched, poller.get_map()) == (1, set(), {})
        assert ours.fileno() == -1
    assert "connection given up" in caplog.text
