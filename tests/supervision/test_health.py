"""A check that fails, raises or hangs is a no, and hanging ones do not pile up."""

from __future__ import annotations

import threading

from patron.component import Verdict
from patron.health import Checks


def test_no_checks_and_passing_checks_are_a_yes() -> None:
    assert Checks({}).verdict() == Verdict(True)
    assert Checks({"none": lambda: None, "true": lambda: True}).verdict() == Verdict(True)


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
