"""What other threads may know of a running consumer, and whether that makes it ready."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from time import monotonic

from patron.component import Verdict
from patron.consumer.settings import ConsumerSettings
from patron.consumer.source import Stats

__all__ = ["State"]


@dataclass(slots=True)
class State:
    """
    The state of one run. Any thread may read; only the owner of the subscription writes, but for *unburied*.

    *phase* is one of starting, running, reconnecting, draining, ended. *last_poll* and
    *trouble_since* are monotonic seconds. *quiet*: the last poll brought nothing. *unburied*, which the
    workers write: a dead letter could not be published, and until when (monotonic) that is news.
    """

    phase: str = "starting"
    connected: bool = False
    was_assigned: bool = False
    caught_up: bool = False
    quiet: bool = False
    stats: Stats = field(default_factory=Stats)
    last_poll: float | None = None
    failures: int = 0
    trouble: str | None = None
    trouble_since: float = 0.0
    unburied: tuple[str, float] = ("", 0.0)

    def note(self, trouble: str | None) -> None:
        """Something is wrong, or (None) right again."""
        if trouble is not None and self.trouble is None:
            self.trouble_since = monotonic()
        self.trouble = trouble

    def troubles(self) -> list[str]:
        """Everything that is wrong now."""
        unburied, until = self.unburied
        return [*([self.trouble] if self.trouble else []), *([unburied] if monotonic() < until else [])]

    def bury_later(self, error: str, delay: float) -> None:
        """A dead letter was not published because of *error*; it is tried again in *delay* seconds."""
        # Until well after the next try, which says it again when it fails, too.
        self.unburied = f"dead letters cannot be published: {error}", monotonic() + 2 * delay + 5.0

    def catches_up(self, held: int) -> bool:
        """Whether now, with *held* messages in hand, everything is processed that was there at the start."""
        if not self.was_assigned:
            return False
        if self.stats.backlog is not None:
            return self.stats.backlog == 0
        return held == 0 and (self.quiet if self.stats.lag is None else self.stats.lag == 0)

    def verdict(self, settings: ConsumerSettings) -> Verdict:
        """Not ready before the first assignment; afterwards what is wrong counts only where it is required."""
        if not self.was_assigned:
            return Verdict(False, (self.trouble or "waits for its first assignment",))
        if settings.readiness == "caught-up" and not self.caught_up:
            return Verdict(False, ("has not processed yet what was there when it started",))
        reasons = tuple(self._reasons(settings))
        return Verdict(not (reasons and settings.readiness == "required"), reasons)

    def _reasons(self, settings: ConsumerSettings) -> Iterator[str]:
        if self.phase == "ended":
            yield "has ended"
        if self.trouble is not None:
            yield f"{self.trouble}, for {monotonic() - self.trouble_since:.0f} s"
        if monotonic() < self.unburied[1]:
            yield self.unburied[0]
        age = 0.0 if self.last_poll is None else monotonic() - self.last_poll
        if age > settings.max_poll_age:
            yield f"has not polled for {age:.0f} s, more than {settings.max_poll_age:g} s"
        lag = self.stats.lag
        if lag is not None and settings.max_lag is not None and lag > settings.max_lag:
            yield f"is {lag} messages behind, more than {settings.max_lag}"
