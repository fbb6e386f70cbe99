"""Tending: what a connection needs while messages are worked on, however long that takes: leases and statistics."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from patron.consumer.desk import Desk
from patron.consumer.settling import Settler
from patron.consumer.source import Source, Subscription
from patron.consumer.watching import Watcher
from patron.errors import ConnectionLost, SourceError, Stale
from patron.observe import log
from patron.reasons import told

__all__ = ["Tender"]

STATS_EVERY = 1.0
"""How often the backlog is looked at."""

UNASSIGNED = 0.02
"""The same before the first assignment, which readiness waits for."""

UNLEASED = 30.0
"""How long a lease is taken to last where the source has none."""


class Tender:
    """
    Renews leases and looks at the backlog when it is time. Only the owner of the subscription uses it.

    Args:
        name: the consumer's name, for log lines.
        source: its ``lease`` tells how long one lasts.
        desk: has what is not processed yet.
        settler: has what is not acknowledged yet.
        watcher: is shown the backlog.
        clock: seconds, for leases.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        desk: Desk,
        settler: Settler,
        watcher: Watcher,
        clock: Callable[[], float],
    ) -> None:
        self._name = name
        self._desk = desk
        self._settler = settler
        self._watcher = watcher
        self._clock = clock
        self._extend_every = float(getattr(source, "lease", None) or UNLEASED) / 3
        self._extend_at = 0.0
        self._stats_at = 0.0

    @property
    def held(self) -> int:
        """Messages received and not settled."""
        return self._desk.size + len(self._settler.finished)

    def begin(self) -> None:
        """A connection was opened: nothing is leased over it yet, and nothing is known."""
        self._extend_at = self._clock() + self._extend_every
        self._stats_at = 0.0

    def tend(self, subscription: Subscription) -> None:
        """
        Do what is due.

        Raises:
            ConnectionLost: the connection is gone. Other errors of the source are logged.
        """
        now = self._clock()
        if now >= self._extend_at:
            self._extend_at = now + self._extend_every
            self._extend(subscription)
        real = monotonic()
        if real >= self._stats_at:
            self._stats_at = real + (STATS_EVERY if self._watcher.assigned else UNASSIGNED)
            self._look(subscription)

    def _look(self, subscription: Subscription) -> None:
        try:
            self._watcher.look(subscription, self.held)
        except ConnectionLost:
            raise
        except SourceError as error:
            log.debug("backlog not known", consumer=self._name, error=told(error))

    def _extend(self, subscription: Subscription) -> None:
        held = [*self._desk.held(), *self._settler.finished]
        if not held:
            return
        try:
            subscription.extend(held)
        except Stale as error:
            self._settler.gone(error, held)
        except ConnectionLost:
            raise
        except SourceError as error:
            log.warn("leases not extended", consumer=self._name, messages=len(held), error=told(error))
