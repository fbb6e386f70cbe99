"""The settings of a consumer: everything but its name, what it reads and what it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from patron.errors import ConfigError
from patron.reliability.retry import RetryPolicy

__all__ = ["NO_DEAD_LETTERS", "Batch", "ConsumerSettings", "OnExhausted", "Order", "Readiness"]

OnExhausted = Literal["dead-letter", "skip", "requeue", "exit", "ack", "nack", "nack-exit"]
"""What happens after the last try; the last three are the Go original's names of skip, requeue and exit."""

Order = Literal["lane", "key", "none"]
"""What order holds within."""

Readiness = Literal["assigned", "caught-up", "required"]
"""What makes a consumer ready."""

NO_DEAD_LETTERS = "none"
"""The value of ``dead_letters`` that means: have none."""

_THREADS = 1000
_PREFETCH_PER_WORKER = 16
_LEAST_PREFETCH = 256


@dataclass(frozen=True, slots=True)
class Batch:
    """
    Process messages in batches: at most *size* of them, waiting at most *wait* seconds for more.

    A batch is tried as a whole, as the retry policy says. When it is out of tries, or fails in a
    way that another try cannot help, its messages are processed one by one, once, in order, and
    each gets its own outcome: one poisonous message takes only itself to the dead letters.

    Args:
        size: messages of a batch at most.
        wait: how long a batch that is not full waits for more.
        dedupe: of the messages of a batch that have one key, process only the newest; the others are
            settled unprocessed.
    """

    size: int = 100
    wait: float = 0.5
    dedupe: bool = False

    def problems(self) -> Iterator[str]:
        """What is wrong with it, one line each."""
        if not 1 <= self.size <= 100_000:
            yield f"batch size is {self.size}: use 1 to 100000"
        if not 0 <= self.wait <= 3600:
            yield f"batch wait is {self.wait} s: use 0 to 3600"


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsumerSettings:
    """
    How a consumer works. Durations are seconds.

    Args:
        workers: threads that run the processor.
        prefetch: messages held at most, received and not yet settled; None: 16 for each worker, at least 256.
        retry: how often a message is tried, and how far apart; other lanes go on meanwhile.
        max_deliveries: a message that the source gave out more often is not processed any more, so that one
            that kills its process cannot kill it for ever.
        dead_letters: topic for what could not be processed; None: ``<name>.dlq``; ``"none"``: there is
            none, and *on_exhausted* must say what happens instead.
        on_exhausted: what happens after the last try: ``dead-letter``, ``skip`` (acknowledge), ``requeue``
            (give back) or ``exit`` (give back and end the service); None: ``dead-letter``.
        batch: process messages in batches; None: one by one.
        order: within what messages keep their order: the source's ``lane`` (a partition, a group),
            the message's ``key``, or ``none``.
        decode_as: content type of every body, whatever its header says; None: as the header says.
        readiness: ``assigned``: ready for good once there was a first assignment; ``caught-up``: once everything
            is processed that was there then; ``required``: not ready while the source is lost, not polled for
            *max_poll_age*, or behind by more than *max_lag*.
        on_caught_up: called once, in a thread of its own, when everything is processed that was there at the
            first assignment; its parameters are filled with resources.
        max_poll_age: how old the last poll may be.
        max_lag: how many messages may wait; None: any number.
        reconnect: how far apart the attempts to reach the source are; its *attempts* do not count.
        revoke_wait: how long messages in hand may take when their lane must be given up (a rebalance); what
            takes longer is done again by whoever gets the lane, and its result here is ignored. The
            whole group waits for it.
    """

    workers: int = 1
    prefetch: int | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    max_deliveries: int = 10
    dead_letters: str | None = None
    on_exhausted: OnExhausted | None = None
    batch: Batch | None = None
    order: Order = "lane"
    decode_as: str | None = None
    readiness: Readiness = "assigned"
    on_caught_up: Callable[..., object] | None = None
    max_poll_age: float = 30.0
    max_lag: int | None = None
    reconnect: RetryPolicy = field(default_factory=lambda: RetryPolicy(initial=0.1, cap=30.0))
    revoke_wait: float = 5.0

    def __post_init__(self) -> None:
        problems = [
            *self._numbers(),
            *self._words(),
            *self._dead_letters(),
            *(self.batch.problems() if self.batch else ()),
        ]
        if problems:
            raise ConfigError(*problems)

    @property
    def held(self) -> int:
        """How many messages are held at most."""
        if self.prefetch is not None:
            return self.prefetch
        least = max(_LEAST_PREFETCH, _PREFETCH_PER_WORKER * self.workers)
        return least if self.batch is None else max(least, 2 * self.batch.size * self.workers)

    @property
    def outcome(self) -> OnExhausted:
        """What happens after the last try."""
        return self.on_exhausted or "dead-letter"

    def dead_letter_topic(self, name: str) -> str | None:
        """The dead-letter topic of the consumer called *name*; None when it has none."""
        if self.dead_letters == NO_DEAD_LETTERS:
            return None
        return self.dead_letters or f"{name}.dlq"

    def _numbers(self) -> Iterator[str]:
        if not 1 <= self.workers <= _THREADS:
            yield f"workers is {self.workers}: use 1 to {_THREADS}"
        if self.prefetch is not None and self.prefetch < max(1, self.workers):
            yield f"prefetch is {self.prefetch}: use at least the number of workers ({self.workers})"
        if self.batch is not None and self.prefetch is not None and self.prefetch < self.batch.size:
            yield f"prefetch is {self.prefetch}, below the batch size: use at least {self.batch.size}"
        if self.max_deliveries < 1:
            yield f"max_deliveries is {self.max_deliveries}: use at least 1"
        if not self.max_poll_age > 0:
            yield f"max_poll_age is {self.max_poll_age} s: use more than 0"
        if not 0 <= self.revoke_wait <= 3600:
            yield f"revoke_wait is {self.revoke_wait} s: use 0 to 3600"
        if self.max_lag is not None and self.max_lag < 0:
            yield f"max_lag is {self.max_lag}: use 0 or more"

    def _words(self) -> Iterator[str]:
        yield from _one_of("on_exhausted", self.on_exhausted, (None, *OnExhausted.__args__))  # type: ignore[attr-defined]
        yield from _one_of("order", self.order, Order.__args__)  # type: ignore[attr-defined]
        yield from _one_of("readiness", self.readiness, Readiness.__args__)  # type: ignore[attr-defined]
        if self.dead_letters == "":
            yield "dead_letters is empty: name a topic, or leave it out for '<name>.dlq'"

    def _dead_letters(self) -> Iterator[str]:
        if self.dead_letters != NO_DEAD_LETTERS:
            return
        if self.on_exhausted in (None, "dead-letter"):
            yield "dead_letters is 'none': say what happens instead with on_exhausted: skip, requeue or exit"


def _one_of(name: str, value: Any, known: tuple[Any, ...]) -> Iterator[str]:
    if value not in known:
        yield f"{name} is {value!r}: use one of {', '.join(str(word) for word in known if word is not None)}"
