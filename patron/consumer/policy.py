"""What becomes of a message whose processor raised: the decision, without carrying it out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from patron.errors import DecodeError, Reject, Retry, Skip, StorageFull, UnknownContentType
from patron.reliability.retry import RetryPolicy

__all__ = ["STRATEGIES", "Action", "Decision", "FailurePolicy", "OnExhausted"]

OnExhausted = Literal["dead-letter", "skip", "requeue", "exit"]

STRATEGIES: dict[str, OnExhausted] = {
    "dead-letter": "dead-letter",
    "skip": "skip",
    "requeue": "requeue",
    "exit": "exit",
    # The names of the Go original's failure strategies.
    "ack": "skip",
    "nack": "requeue",
    "nack-exit": "exit",
}


class Action(Enum):
    """What to do with a message."""

    RETRY = "retry"
    DEAD_LETTER = "dead-letter"
    SKIP = "skip"
    REQUEUE = "requeue"
    EXIT = "exit"


_EXHAUSTED: dict[str, Action] = {
    "dead-letter": Action.DEAD_LETTER,
    "skip": Action.SKIP,
    "requeue": Action.REQUEUE,
    "exit": Action.EXIT,
}


@dataclass(frozen=True, slots=True)
class Decision:
    """
    An action, the seconds to wait before it where it waits, and the reason as a person reads it.

    *status* is the label that counts it; *failure* is False when the processor only steered.
    """

    action: Action
    reason: str
    delay: float = 0.0
    status: str = "failed"
    failure: bool = True


@dataclass(frozen=True, slots=True)
class FailurePolicy:
    """
    The rules of one consumer.

    Args:
        retry: how often and how far apart a message is tried.
        exhausted: what happens after the last try.
        hopeless: what happens to what no further try can help: undecodable, rejected, given out too often.
        max_deliveries: a message that was given out more often is not processed any more; None: no limit.
    """

    retry: RetryPolicy
    exhausted: Action
    hopeless: Action
    max_deliveries: int | None

    @classmethod
    def of(
        cls, retry: RetryPolicy, on_exhausted: str, dead_letters: bool, max_deliveries: int
    ) -> FailurePolicy:
        """The rules; without dead letters a requeued message may come back for ever, as was asked for."""
        exhausted = _EXHAUSTED[STRATEGIES[on_exhausted]]
        hopeless = Action.DEAD_LETTER if dead_letters else exhausted
        return cls(retry, exhausted, hopeless, None if hopeless is Action.REQUEUE else max_deliveries)

    def decide(self, error: BaseException, failures: int, elapsed: float, deliveries: int) -> Decision:
        """
        What becomes of a message after its try number *failures* raised *error*.

        *elapsed*: seconds since its first failure. *deliveries*: how often it was given out.
        """
        match error:
            case Skip():
                return Decision(Action.SKIP, str(error), status="skipped", failure=False)
            case Reject():
                return self._give_up(str(error), deliveries, status="rejected", failure=False)
            case DecodeError() | UnknownContentType():
                return self._give_up(f"undecodable: {error}", deliveries, status="undecodable", failure=True)
            case StorageFull():
                # No fault of the message: it waits, with all behind it in its lane, until there is space.
                return Decision(Action.RETRY, _reason(error), self.retry.delay(failures))
            case _:
                return self._try_again(error, failures, elapsed, deliveries)

    def refuse(self, deliveries: int) -> Decision:
        """What becomes of a message that was given out more than ``max_deliveries`` times."""
        reason = f"delivered {deliveries} times, and the limit is {self.max_deliveries}"
        return self._give_up(reason, deliveries, status="rejected", failure=False)

    def _give_up(self, reason: str, deliveries: int, *, status: str, failure: bool) -> Decision:
        return Decision(self.hopeless, reason, self._pause(self.hopeless, deliveries), status, failure)

    def _try_again(self, error: BaseException, failures: int, elapsed: float, deliveries: int) -> Decision:
        steered = isinstance(error, Retry)
        status = "retried" if steered else "failed"
        delay = self._delay(error, failures)
        if not self.retry.exhausted(failures, elapsed + delay):
            return Decision(Action.RETRY, _reason(error), delay, status, not steered)
        return Decision(
            self.exhausted, _reason(error), self._pause(self.exhausted, deliveries), status, not steered
        )

    def _delay(self, error: BaseException, failures: int) -> float:
        if isinstance(error, Retry) and error.delay is not None:
            return max(0.0, error.delay)
        return self.retry.delay(failures)

    def _pause(self, action: Action, deliveries: int) -> float:
        """How long a requeued message stays away, so that a hopeless one does not keep everybody busy."""
        return self.retry.delay(max(1, deliveries)) if action is Action.REQUEUE else 0.0


def _reason(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
