"""
The Kafka source: topics of a consumer group, with contiguous commits and orderly rebalances.

Needs the extra ``kafka`` (kafka-python, the default driver) or ``confluent``. docs/kafka.md tells
what is promised, and how.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from patron.consumer.source import Publisher, Subscription
from patron.errors import ConfigError
from patron.kafka import security_problems
from patron.sources import _kafka_start as starting
from patron.sources._kafka_driver import Driver, driver

__all__ = ["KafkaSource"]

_SECONDS = (
    "session_timeout",
    "heartbeat_interval",
    "max_poll_interval",
    "request_timeout",
    "connect_timeout",
    "delivery_timeout",
    "lost_after",
)
_COUNTS = ("fetch_min_bytes", "fetch_max_bytes", "max_partition_fetch_bytes", "max_message_bytes")
_TOPIC = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,249}")
_INSTANCE = re.compile(r"[A-Za-z0-9._-]{1,200}")


@dataclass(frozen=True)
class KafkaSource:
    """
    One topic or several, read as a member of a consumer group. Durations are seconds.

    Args:
        topic: What to read: a topic, or a list of them.
        group: The consumer group, which the offsets are committed for.
        brokers: ``host:port`` of some brokers of the cluster; the others are found through them.
        driver: ``kafka-python`` (extra ``kafka``), or ``confluent`` (extra ``confluent``) for throughput.
        start: Where the group begins in a partition that it has committed nothing for, and again where
            its offset is no longer there: ``oldest``, ``newest``, a time (ISO 8601 with its zone), or
            how long ago, in seconds or as text (``1h ago``).
        assignment: How partitions are shared out. ``cooperative`` moves only those that must move, and
            the others go on; ``eager`` takes all away at each rebalance. All members of a group must
            use the same.
        group_instance_id: Static membership: a process that restarts within *session_timeout* gets its
            partitions back without a rebalance. The worker's number is appended.
        read_committed: Leave out what belongs to transactions that were aborted or are still open.
        tombstones: Give messages with a null body to the processor, with an empty one
            (``message.raw.value()`` or ``.value`` is None then); else they are dead letters.
        create: Make topics that are missing, those of dead letters too.
        partitions: Of a topic that is created; None: as the broker is set.
        replication: Copies of a topic that is created; None: as the broker is set.
        session_timeout: The broker takes a member that was silent for so long for dead.
        heartbeat_interval: How often a member tells that it lives; at most a third of *session_timeout*.
        max_poll_interval: A consumer that does not poll for so long leaves its group. Slow processors do
            not come near it, for the engine goes on polling.
        request_timeout: How long an answer of a broker may take.
        connect_timeout: How long finding the cluster may take, each time the source is opened.
        delivery_timeout: How long publishing a dead letter may take, all tries included.
        lost_after: Open the source again, as a new member, when no broker could be reached for so long; until
            then the driver connects again by itself, and stays the member that it was.
        fetch_min_bytes: The broker answers a fetch when it has so much.
        fetch_max_wait: Or when so long has passed.
        fetch_max_bytes: The most that one fetch brings.
        max_partition_fetch_bytes: The most that one fetch brings of one partition.
        max_message_bytes: The largest message that is published.
        security_protocol: ``PLAINTEXT``, ``SSL``, ``SASL_PLAINTEXT`` or ``SASL_SSL``.
        sasl_mechanism: Such as ``PLAIN``, ``SCRAM-SHA-512`` or ``OAUTHBEARER``.
        sasl_username: For ``PLAIN`` and ``SCRAM``.
        sasl_password: For ``PLAIN`` and ``SCRAM``.
        ssl_cafile: Certificates to trust, as a PEM file; None: those of the system.
        ssl_certfile: The client's certificate, as a PEM file.
        ssl_keyfile: Its private key, as a PEM file.
        ssl_password: The password of the key.
        options: Any other setting, by the name that the driver has for it; wins over the ones above.
    """

    topic: str | tuple[str, ...]
    group: str
    brokers: str | tuple[str, ...] = "localhost:9092"
    driver: Literal["kafka-python", "confluent"] = "kafka-python"
    start: str | float = "oldest"
    assignment: Literal["cooperative", "eager"] = "cooperative"
    group_instance_id: str | None = None
    read_committed: bool = False
    tombstones: bool = False
    create: bool = False
    partitions: int | None = None
    replication: int | None = None
    session_timeout: float = 45.0
    heartbeat_interval: float = 3.0
    max_poll_interval: float = 300.0
    request_timeout: float = 30.0
    connect_timeout: float = 5.0
    delivery_timeout: float = 30.0
    lost_after: float = 60.0
    fetch_min_bytes: int = 1
    fetch_max_wait: float = 0.5
    fetch_max_bytes: int = 50 * 1024 * 1024
    max_partition_fetch_bytes: int = 1024 * 1024
    max_message_bytes: int = 16 * 1024 * 1024
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_password: str | None = field(default=None, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        problems = [*self._words(), *self._numbers(), *self._security()]
        if problems:
            raise ConfigError(*problems)

    def _words(self) -> Iterator[str]:
        if not self.topics or not all(self.topics):
            yield "topic is empty: name what to read"
        yield from _misnamed(filter(None, self.topics))
        if not self.group:
            yield "group is empty: name the consumer group"
        if not self.servers or not all(self.servers):
            yield "brokers are empty or have an empty value: give host:port of at least one"
        for name, known in (
            ("driver", ("kafka-python", "confluent")),
            ("assignment", ("cooperative", "eager")),
        ):
            if getattr(self, name) not in known:
                yield f"{name} {getattr(self, name)!r} is not one of {', '.join(known)}"
        if self.group_instance_id is not None and not _INSTANCE.fullmatch(self.group_instance_id):
            yield f"group_instance_id {self.group_instance_id!r}: use letters, digits, '.', '_' and '-', at most 200"
        if problem := starting.problem(self.start):
            yield problem

    def _numbers(self) -> Iterator[str]:
        for name in _SECONDS:
            if not getattr(self, name) > 0:
                yield f"{name} {getattr(self, name)} is not above 0"
        for name in _COUNTS:
            if getattr(self, name) < 1:
                yield f"{name} {getattr(self, name)} is below 1"
        for name in ("partitions", "replication"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                yield f"{name} {getattr(self, name)} is below 1"
        if self.fetch_max_wait < 0:
            yield f"fetch_max_wait {self.fetch_max_wait} is below 0"
        if self.heartbeat_interval * 3 > self.session_timeout:
            yield (
                f"heartbeat_interval {self.heartbeat_interval} is above a third of "
                f"session_timeout {self.session_timeout}"
            )

    def _security(self) -> Iterator[str]:
        password = (self.sasl_mechanism, self.sasl_username, self.sasl_password)
        return security_problems(self.security_protocol, *password, self.options)

    @property
    def topics(self) -> tuple[str, ...]:
        """What to read, as a tuple."""
        return (self.topic,) if isinstance(self.topic, str) else tuple(self.topic)

    @property
    def servers(self) -> list[str]:
        """The brokers, as a list."""
        given = self.brokers.split(",") if isinstance(self.brokers, str) else self.brokers
        return [server.strip() for server in given]

    @property
    def system(self) -> str:
        return "kafka"

    @property
    def positional(self) -> bool:
        return True

    @property
    def target(self) -> str:
        return ",".join(self.topics)

    def open(self) -> Subscription:
        """
        Join the group, in the calling thread, which owns the subscription.

        Raises:
            ConnectionLost: no broker answered within *connect_timeout*.
            NotASource: the cluster refuses us, by name, password or rights.
            MissingExtra: the driver is not installed.
        """
        return self._driver.subscription(self)

    def publisher(self) -> Publisher:
        """A publisher to any topic of the cluster; it connects at its first call."""
        return self._driver.publisher(self)

    def prepare(self, topics: Sequence[str]) -> None:
        """
        Check that what is read and *topics* exist; with *create*, make what is missing.

        Raises:
            NotASource: some do not exist; it names them. ConnectionLost: no broker answered.
            ConfigError: one of *topics* has a name that Kafka does not take.
        """
        if problems := list(_misnamed(topics)):
            raise ConfigError(*problems)
        self._driver.prepare(self, list(dict.fromkeys([*self.topics, *topics])))

    def letters(self, topic: str) -> Subscription:
        """
        All letters of *topic* that were not handled, for the commands ``patron dlq``.

        What was handled is kept in the offsets of the group ``patron.dlq.<topic>``, in any order.
        Two such readers at once may show each other's letters again.
        """
        return self._driver.letters(self, topic)

    @property
    def _driver(self) -> Driver:
        return driver(self.driver)


def _misnamed(topics: Iterable[str]) -> Iterator[str]:
    for topic in topics:
        if not _TOPIC.fullmatch(topic):
            yield f"topic {topic!r} is no name for Kafka: use letters, digits, '.', '_' and '-', at most 249"
