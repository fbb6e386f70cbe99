"""One connection that makes something happen which nobody foresaw does not end the worker with all the others."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from gunicorn.config import Config

from patron.http import HttpSettings
from patron.server.connections import Connection, Phase
from patron.server.loop import LoopWorker
from patron.server.reading import Incoming

HALF = b"GET / HTTP/1.1\r\nHost: x\r\n"


def fail(*arguments: Any) -> Any:
    raise AttributeError("a bug")


class Loop(LoopWorker):
    """The main thread of a worker, with none of the processes around it."""

    def __init__(self) -> None:
        self.poller = selectors.DefaultSelector()
        self.cfg = Config()
        self.alive = True
        self.nr_conns = 0
        self.worker_connections = 100
        self.begin_loop()
        self.limit_requests(HttpSettings(read_timeout=30.0))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.peers: list[socket.socket] = []

    def connect(self, data: bytes = b"") -> Connection | None:
        """Take a connection of a client that has sent *data*; None: it was not kept."""
        known = set(self._watched)
        self.peers.append(socket.create_connection(self.listener.getsockname()))
        self.peers[-1].sendall(data)
        self.accept(self.listener)
        return next(iter(self._watched - known), None)

    def turn(self) -> None:
        """Let happen what is to happen now; the waits that are over end."""
        self.wait_for_and_dispatch_events(0.2)
        self._next_sweep = 0.0
        self.close_overdue()

    def close(self) -> None:
        for conn in list(self._watched):
            self._forget(conn)
        for peer in (*self.peers, self.listener):
            peer.close()
        self.poller.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def held(loop: Loop) -> tuple[int, int, int, int]:
    """What the loop counts, and what there is of it."""
    watched = [conn for conn in loop._watched if conn.sock.fileno() >= 0]
    return loop.nr_conns, len(watched), len(loop.poller.get_map()), loop._unfinished


def while_a_request_arrives(loop: Loop, conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Incoming, "_find_head", fail)
    loop.peers[-1].sendall(b"more")
    loop.turn()


def while_it_is_handed_over(loop: Loop, conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conn, "resume", fail)
    loop.peers[-1].sendall(b"\r\n")
    loop.turn()


def while_no_thread_can_be_had(loop: Loop, conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "enqueue_req", fail)
    loop.peers[-1].sendall(b"\r\n")
    loop.turn()


def answered(loop: Loop, conn: Connection) -> None:
    """As if a thread of the pool had answered what came on *conn*."""
    loop._unwatch(conn)
    conn.resume(flowing=False, read_timeout=30.0)
    conn.phase = Phase.ANSWERING
    done: Future[bool] = Future()
    done.set_result(True)
    loop.finish_request(conn, done)


def behind_its_answer(loop: Loop, conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conn.reader, "take_buffered", fail)
    answered(loop, conn)


def behind_its_answer_when_it_waits_again(
    loop: Loop, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conn.reader, "take_buffered", lambda: b"GET ")
    monkeypatch.setattr(loop, "_take_in", fail)
    answered(loop, conn)


def when_its_wait_is_over(loop: Loop, conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_refuse", fail)
    conn.deadline = 0.0
    loop.turn()


def when_its_answer_is_given_up(loop: Loop, conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conn, "refuse_to_end", fail)
    conn.phase, conn.deadline = Phase.WRITING, 0.0
    loop.turn()


def when_it_has_to_make_room(loop: Loop, conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patron.server.loop.MAX_UNFINISHED", len(HALF))
    monkeypatch.setattr(loop, "_refuse", fail)
    conn.began -= 100.0
    assert loop.connect(b"GET") is not None  # it has a wait of its own, and goes on
    loop._forget(next(other for other in loop._watched if other is not conn and len(other.incoming) == 3))


@pytest.mark.parametrize(
    "happens",
    [
        while_a_request_arrives,
        while_it_is_handed_over,
        while_no_thread_can_be_had,
        behind_its_answer,
        behind_its_answer_when_it_waits_again,
        when_its_wait_is_over,
        when_its_answer_is_given_up,
        when_it_has_to_make_room,
    ],
)
def test_an_unforeseen_error_is_logged_and_costs_that_connection_and_no_other(
    loop: Loop,
    happens: Callable[[Loop, Connection, pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = loop.connect(HALF)
    conn = loop.connect(HALF)
    assert conn is not None
    assert held(loop) == (2, 2, 2, 2 * len(HALF))
    happens(loop, conn, monkeypatch)
    assert "connection given up" in caplog.text
    assert conn.sock.fileno() == -1
    assert held(loop) == (1, 1, 1, len(HALF))
    assert loop._watched == {other}
    assert loop.busy() == 1


def test_an_error_before_anything_is_read_leaves_nothing_counted(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loop, "_await_request", fail)
    assert loop.connect(HALF) is None
    assert "connection given up" in caplog.text
    assert held(loop) == (0, 0, 0, 0)


def test_a_connection_that_is_given_up_twice_is_counted_once(loop: Loop) -> None:
    first, other = loop.connect(HALF), loop.connect(HALF)
    assert first is not None
    for _ in range(2):
        loop._forget(first)
    assert held(loop) == (1, 1, 1, len(HALF))
    assert loop._watched == {other}


@pytest.mark.parametrize("error", [OSError(9, "Bad file descriptor"), ValueError("closed")])
def test_an_error_of_the_system_behind_an_answer_closes_the_connection_without_a_word(
    loop: Loop, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def raises(*arguments: Any) -> Any:
        raise error

    conn = loop.connect(HALF)
    assert conn is not None
    monkeypatch.setattr(loop, "_after_answer", raises)
    answered(loop, conn)
    assert held(loop) == (0, 0, 0, 0)
    assert caplog.text == ""
