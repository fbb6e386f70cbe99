"""
Topics in the service's own process: for tests, examples and work that may be lost with the process.

Every worker process has its own. A `MemorySource` reads a topic as a queue (leases) or, with
``positional``, as a log (partitions, positions and commits, as Kafka has them).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from patron import correlation
from patron.consumer.source import Publisher, Subscription
from patron.errors import ConfigError, NotASource
from patron.sources._memory_broker import DEFAULT_PARTITIONS, MemoryBroker
from patron.sources._memory_subscriptions import LogSubscription, QueueSubscription

__all__ = ["MemoryBroker", "MemorySource", "forget_broker", "memory_broker", "use_broker"]

# Guards `_brokers`.
_lock = threading.Lock()
_brokers: dict[str, MemoryBroker] = {}


def memory_broker(name: str = "default") -> MemoryBroker:
    """The broker called *name* in this process, made when it is not there."""
    with _lock:
        broker = _brokers.get(name)
        if broker is None:
            broker = _brokers[name] = MemoryBroker(name)
        return broker


def use_broker(broker: MemoryBroker) -> MemoryBroker:
    """Make *broker* the one of its name, instead of any other; returns it."""
    with _lock:
        _brokers[broker.name] = broker
    return broker


def forget_broker(name: str = "default") -> None:
    """Drop the broker called *name* with all it has; the next one to ask gets an empty one."""
    with _lock:
        _brokers.pop(name, None)


@dataclass(frozen=True)
class MemorySource:
    """
    A topic in this process.

    Args:
        topic: what is read.
        positional: read it as a log with partitions instead of a queue with leases.
        partitions: at least so many; messages of one key are in one partition, which is their lane.
        lease: seconds until an unsettled message of a queue is given out again, unless extended.
        broker: name of the broker, for having several.
        create: make topics that are missing; without it a consumer of one that nobody made ends with an error.
    """

    topic: str
    positional: bool = False
    partitions: int = DEFAULT_PARTITIONS
    lease: float = 30.0
    broker: str = "default"
    create: bool = True

    def __post_init__(self) -> None:
        checks = [
            (not self.topic, "memory source: topic is empty"),
            (
                not 1 <= self.partitions <= 10_000,
                f"memory source: partitions is {self.partitions}: use 1 to 10000",
            ),
            (not self.lease > 0, f"memory source: lease is {self.lease} s: use more than 0"),
        ]
        problems = [text for wrong, text in checks if wrong]
        if problems:
            raise ConfigError(*problems)

    @property
    def system(self) -> str:
        """Label of metrics and spans."""
        return "memory"

    @property
    def target(self) -> str:
        """The topic."""
        return self.topic

    def open(self) -> Subscription:
        """Begin to read the topic."""
        broker = memory_broker(self.broker)
        broker.check(lost=False)
        return LogSubscription(self, broker) if self.positional else QueueSubscription(self, broker)

    def letters(self, topic: str) -> Subscription:
        """The dead letters in *topic*, in this process; they are leased until it is closed."""
        return QueueSubscription(replace(self, topic=topic, positional=False), memory_broker(self.broker))

    def prepare(self, topics: Sequence[str]) -> None:
        """
        Make or miss the topic and *topics*.

        Raises:
            NotASource: some are missing.
            ConnectionLost: the broker is down.
        """
        broker = memory_broker(self.broker)
        broker.check(lost=False)
        missing = [name for name in (self.topic, *topics) if not broker.has(name)]
        if missing and not self.create:
            raise NotASource(
                f"memory broker {self.broker!r} has no topic {', '.join(missing)}: publish to it, or set create: true"
            )
        for name in missing:
            broker.topic(name)

    def publisher(self) -> Publisher:
        """A publisher to the same broker."""
        return _MemoryPublisher(memory_broker(self.broker))


class _MemoryPublisher:
    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    def publish(
        self,
        topic: str,
        body: bytes,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay: float = 0.0,
    ) -> str:
        return self._broker.publish(
            topic, body, key=key, headers=correlation.message_headers(headers), delay=delay
        )

    def close(self) -> None:
        pass
