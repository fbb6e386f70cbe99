"""What all publishing clients share: payload, headers, time, one connection per process."""

from __future__ import annotations

import os
import threading

import pytest

from patron.clients._sending import PerProcess, budget, check_timeout, encoded, observed, translated
from patron.errors import ConfigError, DeadlineExceeded, EncodeError, PublishFailed
from patron.observe import Instrument, capture, operation
from patron.reliability import deadline


def test_a_value_is_json_unless_it_is_said_otherwise() -> None:
    assert encoded({"id": 1}) == (b'{"id":1}', {"Content-Type": "application/json"})


def test_bytes_stay_as_they_are() -> None:
    assert encoded(bytearray(b"\xff"), content_type="image/png") == (b"\xff", {"Content-Type": "image/png"})


def test_the_content_type_among_the_headers_decides_whatever_its_case() -> None:
    assert encoded([1], {"content-type": "application/vnd.shop+json"}) == (
        b"[1]",
        {"content-type": "application/vnd.shop+json"},
    )


def test_inside_an_operation_the_message_carries_correlation_and_trace() -> None:
    with operation("internal", "test", "test") as outer:
        _, headers = encoded({}, {"tenant": "t1"})
    assert headers["X-Correlation-Id"] == outer.correlation_id
    assert f"{outer.context.trace_id:016x}" in headers["uber-trace-id"]
    assert headers["tenant"] == "t1"


def test_what_the_format_has_no_form_for_is_an_encode_error() -> None:
    with pytest.raises(EncodeError):
        encoded(object())


def test_the_outcome_of_an_operation_is_named_as_its_metric_wants_it() -> None:
    instrument = Instrument("producer", "test", "topic")
    with capture() as seen:
        with observed(instrument):
            pass
        with pytest.raises(ValueError, match="no"), observed(instrument, succeeded="sent", failed="not"):
            raise ValueError("no")
    assert [each.outcome for each in seen.operations] == ["true", "not"]


def test_a_call_may_take_its_time_out_or_what_the_deadline_leaves_of_it() -> None:
    assert budget(5.0) == 5.0
    with deadline(60):
        assert budget(5.0) == 5.0
    with deadline(1):
        assert 0 < budget(5.0) <= 1


def test_after_the_deadline_nothing_is_sent() -> None:
    with deadline(0), pytest.raises(DeadlineExceeded):
        budget(5.0)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_time_out_is_above_0(seconds: float) -> None:
    with pytest.raises(ConfigError, match="timeout"):
        check_timeout("timeout", seconds)


def test_errors_of_the_driver_become_ours_and_say_what_failed() -> None:
    with (
        pytest.raises(PublishFailed, match="cannot send: gone") as caught,
        translated("cannot send", OSError),
    ):
        raise ConnectionError("gone")
    assert isinstance(caught.value.__cause__, ConnectionError)
    with pytest.raises(KeyError), translated("cannot send", OSError):
        raise KeyError


def shared(made: list[object], ended: list[object]) -> PerProcess[object]:
    def opened(timeout: float) -> object:
        made.append(object())
        return made[-1]

    return PerProcess(opened, ended.append, "connection")


def test_a_connection_is_opened_once_for_all_threads_and_closed_once() -> None:
    made: list[object] = []
    ended: list[object] = []
    connection = shared(made, ended)
    assert connection.peek() is None
    threads = [threading.Thread(target=connection.get, args=(5,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    connection.close()
    connection.close()
    assert ended == made
    with pytest.raises(PublishFailed, match="is closed"):
        connection.get(5)


def test_a_broken_connection_is_closed_once_and_opened_again() -> None:
    made: list[object] = []
    ended: list[object] = []
    connection = shared(made, ended)
    first = connection.get(5)
    connection.discard(first)
    connection.discard(first)
    assert connection.get(5) is not first
    connection.discard(first)  # somebody who noticed late
    assert (len(made), ended) == (2, [first])


def test_who_waits_for_another_thread_to_connect_waits_no_longer_than_its_time() -> None:
    go, started = threading.Event(), threading.Event()

    def slowly(timeout: float) -> object:
        started.set()
        go.wait(10)
        return object()

    connection = PerProcess(slowly, lambda value: None, "connection")
    thread = threading.Thread(target=connection.get, args=(10,))
    thread.start()
    started.wait(10)
    with pytest.raises(PublishFailed, match="could not be opened within"):
        connection.get(0.01)
    go.set()
    thread.join()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_opens_its_own_and_leaves_the_parents_alone() -> None:
    made: list[object] = []
    ended: list[object] = []
    connection = shared(made, ended)
    connection.get(5)
    child = os.fork()
    if child == 0:
        connection.get(5)
        connection.close()
        os._exit(0 if len(made) == 2 and ended == made[1:] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert connection.peek() is made[0]
