"""
A Kafka producer whose every message is confirmed by the broker, counted, traced and bounded in time.

Keys land on partitions as in Java's client (murmur2); Go's Sarama hashes them with FNV-1a by default,
which ``partitioner="fnv1a"`` does, too.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal

from patron import encoding
from patron.clients._kafka_delivery import Connection, Delivery, Record, RecordMetadata, Unconfirmed
from patron.clients._kafka_settings import Security, Settings, addresses
from patron.clients._sending import PerProcess, budget, check_timeout, encoded
from patron.errors import BatchFailed, ConfigError, EncodeError, PublishFailed
from patron.extras import need
from patron.observe import Instrument, log
from patron.observe.metrics import Counter, Histogram, MetricSet
from patron.observe.seldom import Seldom

__all__ = ["METRICS", "KafkaMessage", "KafkaProducer", "RecordMetadata"]

_LABELS = ("status", "topic", "type")

# Messages by how they ended: sent (the broker confirmed), send-errors (it did not, or there was no
# room or time to send), creation-errors (the payload could not be encoded). The type is sync or async.
messages = Counter(
    "client_kafka_producer_message_status_total", "Messages of Kafka producers, by how they ended.", _LABELS
)

# From the call to the broker's confirmation, time in the producer's own batches included.
seconds = Histogram(
    "client_kafka_producer_duration_seconds",
    "Seconds from the call until the broker confirmed or the message failed.",
    _LABELS,
)

METRICS = (messages, seconds)
_METRIC_SET = MetricSet(messages, seconds, "status")

Kind = Literal["sync", "async"]


@dataclass(frozen=True, slots=True)
class KafkaMessage:
    """
    One message to send.

    Args:
        topic: where to.
        payload: bytes as they are, anything else encoded by its content type; None is Kafka's null
            value, which deletes *key* from a compacted topic.
        key: messages of one key stay in order on one partition; text as UTF-8. Without one they
            spread over the partitions.
        headers: go with it; correlation id, trace and content type are added.
        partition: instead of the one that *key* hashes to.
        timestamp: when it happened, in seconds since the epoch (default: now).
        content_type: of *payload*; default the producer's.
    """

    topic: str
    payload: Any = None
    key: str | bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    partition: int | None = None
    timestamp: float | None = None
    content_type: str | None = None


class KafkaProducer:
    """
    Sends to Kafka with ``acks=all`` and idempotence; share one between all threads.

    It connects at the first message, in each process anew (https://kafka.apache.org/documentation/#producerconfigs).

    Args:
        brokers: ``host:port``, several as a list or separated by commas.
        client_id: what the broker's logs and quotas call it.
        content_type: of payloads that do not say otherwise.
        timeout: seconds that a message may take until it is confirmed, all tries included; a nearer
            deadline of the work at hand shortens the wait of the caller.
        linger: seconds that a message waits for others to fill its batch.
        compression: of the batches.
        partitioner: how keys become partitions: ``murmur2`` as Java, ``fnv1a`` as Go's Sarama.
        max_unconfirmed: messages that may wait for their confirmation; a call that finds no room
            waits for its *timeout*, then fails.
        max_unconfirmed_bytes: likewise their bytes, payload, key, headers and some overhead.
        driver: ``kafka-python`` (extra ``kafka``) or ``confluent`` (extra ``confluent``), several times as fast.
        security_protocol: ``PLAINTEXT``, ``SSL``, ``SASL_PLAINTEXT`` or ``SASL_SSL``.
        sasl_mechanism: such as ``PLAIN``, ``SCRAM-SHA-512`` or ``OAUTHBEARER``.
        sasl_username: for ``PLAIN`` and ``SCRAM``.
        sasl_password: for ``PLAIN`` and ``SCRAM``.
        ssl_cafile: certificates to trust, as a PEM file; None: those of the system.
        ssl_certfile: the client's certificate, as a PEM file.
        ssl_keyfile: its private key, as a PEM file.
        ssl_password: the password of the key.
        options: any other setting, by the name that the driver has for it; wins over the ones above.

    Raises:
        ConfigError: an argument is wrong. MissingExtra: the driver is not installed.
    """

    def __init__(
        self,
        brokers: str | Sequence[str],
        *,
        client_id: str = "patron",
        content_type: str = encoding.JSON,
        timeout: float = 30.0,
        linger: float = 0.0,
        compression: Literal["gzip", "snappy", "lz4", "zstd"] | None = None,
        partitioner: Literal["murmur2", "fnv1a"] = "murmur2",
        max_unconfirmed: int = 10_000,
        max_unconfirmed_bytes: int = 32 * 1024 * 1024,
        driver: Literal["kafka-python", "confluent"] = "kafka-python",
        security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT",
        sasl_mechanism: str | None = None,
        sasl_username: str | None = None,
        sasl_password: str | None = None,
        ssl_cafile: str | None = None,
        ssl_certfile: str | None = None,
        ssl_keyfile: str | None = None,
        ssl_password: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        check_timeout("timeout", timeout)
        self.timeout = timeout
        self.content_type = content_type
        self._bounds = (max_unconfirmed, max_unconfirmed_bytes)
        self._settings = Settings(
            addresses(brokers),
            client_id,
            timeout,
            linger,
            compression,
            partitioner,
            driver,
            Security(
                security_protocol,
                sasl_mechanism,
                sasl_username,
                sasl_password,
                ssl_cafile,
                ssl_certfile,
                ssl_keyfile,
                ssl_password,
            ),
            dict(options or {}),
        )
        self._connection = PerProcess(self._open, self._close, "Kafka producer")
        self._failures = Seldom()
        if min(self._bounds) < 1:
            raise ConfigError(f"max_unconfirmed {self._bounds} must be at least 1 message and 1 byte")
        need(driver)

    def send(
        self,
        topic: str,
        payload: Any = None,
        key: str | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        partition: int | None = None,
        timestamp: float | None = None,
        content_type: str | None = None,
    ) -> RecordMetadata:
        """
        Send one message and return where the broker keeps it; see `KafkaMessage` for the arguments.

        Any thread may call, except callbacks of `send_async`, which would wait for themselves.

        Raises:
            PublishFailed: the broker did not confirm in time, or refused; after a time-out it may
                still arrive.
            DeadlineExceeded: there was no time left to send it.
            EncodeError, UnknownContentType: the payload cannot be written.
        """
        message = KafkaMessage(topic, payload, key, headers or {}, partition, timestamp, content_type)
        until = time.monotonic() + budget(self.timeout)
        return _confirmed(self._begin("sync", message), until)

    def send_async(
        self,
        topic: str,
        payload: Any = None,
        key: str | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        partition: int | None = None,
        timestamp: float | None = None,
        content_type: str | None = None,
    ) -> Future[RecordMetadata]:
        """
        Begin to send one message; the future has what `send` returns or raises.

        A failed one is also counted and, at most once a second, logged, so the future may be dropped.
        It blocks while *max_unconfirmed* messages wait and when the topic is new. Callbacks of the future
        run with the correlation id and span of this call, in the driver's thread: they must not block.

        Raises:
            PublishFailed: there was no room or no broker within the time-out; it was not sent.
            DeadlineExceeded, EncodeError, UnknownContentType: as `send`.
        """
        message = KafkaMessage(topic, payload, key, headers or {}, partition, timestamp, content_type)
        delivery = self._begin("async", message)
        delivery.add_done_callback(self._report)
        return delivery

    def send_batch(self, messages: Iterable[KafkaMessage]) -> list[RecordMetadata]:
        """
        Send *messages* together and return where the broker keeps each, in their order.

        Raises:
            BatchFailed: some were not confirmed; its ``outcomes`` tell which. Others are there.
            DeadlineExceeded: there was no time left to send any.
        """
        until = time.monotonic() + budget(self.timeout)
        outcomes = [_outcome(each, until) for each in [self._try(message) for message in messages]]
        confirmed = [outcome for outcome in outcomes if isinstance(outcome, RecordMetadata)]
        if len(confirmed) < len(outcomes):
            raise BatchFailed(outcomes)
        return confirmed

    def flush(self, timeout: float | None = None) -> None:
        """
        Return when every message so far is confirmed or has failed; *timeout* in seconds (default: the producer's).

        Raises:
            PublishFailed: some are neither yet. DeadlineExceeded: there is no time to wait.
        """
        connection = self._connection.peek()
        if connection is not None:
            connection.flush(budget(self.timeout if timeout is None else timeout))

    def close(self) -> None:
        """Flush for at most *timeout* seconds, give up what is left, and close for good. May be called twice."""
        self._connection.close()

    def __enter__(self) -> KafkaProducer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _try(self, message: KafkaMessage) -> Delivery | Exception:
        try:
            return self._begin("sync", message)
        except Exception as error:  # noqa: BLE001 - it is this message's outcome; the others go on
            return error

    def _begin(self, kind: Kind, message: KafkaMessage) -> Delivery:
        operation = _instrument(kind, message.topic).start()
        try:
            delivery = Delivery(operation)
            try:
                record = self._record(message)
            except BaseException as error:
                delivery.settle(error, "creation-errors")
                raise
        finally:
            operation.detach()
        try:
            self._hand_over(record, delivery)
        except BaseException as error:
            delivery.settle(error)
            raise
        return delivery

    def _record(self, message: KafkaMessage) -> Record:
        body, headers = encoded(
            b"" if message.payload is None else message.payload,
            message.headers,
            message.content_type or self.content_type,
        )
        key = _key(message.key)
        if message.payload is None and key is None:
            raise EncodeError("a message without payload deletes its key, and this one has no key")
        return Record(
            message.topic,
            None if message.payload is None else body,
            key,
            [(name, value.encode("utf-8", "backslashreplace")) for name, value in headers.items()],
            message.partition,
            None if message.timestamp is None else round(message.timestamp * 1000),
        )

    def _hand_over(self, record: Record, delivery: Delivery) -> None:
        until = time.monotonic() + (left := budget(self.timeout))
        connection = self._connection.get(left)
        connection.append(record, delivery, max(0.0, until - time.monotonic()))

    def _report(self, delivery: Future[RecordMetadata]) -> None:
        error = delivery.exception()
        if error is not None and (more := self._failures.due()) is not None:
            log.error("message not delivered", error=str(error), more=more)

    def _open(self, timeout: float) -> Connection:
        return Connection(self._settings.driver_within(timeout), Unconfirmed(*self._bounds), self.timeout)

    def _close(self, connection: Connection) -> None:
        if left := connection.close(self.timeout):
            log.error("messages given up", messages=left, waited=self.timeout)


def _key(key: str | bytes | None) -> bytes | None:
    """The bytes of *key*; text that a source made of bytes which are no UTF-8 becomes these again."""
    if not isinstance(key, str):
        return key
    try:
        return key.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise EncodeError(f"key {key!r} has no form in UTF-8: {error.reason}") from error


@functools.lru_cache(maxsize=1024)
def _instrument(kind: Kind, topic: str) -> Instrument:
    return Instrument(
        "producer",
        "kafka",
        topic,
        name=f"kafka-{kind}-producer {topic}",
        metrics=_METRIC_SET,
        labels={"topic": topic, "type": kind},
        tags={"component": f"kafka-{kind}-producer", "topic": topic, "type": kind},
    )


def _confirmed(delivery: Delivery, until: float) -> RecordMetadata:
    """What *delivery* comes to by *until*; then it has failed."""
    left = until - time.monotonic()
    try:
        return delivery.result(max(0.0, left))
    except TimeoutError:
        topic = delivery.topic
    delivery.settle(PublishFailed(f"message to topic {topic!r} not confirmed in time; it may still arrive"))
    return delivery.result()


def _outcome(delivery: Delivery | Exception, until: float) -> RecordMetadata | Exception:
    if not isinstance(delivery, Delivery):
        return delivery
    try:
        return _confirmed(delivery, until)
    except PublishFailed as error:
        return error
