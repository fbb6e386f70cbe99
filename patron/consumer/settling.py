"""Settling: what is finished is acknowledged, what goes back is given back, and what is refused is tried again."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from patron.consumer.desk import Desk
from patron.consumer.metrics import ConsumerMetrics
from patron.consumer.source import Message, Subscription
from patron.errors import ConnectionLost, SourceError, Stale
from patron.observe import log
from patron.reasons import told
from patron.reliability.retry import RetryPolicy

__all__ = ["Settler"]

_AGAIN = RetryPolicy(initial=0.05, cap=5.0)


class Settler:
    """
    The results that the source does not have yet. Only the owner thread uses it.

    Args:
        name: the consumer's name, for log lines.
        desk: where results come from.
        metrics: counts what came too late.
        clock: seconds, for when to try again.
        trouble: told what is wrong, and None when it is right again.
    """

    def __init__(
        self,
        name: str,
        desk: Desk,
        metrics: ConsumerMetrics,
        clock: Callable[[], float],
        trouble: Callable[[str | None], None],
    ) -> None:
        self._name = name
        self._desk = desk
        self._metrics = metrics
        self._clock = clock
        self._trouble = trouble
        self._failures = 0
        self._not_before = 0.0
        self._finished: list[Message] = []
        self._returned: list[tuple[float, list[Message]]] = []

    @property
    def finished(self) -> Sequence[Message]:
        """Processed and not yet acknowledged."""
        return self._finished

    @property
    def pending(self) -> bool:
        """Whether anything is to be acknowledged or given back."""
        return bool(self._finished or self._returned)

    @property
    def returning(self) -> bool:
        """Whether something is to be given back that the source has not taken yet."""
        return bool(self._returned)

    def settle(self, subscription: Subscription) -> None:
        """
        Ack what is finished and nack what goes back; what the source refuses for now is kept.

        Raises:
            ConnectionLost: nothing can be settled over this connection any more.
        """
        self._collect()
        if self.pending and self._clock() >= self._not_before:
            self._try(subscription, self._ack, self._nack)

    def acknowledge(self, subscription: Subscription) -> None:
        """
        Ack what is finished, now or never: lanes are about to be given up.

        Raises:
            ConnectionLost: as `settle`.
        """
        self._collect()
        self._try(subscription, self._ack)

    def revoke(self, lanes: frozenset[Hashable]) -> None:
        """The source took *lanes* away: their results are nobody's any more."""
        self._finished = [message for message in self._finished if message.lane not in lanes]
        self._returned = [
            (delay, [message for message in messages if message.lane not in lanes])
            for delay, messages in self._returned
        ]

    def gone(self, error: Stale, messages: Sequence[Message]) -> None:
        """A call with *messages* raised *error*: forget those that are no longer ours."""
        gone = error.messages or messages
        lost = set(map(id, gone))
        self._metrics.count("stale", len(gone))
        self._desk.forget(gone)
        self._finished = [message for message in self._finished if id(message) not in lost]
        log.warn("messages are no longer ours", consumer=self._name, messages=len(gone), first=str(gone[0]))

    def reset(self) -> int:
        """The connection is gone: forget everything; returns how many results that were."""
        count = len(self._finished)
        self._finished, self._returned = [], []
        self._failures, self._not_before = 0, 0.0
        return count

    def _collect(self) -> None:
        finished, returned, stale = self._desk.collect()
        self._finished += finished
        self._returned += returned
        self._metrics.count("stale", stale)

    def _try(self, subscription: Subscription, *steps: Callable[[Subscription], None]) -> None:
        try:
            for step in steps:
                step(subscription)
        except ConnectionLost:
            raise
        except SourceError as error:
            self._refused(error)
        else:
            self._accepted()

    def _ack(self, subscription: Subscription) -> None:
        if not self._finished:
            return
        try:
            subscription.ack(self._finished)
        except Stale as error:
            self.gone(error, self._finished)
        self._finished = []

    def _nack(self, subscription: Subscription) -> None:
        while self._returned:
            delay, messages = self._returned[0]
            try:
                if messages:
                    subscription.nack(messages, delay)
            except Stale as error:
                self.gone(error, messages)
            self._returned.pop(0)

    def _refused(self, error: SourceError) -> None:
        self._failures += 1
        self._not_before = self._clock() + _AGAIN.delay(self._failures)
        self._metrics.errors.inc()
        if self._failures == 1:
            log.error("settling failed, it is tried again", consumer=self._name, error=told(error))
            self._trouble(f"cannot settle: {error}")

    def _accepted(self) -> None:
        if self._failures:
            log.info("settling works again", consumer=self._name, failures=self._failures)
            self._failures, self._not_before = 0, 0.0
            self._trouble(None)
