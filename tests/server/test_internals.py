"""What we lean on inside gunicorn is there, in the shape that we lean on."""

from __future__ import annotations

import importlib.metadata
import inspect
from types import SimpleNamespace

import pytest
from gunicorn import util
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.errors import HaltServer
from gunicorn.http import wsgi
from gunicorn.http.message import Message
from gunicorn.http.parser import Parser, RequestParser
from gunicorn.workers.base import Worker
from gunicorn.workers.gthread import PollableMethodQueue, TConn, ThreadWorker

from patron.server import internals


def parameters(function: object) -> list[str]:
    return list(inspect.signature(function).parameters)  # type: ignore[arg-type]


def test_gunicorn_is_the_major_version_that_we_pinned() -> None:
    assert importlib.metadata.version("gunicorn").split(".")[0] == "27"


def test_the_thread_worker_has_the_methods_that_ours_replaces_or_calls() -> None:
    expected = {
        "accept": ["self", "listener"],
        "finish_request": ["self", "conn", "fs"],
        "handle": ["self", "conn"],
        "enqueue_req": ["self", "conn"],
        "set_accept_enabled": ["self", "enabled"],
        "wait_for_and_dispatch_events": ["self", "timeout"],
        "get_thread_pool": ["self"],
        "run": ["self"],
    }
    assert {name: parameters(getattr(ThreadWorker, name)) for name in expected} == expected


def test_the_worker_wakes_its_loop_by_a_pipe_and_by_a_queue() -> None:
    assert "set_wakeup_fd(self.PIPE[1])" in inspect.getsource(Worker.init_signals)
    assert parameters(PollableMethodQueue.defer) == ["self", "callback", "args"]
    assert "self.nr_conns" in inspect.getsource(ThreadWorker.accept)


def test_a_connection_and_its_parser_hold_what_was_received() -> None:
    assert parameters(TConn.__init__) == ["self", "cfg", "sock", "client", "server"]
    assert "self.unreader" in inspect.getsource(Parser.__init__)
    assert "_expected_100_continue" in inspect.getsource(Message)


def test_an_answer_is_made_of_pieces_for_the_socket_that_it_is_given() -> None:
    assert parameters(wsgi.create)[:7] == [
        *("req", "sock", "client", "server", "cfg"),
        *("response_class", "response_args"),
    ]
    assert parameters(wsgi.Response.__init__) == ["self", "req", "sock", "cfg"]
    sent: list[bytes] = []
    util.write(SimpleNamespace(sendall=sent.append), b"abc", True)
    util.write(SimpleNamespace(sendall=sent.append), b"abc")
    assert sent == [b"3\r\nabc\r\n", b"abc"]


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 3\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"]
)
def test_a_body_tells_whether_all_of_it_was_read(framing: bytes) -> None:
    parser = RequestParser(Config(), iter([b"POST / HTTP/1.1\r\n" + framing]), ("127.0.0.1", 1))
    body = next(parser).body
    assert internals.is_chunked(body) is (b"chunked" in framing)
    assert not internals.at_end(body)
    assert body.read(2) == b"ab"
    assert body.read() == b"c"
    assert internals.at_end(body)


def test_the_arbiter_finds_on_its_instance_what_we_put_there() -> None:
    loop = inspect.getsource(Arbiter.run)
    assert 'getattr(self, "handle_%s" % signame' in loop
    assert "self.stop()" in inspect.getsource(Arbiter.halt)
    assert "self.setup(self.app)" in inspect.getsource(Arbiter.reload)
    assert "self.spawn_workers()" in inspect.getsource(Arbiter.manage_workers)
    assert "self.manage_workers()" in loop


def test_a_run_is_ended_by_an_error_from_the_child_exit_hook() -> None:
    assert "self.cfg.child_exit(self, worker)" in inspect.getsource(Arbiter.reap_workers)
    assert "except HaltServer as inst" in inspect.getsource(Arbiter.run)
    assert HaltServer("why", 1).exit_status == 1


def test_the_worker_class_is_asked_before_the_arbiter_is_ready() -> None:
    source = inspect.getsource(Arbiter.start)
    assert source.index("check_config(self.cfg, self.log)") < source.index("self.cfg.when_ready(self)")
