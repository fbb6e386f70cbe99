"""Only one worker runs it: the lock between processes, and what the next one knows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from patron.component import Stop
from patron.periodic.seat import SharedSeat
from patron.slots import run_directory
from patron.testing.until import until

HOLDER = """
import os, sys, time
from pathlib import Path
from patron.periodic.seat import SharedSeat
seat = SharedSeat(Path(sys.argv[1]), "tick")
assert seat.take()
seat.note("every", 20.0)
child = os.fork() if sys.argv[2] == "forks" else None
if child != 0:
    print(child or "taken", flush=True)
time.sleep(60)
"""


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """The directory of a run that components of this test belong to."""
    token = run_directory.set(tmp_path)
    yield tmp_path
    run_directory.reset(token)


def holder(directory: Path, forks: str = "alone") -> subprocess.Popen[str]:
    """Another worker, which has the seat."""
    command = [sys.executable, "-c", HOLDER, str(directory), forks]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_seat_that_another_process_has_is_taken_when_that_is_killed(shared):
    with holder(shared) as other:
        assert other.stdout.readline() == "taken\n"
        seat = SharedSeat(shared, "tick")
        assert not seat.take()
        assert SharedSeat(shared, "another").take()
        other.kill()
        until(seat.take)
    assert seat.last("every") == 20.0
    assert seat.last("cron") is None
    seat.close()


def test_a_process_that_the_killed_one_forked_does_not_keep_the_seat(shared):
    with holder(shared, "forks") as other:
        child = int(other.stdout.readline())
        seat = SharedSeat(shared, "tick")
        try:
            assert not seat.take()
            other.kill()
            until(seat.take)
        finally:
            os.kill(child, signal.SIGKILL)
    seat.close()


def test_nothing_is_known_of_a_seat_that_nobody_had(tmp_path):
    seat = SharedSeat(tmp_path, "any/name: ünicode " + "x" * 300)
    assert seat.take()
    assert seat.last("every") is None
    seat.close()
    seat.close()


def test_who_takes_over_goes_on_with_the_schedule_and_does_not_begin_at_once(shared, day):
    seat = SharedSeat(shared, "tick")
    assert seat.take()
    seat.note("every", 20.0)
    seat.close()
    day.clock.advance(23)
    periodic = day.periodic(every=10, one_worker=True, run_at_start=True)
    assert day.pass_(periodic, 30) == [30, 40, 50]


def test_each_tick_that_is_run_is_known_to_who_takes_over(shared, day):
    day.pass_(day.periodic(every=10, one_worker=True), 23)
    assert day.pass_(day.periodic(every=10, one_worker=True), 20) == [10, 20, 30, 40]


def test_a_note_of_long_ago_holds_nobody_up(shared, day):
    seat = SharedSeat(shared, "tick")
    assert seat.take()
    seat.note("cron", 0.0)
    seat.close()
    periodic = day.periodic(cron="* * * * *", one_worker=True)
    assert [time - 1_700_000_000 for time in day.pass_(periodic, 50)] == [0, 40]
    assert periodic.info()["skipped_ticks"] == 20_000


def test_a_tick_that_nobody_ran_during_the_change_is_run_late(shared, day):
    seat = SharedSeat(shared, "tick")
    assert seat.take()
    seat.note("every", 20.0)
    seat.close()
    day.clock.advance(30.5)
    assert day.pass_(day.periodic(every=10, one_worker=True), 15) == [30.5, 40]


def test_a_note_from_a_clock_that_was_wrong_counts_for_nothing(shared, day):
    seat = SharedSeat(shared, "tick")
    assert seat.take()
    seat.note("cron", day.now() + 10 * 365 * 24 * 3600)
    seat.close()
    times = day.pass_(day.periodic(cron="* * * * *", one_worker=True), 90)
    assert [time - 1_700_000_000 for time in times] == [40]


def test_the_seat_is_free_when_the_component_ended(shared, day):
    day.pass_(day.periodic(every=10, one_worker=True), 15)
    with holder(shared) as other:
        assert other.stdout.readline() == "taken\n"
        other.kill()


def test_who_has_no_seat_stands_by_ready_and_stops_at_once(shared, day):
    class Ends(Stop):
        def wait(self, timeout: float | None = None) -> bool:
            phases.append((periodic.info()["phase"], periodic.ready().ok))
            return len(phases) == 2

    phases: list[tuple[str, bool]] = []
    with holder(shared) as other:
        assert other.stdout.readline() == "taken\n"
        periodic = day.periodic(every=10, one_worker=True)
        periodic.run(Ends())
        other.kill()
    assert phases == [("standing by", True)] * 2
    assert day.times == []


def test_a_process_that_stands_alone_is_the_one(day):
    assert day.pass_(day.periodic(every=10, one_worker=True), 15) == [10]
