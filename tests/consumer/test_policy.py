"""What becomes of a message whose processor raised."""

from __future__ import annotations

import pytest

from patron.consumer.policy import Action, FailurePolicy
from patron.errors import DecodeError, EncodeError, Reject, Retry, Skip, StorageFull, UnknownContentType
from patron.reliability import RetryPolicy

FIXED = RetryPolicy(attempts=3, initial=1.0, jitter="none")


def policy(
    on_exhausted: str = "dead-letter", dead_letters: bool = True, retry: RetryPolicy = FIXED
) -> FailurePolicy:
    return FailurePolicy.of(retry, on_exhausted, dead_letters, 10)


def test_a_failure_is_retried_until_the_attempts_are_used_up() -> None:
    decisions = [policy().decide(ValueError("x"), failures, 0.0, 1) for failures in (1, 2, 3)]
    assert [decision.action for decision in decisions] == [Action.RETRY, Action.RETRY, Action.DEAD_LETTER]
    assert [decision.delay for decision in decisions] == [1.0, 2.0, 0.0]
    assert decisions[2].reason == "ValueError: x"


@pytest.mark.parametrize(
    ("error", "action", "failure"),
    [
        (DecodeError("broken"), Action.DEAD_LETTER, True),
        (UnknownContentType("x/y"), Action.DEAD_LETTER, True),
        (Reject("no"), Action.DEAD_LETTER, False),
        (Skip("known"), Action.SKIP, False),
        (Retry(7.0), Action.RETRY, False),
        (EncodeError("our own fault"), Action.RETRY, True),
        (SystemExit(), Action.RETRY, True),
    ],
)
def test_errors_steer_at_the_first_try(error: BaseException, action: Action, failure: bool) -> None:
    decision = policy().decide(error, 1, 0.0, 1)
    assert (decision.action, decision.failure) == (action, failure)


def test_a_message_that_meets_a_full_disk_waits_for_space_however_long_that_takes() -> None:
    decisions = [policy().decide(StorageFull("full"), failures, 1e6, 1) for failures in (1, 3, 1000)]
    assert {decision.action for decision in decisions} == {Action.RETRY}
    assert decisions[-1].delay == FIXED.cap


def test_a_retry_that_names_its_delay_gets_it() -> None:
    assert policy().decide(Retry(7.0), 1, 0.0, 1).delay == 7.0
    assert policy().decide(Retry(), 2, 0.0, 1).delay == 2.0
    assert policy().decide(Retry(-1.0), 1, 0.0, 1).delay == 0.0


@pytest.mark.parametrize(
    ("name", "action"),
    [
        ("dead-letter", Action.DEAD_LETTER),
        ("skip", Action.SKIP),
        ("ack", Action.SKIP),
        ("requeue", Action.REQUEUE),
        ("nack", Action.REQUEUE),
        ("exit", Action.EXIT),
        ("nack-exit", Action.EXIT),
    ],
)
def test_the_last_failure_ends_as_asked_for(name: str, action: Action) -> None:
    assert policy(name).decide(ValueError(), 3, 0.0, 1).action is action


def test_with_dead_letters_what_is_hopeless_goes_there_whatever_happens_to_the_rest() -> None:
    assert policy("skip").decide(Reject(), 1, 0.0, 1).action is Action.DEAD_LETTER
    assert policy("skip", dead_letters=False).decide(Reject(), 1, 0.0, 1).action is Action.SKIP


def test_a_message_given_out_too_often_is_refused() -> None:
    assert policy().max_deliveries == 10
    assert policy().refuse(11).action is Action.DEAD_LETTER
    assert policy().refuse(11).reason == "delivered 11 times, and the limit is 10"


def test_requeueing_for_ever_has_no_limit_of_deliveries() -> None:
    assert policy("requeue", dead_letters=False).max_deliveries is None
    assert policy("requeue").max_deliveries == 10


def test_what_is_requeued_stays_away_longer_every_time() -> None:
    delays = [
        policy("requeue").decide(ValueError(), 3, 0.0, deliveries).delay for deliveries in (1, 2, 3, 10)
    ]
    assert delays == [1.0, 2.0, 4.0, 5.0]


def test_a_budget_of_time_ends_the_retries_early() -> None:
    short = policy(retry=RetryPolicy(attempts=100, initial=1.0, multiplier=1.0, jitter="none", budget=10.0))
    assert short.decide(ValueError(), 5, 8.0, 1).action is Action.RETRY
    assert short.decide(ValueError(), 5, 9.5, 1).action is Action.DEAD_LETTER
