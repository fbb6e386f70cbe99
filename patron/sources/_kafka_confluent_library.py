"""
confluent-kafka: what we use of it, made with our settings, and its errors as ours. Nothing else here imports it.

The settings: https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from patron.errors import ConfigError, ConnectionLost, MissingExtra, NotASource, SourceError, Stale
from patron.kafka import explained, with_remedy
from patron.observe import log
from patron.observe.seldom import Seldom
from patron.secured import check_files
from patron.sources import _kafka_codes as codes

try:
    import confluent_kafka
    from confluent_kafka import OFFSET_END, KafkaError, KafkaException, TopicPartition
    from confluent_kafka.admin import AdminClient, NewTopic
except ImportError as error:
    raise MissingExtra("confluent-kafka", "confluent") from error

if TYPE_CHECKING:
    from patron.sources.kafka import KafkaSource

__all__ = [
    "END",
    "MOVING",
    "Client",
    "Health",
    "KafkaError",
    "KafkaException",
    "NewTopic",
    "TopicPartition",
    "admin",
    "consumer",
    "patiently",
    "producer",
    "reach",
    "translated",
    "translation",
]

Client = Any
"""A consumer, producer or admin client of confluent-kafka."""

END = OFFSET_END

# NOT_LEADER and so on: what a question to a cluster in motion, or to a new topic, is answered for a moment.
MOVING = frozenset(
    {3, 5, 6, 7, 14, 15, 16, 74, 75, 76, 78, 88, KafkaError._WAIT_COORD, KafkaError._TRANSPORT}
)
_LOOK_EVERY = 1.0
_REFUSED = frozenset({KafkaError._AUTHENTICATION})
_REACH = 0.5  # seconds between two looks at what the library says while it finds its cluster
_LOST = frozenset({KafkaError._ASSIGNMENT_LOST, KafkaError._MAX_POLL_EXCEEDED})


class Health:
    """
    What librdkafka says by itself: errors of its connections and its log lines.

    It tries again by itself for ever, so only *failure*, which no try can cure, and *down* count: since
    when (monotonic seconds) no broker is connected, None while one is. Its callbacks run in the
    thread that polls.
    """

    def __init__(self, source: KafkaSource) -> None:
        self.failure: SourceError | None = None
        self.down: float | None = None
        self.said = ""
        self._source = source
        self._look_at = 0.0
        self._secrets = [secret for secret in (source.sasl_password, source.ssl_password) if secret]
        self._lines = Seldom(10.0)

    def error(self, error: KafkaError) -> None:
        """What librdkafka calls with its errors."""
        code = error.code()
        if code != KafkaError._ALL_BROKERS_DOWN:  # which tells no reason
            self.said = self.clean(error.str())
        if error.fatal() or code in _REFUSED:
            self.failure = translation(error, "the Kafka client gave up")
        elif code == KafkaError._ALL_BROKERS_DOWN and self.down is None:
            self.down = monotonic()

    def log(self, level: int, text: str, *values: Any) -> None:
        """What librdkafka logs with; what it repeats is told every ten seconds."""
        line = self.clean(text % values if values else text)
        if level < logging.WARNING:
            log.debug("Kafka client", line=line)
        elif (more := self._lines.due()) is not None:
            log.warn("Kafka client", line=line, more=more)

    def watch(self, client: Client, alive: bool) -> None:
        """
        Raise what no try can cure, and notice that no broker was connected for long; *alive*: one has just answered.

        Raises:
            NotASource: the cluster refuses us. ConnectionLost: no broker for ``lost_after``.
        """
        if self.failure is not None:
            raise self.failure
        if self.down is None:
            return
        lost_after = self._source.lost_after
        if alive or self._answers(client):
            self.down = None
        elif monotonic() - self.down > lost_after:
            why = explained(self.said, self._source.servers)
            raise ConnectionLost(f"no broker could be reached for {lost_after:g} s: {why}")

    def _answers(self, client: Client) -> bool:
        """Whether a broker can be reached; asked once in a while, for the library does not tell."""
        now = monotonic()
        if now < self._look_at:
            return False
        self._look_at = now + _LOOK_EVERY
        try:
            return bool(client.list_topics("", timeout=_LOOK_EVERY / 2))
        except KafkaException:
            return False

    def clean(self, text: str) -> str:
        """*text* without passwords."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def consumer(source: KafkaSource, group: str, health: Health, **settings: Any) -> Client:
    """A consumer of *group* that commits nothing by itself; it connects in the background."""
    given = {
        **_common(source, health),
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "enable.partition.eof": True,
        "allow.auto.create.topics": False,
        "isolation.level": "read_committed" if source.read_committed else "read_uncommitted",
        "session.timeout.ms": _ms(source.session_timeout),
        "heartbeat.interval.ms": _ms(source.heartbeat_interval),
        "max.poll.interval.ms": _ms(max(source.max_poll_interval, source.session_timeout)),
        "fetch.min.bytes": source.fetch_min_bytes,
        "fetch.wait.max.ms": round(source.fetch_max_wait * 1000),
        "fetch.max.bytes": max(source.fetch_max_bytes, source.max_partition_fetch_bytes),
        "max.partition.fetch.bytes": source.max_partition_fetch_bytes,
        "receive.message.max.bytes": max(100_000_000, source.fetch_max_bytes + 1024),
        # What the library fetches ahead, beside what the engine holds; its own default is 64 MiB.
        "queued.max.messages.kbytes": 16 * 1024,
        # How long it fetches nothing when it has that; with its own default of a second it would soon be idle.
        "fetch.queue.backoff.ms": 5,
        "message.max.bytes": _largest(source),
        **settings,
        **source.options,
    }
    return _made(confluent_kafka.Consumer, given)


