"""What we lean on inside gunicorn is there, in the shape that we lean on."""

from __future__ import annotations

import importlib.metadata
import inspect

from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer
from gunicorn.http.message import Message
from gunicorn.http.parser import Parser
from gunicorn.workers.base import Worker
from gunicorn.workers.gthread import PollableMethodQueue, TConn, ThreadWorker


def parameters(function: object) -> list[str]:
    return list(inspect.signature(function).parameters)  # type: ignore[arg-type]


def test_gunicorn_is_the_major_version_that_we_pinned() -> None:
    assert importlib.metadata.version("gunicorn").split(".")[0] == "27"


def test_the_thread_worker_has_the_methods_that_ours_replaces_or_calls() -> None:
    expected = {
        "accept": ["self", "listener"],
        "finish_request": ["self", "conn", "fs"],
        "handle": ["self", "conn"],
        "handle_request": ["self", "req", "conn"],
        "enqueue_req": ["self", "conn"],
        "_keepalive_after": ["self", "conn", "keepalive"],
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
