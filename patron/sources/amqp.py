"""
RabbitMQ (AMQP 0-9-1): a queue that several services may write to and read from.

Reading gives up to ``prefetch`` messages at once and keeps no order between them; a queue that must be read
in order has one reader at a time (``single_active``) and the consumer ``order: key``. docs/amqp.md tells more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from patron.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from patron.sources._amqp_connection import Connection
    from patron.sources._amqp_publisher import AmqpPublisher
    from patron.sources._amqp_subscription import AmqpSubscription
    from patron.sources._amqp_topology import Topology

__all__ = ["AmqpSource"]


@dataclass(frozen=True)
class AmqpSource:
    """
    A queue of RabbitMQ.

    Args:
        queue: What is read.
        url: ``amqp://user:password@host:port/vhost``, or ``amqps://`` for TLS. The password is never shown.
        create: Make queue, exchange, bindings and dead-letter queues when they are missing. What is there is
            left as it is.
        queue_type: What ``create`` makes: ``quorum`` is replicated and counts deliveries, ``classic`` is neither.
        queue_arguments: Further arguments of queues that ``create`` makes, such as ``x-max-length``.
        single_active: ``create`` makes a queue that only one of its consumers reads at a time.
        exchange: The exchange that the queue is bound to, if any.
        exchange_kind: ``direct``, ``fanout``, ``topic`` or ``headers``; what ``create`` makes.
        bindings: The routing keys that ``create`` binds the queue with; a ``fanout`` exchange needs none.
        prefetch: How many unsettled messages the broker pushes; by default as many as the consumer holds.
        priority: Of this consumer: the broker gives messages to higher ones as long as they take them.
        exclusive: Refuse to read beside another consumer.
        dead_letter_exchange: Publish dead letters to this exchange, with the dead-letter topic as routing key,
            instead of to the queue of that name.
        max_body: Bytes that a compressed body (``gzip``, ``deflate``) may have when it is unpacked; one with more is
            a dead letter, packed as it came.
        heartbeat: Seconds without a sign of life after which the connection counts as lost; 0: never.
        connect_timeout: Seconds for each step of connecting.
        confirm_timeout: Seconds that the broker has to confirm a message that was published.
        ca_file: The certificates to trust, for ``amqps``; by default those of the system.
        cert_file: The certificate of this client.
        key_file: Its private key.
    """

    queue: str
    url: str = field(default="amqp://guest:guest@localhost:5672/", repr=False)
    create: bool = False
    queue_type: Literal["quorum", "classic"] = "quorum"
    queue_arguments: Mapping[str, Any] = field(default_factory=dict)
    single_active: bool = False
    exchange: str = ""
    exchange_kind: Literal["direct", "fanout", "topic", "headers"] = "direct"
    bindings: Sequence[str] = ()
    prefetch: int | None = None
    priority: int | None = None
    exclusive: bool = False
    dead_letter_exchange: str = ""
    max_body: int = 4 * 1024 * 1024
    heartbeat: int = 10
    connect_timeout: float = 10.0
    confirm_timeout: float = 5.0
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    def __post_init__(self) -> None:
        if problems := [problem for wrong, problem in self._rules() if wrong]:
            raise ConfigError(*problems)

    def _rules(self) -> Sequence[tuple[bool, str]]:
        return (
            *_url_rules(self.url),
            (not self.queue, "queue is empty: name what to read"),
            (len(self.queue.encode()) > 255, "queue has more than 255 bytes, which AMQP does not allow"),
            (self.queue_type not in _QUEUE_TYPES, f"queue_type {self.queue_type!r} is not quorum or classic"),
            (
                self.exchange_kind not in _EXCHANGE_KINDS,
                f"exchange_kind {self.exchange_kind!r} is not direct, fanout, topic or headers",
            ),
            (
                bool(self.bindings) and not self.exchange,
                f"bindings {list(self.bindings)} need an exchange: name it",
            ),
            (
                bool(self.exchange and self.create and not self.bindings and self.exchange_kind != "fanout"),
                f"exchange {self.exchange!r} of exchange_kind {self.exchange_kind} has no bindings: "
                "no message would come",
            ),
            (
                self.prefetch is not None and not 1 <= self.prefetch <= 65535,
                f"prefetch {self.prefetch} is not from 1 to 65535",
            ),
            (self.max_body < 1, f"max_body {self.max_body} is below 1 byte"),
            (not 0 <= self.heartbeat <= 65535, f"heartbeat {self.heartbeat} is not from 0 to 65535 seconds"),
            (self.connect_timeout <= 0, f"connect_timeout {self.connect_timeout} is not above 0"),
            (self.confirm_timeout <= 0, f"confirm_timeout {self.confirm_timeout} is not above 0"),
            (bool(self.key_file) and not self.cert_file, "key_file needs cert_file"),
        )

    @property
    def system(self) -> str:
        return "amqp"

    @property
    def positional(self) -> bool:
        return False

    @property
    def target(self) -> str:
        return self.queue

    def open(self) -> AmqpSubscription:
        """
        Connect and read `queue`, in the calling thread, which owns the subscription.

        Raises:
            NotASource: the queue is missing, or the broker refuses the user; the message says what to do.
            ConnectionLost: the broker cannot be reached. MissingExtra: the driver is not installed.
        """
        return self._subscribe(self.queue)

    def publisher(self) -> AmqpPublisher:
        """A publisher to any queue of the broker; connects at its first call."""
        _driver()
        from patron.sources._amqp_publisher import AmqpPublisher

        return AmqpPublisher(self._connect, self._route, self._make_target, self.confirm_timeout)

    def prepare(self, topics: Sequence[str]) -> None:
        """
        See that `queue` and the queues *topics* are there; with `create`, make what is missing.

        Raises:
            NotASource: something is missing or refused. ConnectionLost: the broker cannot be reached.
        """
        connection = self._connect()
        try:
            self._make_own(connection)
            for topic in topics:
                self._make_target(connection, topic)
        finally:
            connection.close()

    def letters(self, topic: str) -> AmqpSubscription:
        """A subscription on the dead letters in queue *topic*, which counts what it holds as waiting."""
        return self._subscribe(topic, letters=True)

    def _subscribe(self, queue: str, *, letters: bool = False) -> AmqpSubscription:
        connection = self._connect()
        from patron.sources._amqp_subscription import AmqpSubscription

        try:
            depth = (
                self._make_own(connection)
                if queue == self.queue
                else self._topology().queue(connection, queue)
            )
            if letters:
                return AmqpSubscription(connection, queue, depth, max_body=self.max_body, count_held=True)
            return AmqpSubscription(
                connection,
                queue,
                depth,
                max_body=self.max_body,
                prefetch=self.prefetch,
                exclusive=self.exclusive,
                arguments=None if self.priority is None else {"x-priority": self.priority},
            )
        except BaseException:
            connection.close()
            raise

    def _make_own(self, connection: Connection) -> int:
        """See that what is read is there; returns how many messages wait."""
        topology = self._topology()
        more = {"x-single-active-consumer": True} if self.single_active else {}
        depth = topology.queue(connection, self.queue, more)
        if self.exchange:
            bindings = self.bindings or ("",)
            topology.exchange(connection, self.exchange, self.exchange_kind, self.queue, bindings)
        return depth

    def _make_target(self, connection: Connection, topic: str) -> bool:
        """See that messages published to *topic* arrive somewhere; whether it may have been made."""
        if (
            topic == self.queue
        ):  # a publisher may be there before the consumer, which would find it made otherwise
            self._make_own(connection)
            return self.create
        topology = self._topology()
        exchange, _ = self._route(topic)
        if exchange and not self.create:
            topology.exchange(connection, exchange, "direct", topic, ())
            return False
        topology.queue(connection, topic)
        if exchange:
            topology.exchange(connection, exchange, "direct", topic, (topic,))
        return self.create

    def _route(self, topic: str) -> tuple[str, str]:
        """Exchange and routing key: a queue's own name on the default exchange, except for dead letters elsewhere."""
        return ("" if topic == self.queue else self.dead_letter_exchange), topic

    def _connect(self) -> Connection:
        driver = _driver()
        address = driver.Address(
            self.url,
            f"patron {self.queue}",
            self.heartbeat,
            self.connect_timeout,
            self.ca_file,
            self.cert_file,
            self.key_file,
        )
        return driver.Connection(address)  # type: ignore[no-any-return]

    def _topology(self) -> Topology:
        from patron.sources._amqp_topology import Topology

        return Topology(self.create, self.queue_type, self.queue_arguments)


_QUEUE_TYPES = ("quorum", "classic")
_EXCHANGE_KINDS = ("direct", "fanout", "topic", "headers")


def _url_rules(url: str) -> Sequence[tuple[bool, str]]:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # which says what it could not read, perhaps a part of the password
        return ((True, "url is no URL: write what is special in user and password as %2F and the like"),)
    return (
        (parts.scheme not in ("amqp", "amqps"), f"url starts with {parts.scheme!r}: use amqp:// or amqps://"),
        (not parts.hostname, "url names no host: use amqp://user:password@host:5672/"),
    )


def _driver() -> Any:
    """The module that knows the driver."""
    try:
        from patron.sources import _amqp_connection
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "pika":
            raise
        raise MissingExtra("pika", "amqp") from error
    return _amqp_connection
