"""What a source's suite says of its broker, and what the tests of the contract have in common."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from patron.consumer.consumer import Consumer
from patron.consumer.source import Message, Publisher, Revoked, Source, Subscription
from patron.errors import ConnectionLost, PublishFailed, SourceError, Stale
from patron.reliability.retry import RetryPolicy

__all__ = ["QUICK", "Suite", "UnreliablePublisher", "header_of", "messages_of"]

#: Short waits, for tests that want failures to be over soon.
QUICK = RetryPolicy(attempts=3, initial=0.01, cap=0.02)


class UnreliablePublisher:
    """A source whose publisher refuses the first *failures* messages; all else is the source's own."""

    def __init__(self, source: Source, failures: int) -> None:
        self._source = source
        self._left = itertools.repeat(True, failures)
        self.refused = 0
        self.system = source.system
        self.positional = source.positional
        self.target = source.target
        if hasattr(source, "lease"):
            self.lease = source.lease

    def open(self) -> Subscription:
        """The source's own subscription."""
        return self._source.open()

    def publisher(self) -> Publisher:
        """A publisher that refuses at first."""
        return _Refusing(self, self._source.publisher())

    def refuses(self) -> bool:
        """Whether the next message is refused."""
        refused = next(self._left, False)
        self.refused += refused
        return refused


class _Refusing:
    def __init__(self, owner: UnreliablePublisher, publisher: Publisher) -> None:
        self._owner = owner
        self._publisher = publisher

    def publish(self, topic: str, body: bytes, **options: Any) -> str:
        if self._owner.refuses():
            raise PublishFailed("refused by the test")
        return self._publisher.publish(topic, body, **options)

    def close(self) -> None:
        self._publisher.close()


class Suite:
    """What a source's suite writes and says, and help for the tests."""

    orders_keys: bool = True
    """Messages with the same key share a lane, so they keep their order."""

    counts_deliveries: bool = True
    """``Message.deliveries`` grows with each delivery, also to another connection."""

    delays: bool = True
    """A nack with a delay keeps the message away that long."""

    publishes_later: bool = True
    """A publish with a delay keeps the message away that long."""

    checks_topics: bool = False
    """The source has `prepare`, which notices what is missing, and a field ``create``."""

    patience: float = 10.0
    """Seconds that a message may take to arrive."""

    quiet: float = 0.3
    """Seconds after which a message that did not arrive is taken not to come."""

    budget: float = 1.0
    """Seconds that a stop gets in which a processor hangs; closing gets a tenth of it, and at most 0.5 s."""

    many: int = 300
    """How many messages the tests send that want many; fewer for a server that is slow."""

    topic: str
    tmp_path: Path

    # What a source's suite writes

    def source(self) -> Source:
        """The source under test, which reads ``self.topic``."""
        raise NotImplementedError("write source()")

    def dead_letters(self, topic: str) -> Source:
        """The same kind of source, for *topic*; the default replaces the field ``topic``."""
        return dataclasses.replace(self.source(), topic=topic)  # type: ignore[type-var]

    def short_lease(self, seconds: float) -> Source | None:
        """The source with leases of *seconds*; None when it has none to set."""
        source = self.source()
        return dataclasses.replace(source, lease=seconds) if hasattr(source, "lease") else None  # type: ignore[type-var]

    def crash(self, subscription: Subscription) -> None:
        """Let *subscription* end as if its process had been killed. Default: close it."""
        subscription.close()

    def spoil(self) -> bool:
        """
        Publish one message to the topic that the source cannot read, past its publisher.

        Returns False when there is no such thing.
        """
        return False

    @contextlib.contextmanager
    def rebalance(self) -> Iterator[None]:
        """Make the broker ask for lanes, from the beginning of the block on. Default: a second reader comes."""
        over = threading.Event()

        def read() -> None:
            with self.opened() as subscription:
                while not over.is_set():
                    subscription.poll(0, 0.05)

        reader = threading.Thread(target=read, name="second-reader")
        reader.start()
        try:
            yield
        finally:
            over.set()
            reader.join()

    def lose(self) -> bool:
        """Break every connection; returns False when the suite cannot do that."""
        return False

    # Help for the tests

    @pytest.fixture(autouse=True)
    def _world(self, tmp_path: Path) -> None:
        self.topic = f"patron-{uuid.uuid4().hex[:12]}"
        self.tmp_path = tmp_path

    def publish(self, *bodies: bytes | str, key: str | None = None, **options: Any) -> list[str]:
        """Publish *bodies* to the topic; returns their ids."""
        with contextlib.closing(self.source().publisher()) as publisher:
            encoded = (body.encode() if isinstance(body, str) else body for body in bodies)
            return [publisher.publish(self.topic, body, key=key, **options) for body in encoded]

    @contextlib.contextmanager
    def opened(self, source: Source | None = None) -> Iterator[Subscription]:
        """An open subscription, closed at the end of the block."""
        subscription = (source or self.source()).open()
        try:
            yield subscription
        finally:
            subscription.close()

    def receive(self, subscription: Subscription, count: int, limit: int = 100) -> list[Message]:
        """*count* messages, not necessarily from one poll."""
        received: list[Message] = []
        end = time.monotonic() + self.patience
        while len(received) < count:
            assert time.monotonic() < end, (
                f"received {len(received)} of {count} messages in {self.patience} s"
            )
            received += messages_of(subscription.poll(min(limit, count - len(received)), 0.1))
        return received

    def settle(self, subscription: Subscription, messages: Sequence[Message]) -> None:
        """Acknowledge *messages*, as the engine does: what is refused for now is tried again, after a poll."""
        end = time.monotonic() + self.patience
        while True:
            try:
                return subscription.ack(messages)
            except SourceError as error:
                if isinstance(error, ConnectionLost | Stale) or time.monotonic() > end:
                    raise
            subscription.poll(0, 0.05)

    def nothing_comes(self, subscription: Subscription, seconds: float | None = None) -> bool:
        """Whether nothing arrives for a while."""
        end = time.monotonic() + (self.quiet if seconds is None else seconds)
        while time.monotonic() < end:
            if messages_of(subscription.poll(10, 0.05)):
                return False
        return True

    def all_settled(self, topic: str | None = None) -> bool:
        """Whether nothing is left for a new reader of the topic."""
        with self.opened(self.dead_letters(topic) if topic else None) as subscription:
            return self.nothing_comes(subscription)

    def read_dead_letters(self, count: int, topic: str = "test.dlq") -> list[Message]:
        """*count* dead letters of the consumer that `consumer` makes."""
        with self.opened(self.dead_letters(topic)) as subscription:
            messages = self.receive(subscription, count)
            subscription.ack(messages)
            return messages

    def consumer(
        self, processor: Callable[..., Any], source: Source | None = None, **settings: Any
    ) -> Consumer:
        """A consumer of the source that tries three times, with short waits."""
        settings.setdefault("retry", QUICK)
        return Consumer("test", source or self.source(), processor, **settings)


def messages_of(received: Sequence[Message | Revoked]) -> list[Message]:
    return [item for item in received if isinstance(item, Message)]


def header_of(headers: Mapping[str, str], name: str) -> str:
    return next(value for key, value in headers.items() if key.lower() == name)
