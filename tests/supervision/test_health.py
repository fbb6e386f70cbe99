"""A check that fails, raises or hangs is a no, and hanging ones do not pile up."""

from __future__ import annotations

import threading

import pytest

from patron.component import Verdict
from patron.health import Checks


def test_no_checks_and_passing_checks_are_a_yes() -> None:
    assert Checks({}).verdict() == Verdict(True)
    assert Checks({"none": lambda: None, "true": lambda: True}).verdict() == Verdict(True)


def test_a_check_that_turns_out_to_be_async_is_a_no() -> None:
    async def check() -> bool:
        return True

    verdict = Checks({"db": lambda: check()}).verdict()
    assert not verdict.ok
    assert "async" in verdict.reasons[0]


def test_the_reasons_name_each_check_that_failed() -> None:
    def broken() -> None:
        raise ConnectionError("refused")

    verdict = Checks({"off": lambda: False, "broken": broken, "good": lambda: True}).verdict()
    assert not verdict.ok
    assert verdict.reasons == ("check off failed", "check broken raised ConnectionError('refused')")


def test_a_check_that_hangs_is_a_no_within_the_time_out_and_keeps_one_thread() -> None:
    release = threading.Event()
    checks = Checks({"db": lambda: release.wait(30)}, timeout=0.05)
    before = threading.active_count()
    verdicts = [checks.verdict() for _ in range(5)]
    assert [v.reasons for v in verdicts] == [("check db did not answer within 0.05 s",)] * 5
    assert threading.active_count() == before + 1
    release.set()
    while not checks.verdict().ok:
        pass


def test_checks_that_hang_are_waited_for_together() -> None:
    release = threading.Event()
    now = iter([0.0, 0.0, 0.0])  # three starts, and then the time-out is over
    checks = Checks(
        dict.fromkeys("abc", lambda: release.wait(30)), timeout=3600, clock=lambda: next(now, 3600.0)
    )
    try:
        assert len(checks.verdict().reasons) == 3
    finally:
        release.set()


def test_who_finds_a_check_that_hangs_for_longer_than_its_time_out_is_answered_at_once() -> None:
    release = threading.Event()
    now = [0.0]
    checks = Checks({"db": lambda: release.wait(30)}, timeout=3600, clock=lambda: now[0])
    first = threading.Thread(target=checks.verdict)
    first.start()
    try:
        while not any(thread.name == "patron-check-db" for thread in threading.enumerate()):
            pass
        now[0] = 3600.0
        assert checks.verdict().reasons == ("check db did not answer within 3600 s",)
    finally:
        release.set()
        first.join()


def test_callers_at_the_same_time_share_one_run() -> None:
    release = threading.Event()
    runs: list[int] = []
    verdicts: list[Verdict] = []
    asked: list[int] = []  # the clock, once for the start of the run and once by each who waits for it

    def check() -> None:
        runs.append(1)
        release.wait(30)

    def clock() -> float:
        asked.append(1)
        return 0.0

    checks = Checks({"db": check}, timeout=30, clock=clock)
    callers = [threading.Thread(target=lambda: verdicts.append(checks.verdict())) for _ in range(5)]
    for caller in callers:
        caller.start()
    while len(asked) < 1 + len(callers):
        pass
    release.set()
    for caller in callers:
        caller.join()
    assert ([verdict.ok for verdict in verdicts], len(runs)) == ([True] * 5, 1)


def test_a_check_that_could_not_be_started_is_a_no_and_runs_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    checks = Checks({"db": lambda: True})
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert checks.verdict().reasons == ("check db could not be started: can't start new thread",)
    assert checks.verdict().ok
