"""The pause after a failure: who is let in, and when."""

from __future__ import annotations

from patron.cache._pause import Pause
from patron.testing import FakeClock


def entered(pause: Pause) -> int:
    """The term of a call that is let in."""
    term = pause.enter()
    assert term is not None
    return term


def test_after_a_failure_nobody_is_let_in_for_a_moment_and_then_one() -> None:
    clock = FakeClock()
    pause = Pause(0.1, 1.0, clock)
    assert pause.failed(entered(pause))
    assert pause.enter() is None
    clock.advance(0.1)
    entered(pause)
    assert pause.enter() is None


def test_each_failure_doubles_the_pause_up_to_the_most() -> None:
    clock = FakeClock()
    pause = Pause(0.1, 0.5, clock)
    pause.failed(entered(pause))
    for seconds in (0.1, 0.2, 0.4, 0.5, 0.5):
        clock.advance(seconds - 0.01)
        assert pause.enter() is None
        clock.advance(0.02)
        assert not pause.failed(entered(pause))


def test_a_success_lets_everybody_in_and_says_how_long_it_was() -> None:
    clock = FakeClock()
    pause = Pause(0.1, 1.0, clock)
    pause.failed(entered(pause))
    clock.advance(0.25)
    assert pause.succeeded(entered(pause)) == 0.25
    assert pause.succeeded(entered(pause)) is None
    assert pause.failed(entered(pause))
    clock.advance(0.1)
    entered(pause)  # the first pause again, not a doubled one


def test_of_calls_that_fail_together_only_the_first_counts() -> None:
    clock = FakeClock()
    pause = Pause(0.1, 1.0, clock)
    terms = [entered(pause) for _ in range(8)]
    assert [pause.failed(term) for term in terms] == [True] + [False] * 7
    clock.advance(0.1)
    entered(pause)


def test_a_late_answer_from_before_ends_no_pause() -> None:
    clock = FakeClock()
    pause = Pause(0.1, 1.0, clock)
    early, other = entered(pause), entered(pause)
    pause.failed(other)
    assert pause.succeeded(early) is None
    assert pause.enter() is None


def test_one_who_never_comes_back_with_a_result_is_followed_by_another() -> None:
    clock = FakeClock()
    pause = Pause(0.1, 1.0, clock)
    pause.failed(entered(pause))
    clock.advance(0.1)
    lost = entered(pause)
    clock.advance(1.0)
    assert pause.succeeded(entered(pause)) is not None
    assert not pause.failed(lost)
    entered(pause)
