"""The dead letters of a consumer as a person handles them: looked at, published again, or deleted; on any source."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from patron.consumer.deadletters import PREFIX, REPLAYED, REPLAYS, iso
from patron.consumer.source import Message, Publisher, Source, Subscription
from patron.errors import NotASource, SourceError, Stale

__all__ = ["Letter", "Letters", "Selection", "replay_headers"]

_AT_ONCE = 50  # letters fetched by one call
_WAIT = 1.0  # seconds that a call waits while there should be more
_GLANCE = 0.2  # seconds that it waits when all that were there have been seen
_LONG_GLANCE = 2.0  # the same where leases are, for such brokers count only roughly
_COUNTING = 2.0  # seconds that the broker has to tell how many there are
_DIGITS = 9  # of a count that somebody wrote into a header
_ALIVE = 5.0  # seconds after which the connection must be heard of again


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter, and what its headers tell; None where they say nothing."""

    message: Message

    def about(self, name: str) -> str | None:
        """The header ``x-patron-<name>``."""
        wanted = PREFIX + name
        return next((v for n, v in self.message.headers.items() if n.lower() == wanted), None)

    @property
    def id(self) -> str:
        """
        Its own id among the dead letters.

        One without a lasting id, as other programs put them into RabbitMQ, is named by what it says.
        """
        if not self.message.id.startswith("delivery-"):
            return self.message.id
        said = (self.message.timestamp, self.message.key, sorted(self.message.headers.items()))
        return hashlib.sha256(repr(said).encode() + self.message.body).hexdigest()[:16]

    @property
    def reason(self) -> str | None:
        """Why it is here."""
        return self.about("reason")

    @property
    def origin(self) -> str | None:
        """The topic that it came from."""
        return self.about("topic")

    @property
    def attempts(self) -> int | None:
        """How often it failed in the last process."""
        return _whole(self.about("attempts"))

    @property
    def replays(self) -> int:
        """How often it was published again."""
        return _whole(self.about("replays")) or 0

    @property
    def since(self) -> float | None:
        """When it became a dead letter, else when it failed first; seconds since the epoch."""
        if self.message.timestamp is not None:
            return self.message.timestamp
        return _epoch(self.about("first-failure"))


@dataclass(frozen=True, slots=True)
class Selection:
    """
    Which letters are meant: all that pass every condition given.

    Args:
        ids: only these.
        reason: only those whose reason contains this text, in any case of letters.
        after: only those that came at this time or later, in seconds since the epoch.
        before: only those that came earlier than this time.
        limit: no more than so many.
    """

    ids: frozenset[str] = frozenset()
    reason: str | None = None
    after: float | None = None
    before: float | None = None
    limit: int | None = None

    def fits(self, letter: Letter) -> bool:
        """Whether *letter* passes. One without any time is neither early nor late."""
        return (
            (not self.ids or letter.id in self.ids)
            and (self.reason is None or self.reason.casefold() in (letter.reason or "").casefold())
            and (self.after is None or (letter.since is not None and letter.since >= self.after))
            and (self.before is None or (letter.since is not None and letter.since < self.before))
        )

    def of(self, letters: Iterator[Letter]) -> Iterator[Letter]:
        """Those of *letters* that are meant; it looks no further than it must."""
        left = self.limit
        missing = set(self.ids)
        while left != 0 and (missing or not self.ids):
            letter = next(letters, None)
            if letter is None:
                return
            if self.fits(letter):
                missing.discard(letter.id)
                left = None if left is None else left - 1
                yield letter


