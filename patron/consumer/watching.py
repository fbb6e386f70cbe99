"""Watching: what the source says of its backlog, as metrics, as state, and told once when it was processed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

from patron.calling import refuse_awaitable
from patron.consumer.metrics import ConsumerMetrics
from patron.consumer.source import Subscription
from patron.consumer.state import State
from patron.observe import log
from patron.observe.reporting import report_error

__all__ = ["Watcher"]


class Watcher:
    """
    Looks at the backlog; only the owner of the subscription uses it.

    Args:
        name: the consumer's name.
        state: is kept up to date.
        metrics: likewise.
        now: seconds since the epoch.
        on_caught_up: called once when everything is processed that was there at the first assignment.
    """

    def __init__(
        self,
        name: str,
        state: State,
        metrics: ConsumerMetrics,
        now: Callable[[], float],
        on_caught_up: Callable[[], object] | None,
    ) -> None:
        self._name = name
        self._state = state
        self._metrics = metrics
        self._now = now
        self._on_caught_up = on_caught_up
        self._telling: threading.Thread | None = None

    @property
    def assigned(self) -> bool:
        """Whether there was a first assignment."""
        return self._state.was_assigned

    def look(self, subscription: Subscription, held: int) -> None:
        """
        Ask *subscription*, while *held* messages are received and not settled.

        Raises:
            SourceError: it could not tell.
        """
        state = self._state
        state.stats = subscription.stats()
        if (state.stats.assigned or state.stats.joined) and not state.was_assigned:
            state.was_assigned = True
            log.info("consumer has its first assignment", consumer=self._name, assigned=state.stats.assigned)
        if not state.caught_up and state.catches_up(held):
            self._caught_up()
        self._show(held)

    def join(self, timeout: float) -> None:
        """Wait at most *timeout* seconds for what was told that the consumer has caught up."""
        if self._telling is not None:
            self._telling.join(timeout)

    def _show(self, held: int) -> None:
        metrics, stats = self._metrics, self._state.stats
        metrics.assigned.set(stats.assigned)
        metrics.in_flight.set(held)
        metrics.oldest_age.set(stats.oldest_age or 0.0)
        if stats.lag is not None:
            metrics.lag.set(stats.lag)
        if self._state.last_poll is not None:
            metrics.last_poll.set(self._now() - (monotonic() - self._state.last_poll))

    def _caught_up(self) -> None:
        self._state.caught_up = True
        log.info("consumer has caught up", consumer=self._name)
        if self._on_caught_up is not None:
            # A thread of its own, for it is the user's code: neither the owner nor a message may wait for it.
            self._telling = threading.Thread(
                target=self._tell, args=(self._on_caught_up,), name=f"{self._name}-caught-up", daemon=True
            )
            self._telling.start()

    def _tell(self, function: Callable[[], object]) -> None:
        try:
            refuse_awaitable(function())
        except BaseException as error:  # noqa: BLE001 - the thread's edge, and the user's code
            log.error("on_caught_up failed", consumer=self._name, exc_info=error)
            report_error(error, consumer=self._name)