def producer(source: KafkaSource, health: Health) -> Client:
    """A producer whose messages are confirmed by all replicas in sync, once each."""
    given = {
        **_common(source, health),
        "enable.idempotence": True,
        "delivery.timeout.ms": _ms(source.delivery_timeout),
        "request.timeout.ms": _ms(min(source.request_timeout, source.delivery_timeout)),
        "linger.ms": 0,
        "message.max.bytes": _largest(source),
        "partitioner": "murmur2_random",
    }
    return _made(confluent_kafka.Producer, given)


def admin(source: KafkaSource, health: Health) -> Client:
    """A client that makes topics and lists them."""
    return _made(AdminClient, _common(source, health))


def reach(client: Client, source: KafkaSource, health: Health) -> Any:
    """
    The first answer of the cluster to a new *client*.

    Raises:
        ConnectionLost: no broker answered within ``connect_timeout``. NotASource: the cluster refuses us.
    """
    until = monotonic() + source.connect_timeout
    while True:
        try:
            # About no topic: a cluster may have thousands, and tells of all of them when none is named.
            return client.list_topics("", timeout=max(0.01, min(_REACH, until - monotonic())))
        except KafkaException as error:
            client.poll(0)  # lets it tell why
            if health.failure is not None:
                raise health.failure from error
            if monotonic() >= until:
                why = explained(health.said, source.servers)
                raise ConnectionLost(f"no broker of {', '.join(source.servers)} answers: {why}") from error
        sleep(0.02)


def patiently(ask: Callable[[], Sequence[TopicPartition]], timeout: float) -> Sequence[TopicPartition]:
    """
    What *ask* returns without an error, asked again for *timeout* seconds while the cluster is in motion.

    Raises:
        KafkaException: the last error.
    """
    until = monotonic() + timeout
    while True:
        try:
            answers = ask()
            for each in answers:
                if each.error is not None:
                    raise KafkaException(each.error)
            return answers
        except KafkaException as error:
            if error.args[0].code() not in MOVING or monotonic() > until:
                raise
        sleep(0.02)


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise our errors instead of the driver's; *doing* says what the block does, for the message."""
    try:
        yield
    except KafkaException as error:
        raise translation(error.args[0], doing) from error


def translation(error: KafkaError, doing: str) -> SourceError:
    """Our error for *error* of the driver, whose own codes are below 0."""
    code, text = error.code(), f"{doing}: {error.name()}: {error.str()}"
    if error.fatal() or code == KafkaError._FATAL:
        fenced = code == codes.FENCED or "group.instance.id" in error.str()
        return codes.refusal(codes.FENCED, doing, error.str()) if fenced else NotASource(text)
    if code > 0:
        return codes.refusal(code, doing, f"{error.name()}: {error.str()}")
    if code in _REFUSED:
        return NotASource(with_remedy(text))
    if code in _LOST:
        return Stale(f"{text}: the group goes on without us")
    return SourceError(text)  # the library connects again by itself


def _made(make: Callable[..., Client], given: dict[str, Any]) -> Client:
    try:
        return make(given)
    except (KafkaException, TypeError, ValueError) as error:
        raise ConfigError(f"confluent-kafka refuses the settings: {_said(error)}") from error


def _said(error: Exception) -> str:
    said = error.args[0] if error.args else error
    return str(said.str()) if isinstance(said, KafkaError) else str(said)


def _common(source: KafkaSource, health: Health) -> dict[str, Any]:
    return {
        "bootstrap.servers": ",".join(source.servers),
        "client.id": f"patron-{socket.gethostname()}",
        "socket.timeout.ms": max(10, _ms(source.request_timeout)),
        "socket.connection.setup.timeout.ms": max(1000, _ms(source.connect_timeout)),
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 2000,
        "error_cb": health.error,
        "logger": health,
        **_security(source),
    }


def _security(source: KafkaSource) -> dict[str, Any]:
    check_files(
        ssl_cafile=source.ssl_cafile, ssl_certfile=source.ssl_certfile, ssl_keyfile=source.ssl_keyfile
    )
    named = {
        "security.protocol": source.security_protocol,
        "sasl.mechanism": source.sasl_mechanism,
        "sasl.username": source.sasl_username,
        "sasl.password": source.sasl_password,
        "ssl.ca.location": source.ssl_cafile,
        "ssl.certificate.location": source.ssl_certfile,
        "ssl.key.location": source.ssl_keyfile,
        "ssl.key.password": source.ssl_password,
    }
    return {name: value for name, value in named.items() if value is not None}


def _largest(source: KafkaSource) -> int:
    # The library compares the whole batch with it, its head and its records' heads included.
    return source.max_message_bytes + 64 * 1024


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