class Letters:
    """
    The dead letters in *topic* of *source*; nothing is settled but what `remove` is given.

    Made for one thread, as a context manager::

        with Letters(source, "orders.dlq") as letters:
            for letter in letters:
                print(letter.id, letter.reason)

    A source may have ``letters(topic)`` for this: a subscription that needs no group and no order. Otherwise
    it is opened with its topic replaced, which takes leases until the end of the block.

    Args:
        source: of the consumer whose letters these are.
        topic: where they are.
        patience: seconds to wait for a letter that the broker says is there.

    Raises:
        SourceError: the broker cannot be reached, or has no such topic.
    """

    def __init__(
        self,
        source: Source,
        topic: str,
        *,
        patience: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.topic = topic
        self._source = source
        self._patience = patience
        self._clock = clock
        self._subscription: Subscription | None = None
        self._publisher: Publisher | None = None
        self._count: int | None = None
        self._held: dict[str, Message] = {}
        self._seen: set[str] = set()
        lease: float | None = getattr(source, "lease", None)
        self._glance = min(patience, _GLANCE if lease is None else _LONG_GLANCE)
        self._interval = _ALIVE if lease is None else min(_ALIVE, lease / 3)
        self._due = 0.0

    def __enter__(self) -> Letters:
        self._subscription = _opened(self._source, self.topic)
        self._due = self._clock() + self._interval
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def count(self) -> int | None:
        """How many there were at the beginning, as far as the broker knows; None when it does not tell."""
        until = self._clock() + _COUNTING
        while self._count is None:
            self._count = self._open.stats().lag
            if self._count is None:
                if self._clock() >= until:
                    break
                time.sleep(0.02)  # it is being asked
        return self._count

    def __iter__(self) -> Iterator[Letter]:
        """Each letter once, oldest first where the broker has an order, until there are no more."""
        count = self.count()
        patient_until = self._clock() + self._patience
        while True:
            all_seen = count is not None and len(self._seen) >= count
            fresh = self._fetch(self._glance if all_seen else _WAIT)
            for letter in fresh:
                if letter.message.id in self._held:  # else it was taken away meanwhile, and may come again
                    self._seen.add(letter.message.id)
                    yield letter
                    self.keep()
            if fresh:
                patient_until = self._clock() + self._patience
            elif all_seen or self._clock() >= patient_until:
                return

    def remove(self, letters: Sequence[Letter]) -> None:
        """
        Delete *letters*, which it gave out.

        Raises:
            Stale: some were taken away meanwhile, and are there still. SourceError: nothing was done.
        """
        self._open.ack([letter.message for letter in letters])
        for letter in letters:
            self._held.pop(letter.message.id, None)

    def publish(self, letter: Letter, topic: str) -> str:
        """
        Publish what *letter* holds to *topic*; returns its id there once the broker has confirmed it.

        Raises:
            PublishFailed: it may not be there.
        """
        if self._publisher is None:
            self._publisher = self._source.publisher()
        message = letter.message
        try:
            return self._publisher.publish(
                topic, message.body, key=message.key, headers=replay_headers(letter, time.time())
            )
        except BaseException:
            self._drop_publisher()
            raise

    def keep(self) -> None:
        """Keep the connection and what was given out, when it is time; call it while doing something else."""
        if self._clock() >= self._due:
            self._due = self._clock() + self._interval
            try:
                self._open.extend(list(self._held.values()))
            except Stale as error:
                for message in error.messages or list(self._held.values()):
                    self._held.pop(message.id, None)
            self._open.poll(0, 0)

    def close(self) -> None:
        """Give back what was not removed, and close. May be called twice."""
        self._drop_publisher()
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.close()

    @property
    def _open(self) -> Subscription:
        if self._subscription is None:
            raise SourceError(f"the letters of {self.topic} are not open: use them inside of a with block")
        return self._subscription

    def _fetch(self, timeout: float) -> list[Letter]:
        found = [m for m in self._open.poll(_AT_ONCE, timeout) if isinstance(m, Message)]
        self._held.update({message.id: message for message in found})
        return [Letter(message) for message in found if message.id not in self._seen]

    def _drop_publisher(self) -> None:
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            with contextlib.suppress(Exception):
                publisher.close()


def replay_headers(letter: Letter, now: float) -> dict[str, str]:
    """The headers of the original, with ``x-patron-replays`` (how often) and ``-replayed`` (when last, UTC)."""
    kept = {n: v for n, v in letter.message.headers.items() if not n.lower().startswith(PREFIX)}
    return {**kept, REPLAYS: str(letter.replays + 1), REPLAYED: iso(now)}


def _opened(source: Source, topic: str) -> Subscription:
    letters: Callable[[str], Subscription] | None = getattr(source, "letters", None)
    return _redirected(source, topic).open() if letters is None else letters(topic)


def _redirected(source: Any, topic: str) -> Source:
    """*source*, reading *topic* instead of what it reads."""
    if dataclasses.is_dataclass(source) and not isinstance(source, type):
        for field in dataclasses.fields(source):
            if field.name in ("topic", "queue") and field.init:
                return cast("Source", dataclasses.replace(source, **{field.name: topic}))
    raise NotASource(
        f"the source {type(source).__name__} shows no dead letters: it has neither a method letters(topic) "
        "nor a setting topic or queue"
    )


def _whole(text: str | None) -> int | None:
    fine = text is not None and len(text) <= _DIGITS and text.isascii() and text.isdigit()
    return int(text) if text is not None and fine else None


def _epoch(text: str | None) -> float | None:
    try:
        when = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
