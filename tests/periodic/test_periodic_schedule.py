"""When a function is called: evenly, never on top of itself, whatever the clocks do."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

HOUR = 3600.0


def read(times: list[float], zone: str = "UTC") -> list[str]:
    """The times of day as a person in *zone* reads them."""
    return [datetime.fromtimestamp(t, ZoneInfo(zone)).strftime("%d %H:%M:%S%z")[:-2] for t in times]


# Every so many seconds.


def test_the_first_tick_comes_after_one_interval(day):
    assert day.pass_(day.periodic(every=10), 35) == [10, 20, 30]


def test_it_can_begin_with_a_tick_at_once(day):
    assert day.pass_(day.periodic(every=10, run_at_start=True), 25) == [0, 10, 20]


def test_the_time_that_a_run_takes_moves_no_tick(day):
    assert day.pass_(day.periodic(lambda: day.clock.advance(3), every=10), 45) == [10, 20, 30, 40]


def test_an_interval_may_be_shorter_or_longer_than_a_look_at_the_clock(day):
    assert day.pass_(day.periodic(every=0.25), 1.1) == [0.25, 0.5, 0.75, 1.0]


def test_ticks_that_pass_during_a_run_are_skipped_and_counted(day):
    periodic = day.periodic(lambda: day.clock.advance(25), every=10)
    assert day.pass_(periodic, 75) == [10, 40, 70]
    assert periodic.info()["skipped_ticks"] == 6


def test_a_tick_at_the_very_end_of_a_run_is_not_skipped(day):
    periodic = day.periodic(lambda: day.clock.advance(10), every=10)
    assert day.pass_(periodic, 45) == [10, 20, 30, 40]
    assert periodic.info()["skipped_ticks"] == 0


def test_a_process_that_stood_still_runs_once_and_keeps_the_rhythm(day):
    periodic = day.periodic(every=10)
    before, stood_still = day.clock.advance, iter([43])

    def advance(seconds: float) -> None:
        before(seconds + next(stood_still, 0))

    day.clock.advance = advance
    assert day.pass_(periodic, 75) == [44, 50, 60, 70]
    assert periodic.info()["skipped_ticks"] == 3


def test_the_time_of_day_does_not_matter_to_an_interval(day):
    jumps = iter([-5 * HOUR, 9 * HOUR, 0, 0])
    periodic = day.periodic(lambda: day.jump(next(jumps)), every=10)
    assert day.pass_(periodic, 45) == [10, 20, 30, 40]


# Cron.


def test_cron_ticks_at_its_times(day_from):
    day = day_from("2026-11-21 06:58:30")
    assert read(day.pass_(day.periodic(cron="*/5 7 * * *"), 800)) == [
        "21 07:00:00+00",
        "21 07:05:00+00",
        "21 07:10:00+00",
    ]


def test_cron_knows_seconds_as_a_first_of_six_fields(day_from):
    day = day_from("2026-11-21 06:58:30")
    assert read(day.pass_(day.periodic(cron="*/20 * * * * *"), 60)) == [
        "21 06:58:40+00",
        "21 06:59:00+00",
        "21 06:59:20+00",
    ]


def test_cron_counts_in_its_time_zone(day_from):
    day = day_from("2026-11-21 00:00:00")
    periodic = day.periodic(cron="0 7 * * *", timezone="Europe/Athens")
    assert read(day.pass_(periodic, 24 * HOUR), "Europe/Athens") == ["21 07:00:00+02"]


def test_cron_skips_and_counts_what_passes_during_a_run(day_from):
    day = day_from("2026-11-21 06:59:30")
    periodic = day.periodic(lambda: day.clock.advance(150), cron="* * * * *")
    assert read(day.pass_(periodic, 240)) == ["21 07:00:00+00", "21 07:03:00+00"]
    assert periodic.info()["skipped_ticks"] == 4


def test_a_cron_tick_at_the_very_end_of_a_run_is_not_skipped(day_from):
    day = day_from("2026-11-21 06:59:30")
    periodic = day.periodic(lambda: day.clock.advance(60), cron="* * * * *")
    assert read(day.pass_(periodic, 150)) == ["21 07:00:00+00", "21 07:01:00+00"]
    assert periodic.info()["skipped_ticks"] == 0


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("2026-10-24 22:00", ["25 02:30:00+02", "26 02:30:00+01"]),  # the hour from 2 to 3 comes twice
        ("2026-03-28 22:00", ["29 03:00:00+02", "30 02:30:00+02"]),  # and here not at all
    ],
    ids=["autumn", "spring"],
)
def test_a_job_at_a_time_of_day_runs_once_where_summer_time_begins_or_ends(day_from, start, expected):
    day = day_from(start)
    periodic = day.periodic(cron="30 2 * * *", timezone="Europe/Berlin")
    assert read(day.pass_(periodic, 30 * HOUR), "Europe/Berlin") == expected


def test_a_component_that_starts_in_the_repeated_hour_does_not_run_what_was_due_in_its_first_half(day_from):
    day = day_from("2026-10-25 01:10")  # 02:10 in Berlin, for the second time
    periodic = day.periodic(cron="30 2 * * *", timezone="Europe/Berlin")
    assert read(day.pass_(periodic, 26 * HOUR), "Europe/Berlin") == ["26 02:30:00+01"]


def test_an_hourly_job_goes_on_evenly_where_summer_time_ends(day_from):
    day = day_from("2026-10-24 23:30")
    periodic = day.periodic(cron="0 * * * *", timezone="Europe/Berlin")
    assert read(day.pass_(periodic, 3 * HOUR), "Europe/Berlin") == [
        "25 02:00:00+02",
        "25 02:00:00+01",
        "25 03:00:00+01",
    ]


# A time of day that is set.


def test_a_clock_that_is_set_back_a_little_repeats_no_tick(day_from):
    day = day_from("2026-11-21 09:59:00")
    jumps = iter([-0.5 * HOUR])
    periodic = day.periodic(lambda: day.jump(next(jumps, 0)), cron="0 * * * *")
    assert read(day.pass_(periodic, 2 * HOUR)) == ["21 10:00:00+00", "21 11:00:00+00"]


def test_a_clock_that_is_set_back_by_days_does_not_stall_the_schedule(day_from):
    day = day_from("2026-11-21 09:59:00")
    jumps = iter([-100 * 24 * HOUR])
    periodic = day.periodic(lambda: day.jump(next(jumps, 0)), cron="0 * * * *")
    assert read(day.pass_(periodic, 2 * HOUR)) == ["21 10:00:00+00", "13 11:00:00+00"]


def test_a_clock_that_is_set_forward_a_little_runs_what_it_jumped_over_once_and_counts_the_rest(day_from):
    day = day_from("2026-11-21 09:59:00")
    jumps = iter([2.5 * HOUR])
    periodic = day.periodic(lambda: day.jump(next(jumps, 0)), cron="0 * * * *", run_at_start=True)
    times = read(day.pass_(periodic, HOUR))
    assert times == ["21 09:59:00+00", "21 13:00:00+00"]
    assert periodic.info()["skipped_ticks"] == 3


def test_a_clock_that_is_set_forward_while_nothing_runs_is_noticed_at_once(day_from):
    day = day_from("2026-11-21 09:59:00")
    before, jumps = day.clock.advance, iter([2.5 * HOUR])

    def advance(seconds: float) -> None:
        before(seconds)
        day.jump(next(jumps, 0))

    day.clock.advance = advance
    periodic = day.periodic(cron="0 * * * *")
    assert read(day.pass_(periodic, 60)) == ["21 12:29:01+00"]
    assert periodic.info()["skipped_ticks"] == 2


def test_a_clock_that_is_set_right_by_days_runs_nothing_for_the_time_in_between(day_from):
    day = day_from("1970-01-01 00:00:00")
    before, jumps = day.clock.advance, iter([56 * 365.25 * 24 * HOUR + 9.5 * HOUR])

    def advance(seconds: float) -> None:
        before(seconds)
        day.jump(next(jumps, 0))

    day.clock.advance = advance
    periodic = day.periodic(cron="0 * * * *")
    assert read(day.pass_(periodic, HOUR)) == ["01 10:00:00+00"]
    assert periodic.info()["skipped_ticks"] == 0


def test_a_clock_that_is_set_right_during_a_run_skips_and_counts_nothing(day_from):
    day = day_from("1970-01-01 00:00:30")
    jumps = iter([56 * 365.25 * 24 * HOUR])
    periodic = day.periodic(lambda: day.jump(next(jumps, 0)), cron="* * * * *")
    assert read(day.pass_(periodic, 100)) == ["01 00:01:00+00", "01 00:02:00+00"]
    assert periodic.info()["skipped_ticks"] == 0
