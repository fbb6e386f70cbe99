"""Commits that are not waited for: none is lost when it fails, and none overtakes a later one."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import errors

from patron.errors import SourceError, Stale
from patron.sources import _kafka_commits as module
from patron.sources._kafka_commits import Commits

P = ("t", 0)


class Driver:
    """What `Commits` needs of a consumer; the test answers."""

    def __init__(self) -> None:
        self.state = "<stable>"
        self.sent: list[dict[Any, Any]] = []
        self.answers: list[Callable[[Any], None]] = []
        self.waited: list[dict[Any, Any]] = []
        self.failing: Exception | None = None

    def group_metadata(self) -> Any:
        return SimpleNamespace(state=self.state)

    def commit_async(self, offsets: dict[Any, Any], callback: Callable[[Any, Any], None]) -> None:
        self.sent.append(offsets)
        self.answers.append(lambda answer: callback(offsets, answer))

    def commit(self, offsets: dict[Any, Any], timeout_ms: float) -> None:
        self.waited.append(offsets)
        if self.failing is not None:
            raise self.failing


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    return now


def test_one_commit_is_on_its_way_at_a_time_and_the_next_has_all_that_came_meanwhile(
    clock: list[float],
) -> None:
    driver = Driver()
    commits = Commits(driver)
    commits.commit({P: 1})
    commits.commit({P: 2})
    clock[0] += 0.08
    commits.commit({P: 3})
    assert driver.sent == [{P: 1}]
    driver.answers[0](None)
    commits.flow()
    assert driver.sent == [{P: 1}, {P: 3}]
    driver.answers[1](None)
    assert not commits.waiting


def test_commits_that_come_fast_go_out_together(clock: list[float]) -> None:
    driver = Driver()
    commits = Commits(driver)
    commits.commit({P: 1})
    driver.answers[0](None)
    commits.commit({P: 2})
    assert driver.sent == [{P: 1}]
    clock[0] += 0.06
    commits.flow()
    assert driver.sent == [{P: 1}, {P: 2}]


def test_what_was_refused_goes_out_again_and_nothing_lower_than_what_came_meanwhile(
    clock: list[float],
) -> None:
    driver = Driver()
    commits = Commits(driver)
    commits.commit({P: 1, ("t", 1): 7})
    commits.commit({P: 2})
    driver.answers[0](errors.NotCoordinatorError())
    clock[0] += 1
    commits.flow()
    assert driver.sent[1] == {P: 2, ("t", 1): 7}


def test_an_answer_that_comes_after_everything_was_settled_is_of_no_matter(clock: list[float]) -> None:
    driver = Driver()
    commits = Commits(driver)
    commits.commit({P: 1})
    commits.commit({P: 2})
    commits.settle()
    assert driver.waited == [{P: 2}]
    driver.answers[0](errors.NotCoordinatorError())
    assert not commits.waiting


def test_what_could_not_be_settled_is_kept_and_what_is_no_longer_ours_is_not(clock: list[float]) -> None:
    driver = Driver()
    commits = Commits(driver)
    driver.failing = errors.KafkaTimeoutError()
    commits.commit({P: 1, ("t", 1): 7})
    commits.settle()
    assert commits.waiting
    commits.drop([P])
    driver.failing = None
    commits.settle()
    assert driver.waited[-1] == {("t", 1): 7}


def test_what_is_given_up_while_its_commit_is_on_its_way_is_not_committed_again(clock: list[float]) -> None:
    driver = Driver()
    commits = Commits(driver)
    commits.commit({P: 1})
    commits.drop([P])
    driver.answers[0](errors.NotCoordinatorError())
    assert not commits.waiting


def test_nothing_is_committed_in_a_rebalance_and_all_after_it(clock: list[float]) -> None:
    driver = Driver()
    driver.state = "<rebalancing>"
    commits = Commits(driver)
    commits.commit({P: 1})
    commits.settle()
    assert (driver.sent, driver.waited) == ([], [])
    driver.state = "<stable>"
    commits.flow()
    assert driver.sent == [{P: 1}]


def test_who_is_no_member_is_told_at_once(clock: list[float]) -> None:
    driver = Driver()
    driver.state = "<unjoined>"
    with pytest.raises(Stale):
        Commits(driver).commit({P: 1})


@pytest.mark.parametrize("refused", [False, True])
def test_what_is_processed_and_not_committed_does_not_grow_while_commits_fail(
    clock: list[float], refused: bool
) -> None:
    driver = Driver()
    driver.failing = errors.KafkaTimeoutError()
    commits = Commits(driver)
    commits.commit({P: 1})
    if refused:
        driver.answers[0](errors.NotCoordinatorError())
    clock[0] += 0.3
    for _ in range(2):
        with pytest.raises(SourceError, match="cannot commit"):
            commits.commit({P: 2})
    driver.failing = None
    commits.commit({P: 2})
    assert driver.waited == [{P: 2}] * 3
    assert not commits.waiting


def test_an_answer_that_never_comes_is_not_waited_for_for_ever(clock: list[float]) -> None:
    driver = Driver()
    commits = Commits(driver)
    commits.commit({P: 1})
    clock[0] += 61
    commits.flow()
    clock[0] += 1
    commits.flow()
    assert driver.sent == [{P: 1}, {P: 1}]
    driver.answers[0](errors.KafkaTimeoutError())
    assert commits.waiting
    clock[0] += 1
    commits.flow()
    assert len(driver.sent) == 2
