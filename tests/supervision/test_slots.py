"""Workers read what the others say of themselves, whatever happens to a writer."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from patron.slots import SLOT_SIZE, Board, Ended, Slot


@pytest.fixture
def board() -> Iterator[Board]:
    board = Board(4)
    yield board
    board.close()


def in_child(work: object) -> int:
    """Run *work* in a forked child; returns the wait status."""
    pid = os.fork()
    if pid == 0:
        try:
            work()  # type: ignore[operator]
        finally:
            os._exit(0)
    return os.waitpid(pid, 0)[1]


def test_a_slot_that_is_freed_is_the_next_one_taken(board: Board) -> None:
    assert [board.take(), board.take(), board.take()] == [0, 1, 2]
    board.free(1)
    assert board.take() == 1


def test_more_workers_than_slots_is_an_error(board: Board) -> None:
    for _ in range(4):
        board.take()
    with pytest.raises(RuntimeError, match="all 4 worker slots are taken"):
        board.take()


def test_what_another_process_publishes_is_read_here(board: Board) -> None:
    slot = Slot(board, board.take())
    in_child(
        lambda: slot.publish(
            ready=False, reasons=("orders: no assignment",), components=({"name": "orders"},)
        )
    )
    [state] = board.states()
    assert (state.ready, state.reasons, state.components) == (
        False,
        ("orders: no assignment",),
        ({"name": "orders"},),
    )
    assert state.pid != os.getpid()


def test_a_worker_that_said_nothing_yet_is_not_ready(board: Board) -> None:
    board.take()
    [state] = board.states()
    assert not state.ready
    assert state.reasons == ("a worker is starting",)


def test_only_a_worker_that_said_so_ended_in_order(board: Board) -> None:
    clean, crashed = board.take(), board.take()
    in_child(lambda: Slot(board, clean).mark_clean(3))
    assert not board.all_clean()
    assert board.free(clean) == 3
    assert board.free(crashed) is None
    assert board.all_clean()


def test_the_worst_status_that_was_asked_for_stays(board: Board) -> None:
    assert board.ended() is None
    in_child(lambda: board.end(0))
    assert board.ended() == Ended(0)
    in_child(lambda: board.end(1))
    in_child(lambda: board.end(0))
    assert board.ended() == Ended(1)


def test_a_state_too_large_for_a_slot_keeps_names_and_readiness(board: Board) -> None:
    slot = Slot(board, board.take())
    huge = tuple({"name": f"c{n}", "state": "running", "text": "x" * 1000} for n in range(SLOT_SIZE // 500))
    slot.publish(ready=True, components=huge)
    [state] = board.states()
    assert state.ready
    assert state.components[0] == {"name": "c0", "state": "running"}


def test_missing_workers_are_counted_until_each_was_started(board: Board) -> None:
    board.expect(2)
    assert board.missing() == 2
    board.free(board.take())
    board.take()
    assert board.missing() == 0


def test_a_reader_gets_a_whole_record_while_another_process_writes_all_the_time(board: Board) -> None:
    slot = Slot(board, board.take())
    pid = os.fork()
    if pid == 0:
        number = 0
        while True:
            number += 1
            slot.publish(ready=True, reasons=("x" * (number % 2000), str(number % 2000)))
    try:
        until, seen = time.monotonic() + 1, set()
        while time.monotonic() < until:
            for state in board.states():
                if state.reasons and state.pid == pid:
                    assert len(state.reasons[0]) == int(state.reasons[1])
                    seen.add(state.reasons[1])
        assert len(seen) > 50
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_writer_killed_in_the_middle_leaves_a_worker_that_is_not_ready(board: Board) -> None:
    slot = Slot(board, board.take())
    slot.publish(ready=True)
    board._map[board._at(slot.index)] += 1  # the sequence is odd: somebody began to write, and died
    [state] = board.states()
    assert not state.ready
