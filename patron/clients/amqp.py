"""
A publisher to RabbitMQ: every message is confirmed, counted, traced and bounded in time.

docs/amqp.md tells what is on the wire.
"""

from __future__ import annotations

import functools
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from patron import encoding
from patron.clients._amqp_delivery import Delivery, Outgoing
from patron.clients._sending import CONTENT_TYPE, PerProcess, budget, check_timeout, encoded
from patron.errors import ConfigError, PublishFailed
from patron.extras import need
from patron.observe import Instrument, log
from patron.observe.metrics import Histogram, MetricSet
from patron.observe.seldom import Seldom

if TYPE_CHECKING:
    from patron.clients._amqp_link import Link

__all__ = ["METRICS", "AmqpPublisher"]

# From the call to the broker's confirm; "success" is true or false.
seconds = Histogram(
    "client_amqp_publish_duration_seconds",
    "Seconds that publishing to RabbitMQ took.",
    ("exchange", "success"),
)

METRICS = (seconds,)
_METRIC_SET = MetricSet(None, seconds, "success")

#: The header in which a key travels, as `patron.sources.amqp` reads it.
_KEY_HEADER = "X-Patron-Key"
_PERSISTENT = 2
_LONGEST_SHORT = 255


class AmqpPublisher:
    """
    Publishes to exchanges of one broker; share one between all threads.

    It connects at the first message, in each process anew. One thread of its own publishes for all, so that they share
    the wait for the confirms, and answers heartbeats when nothing is published
    (https://www.rabbitmq.com/docs/confirms#publisher-confirms).

    Args:
        url: ``amqp://user:password@host:port/vhost``, or ``amqps://`` for TLS. The password is never shown.
        content_type: of payloads that do not say otherwise.
        timeout: seconds that a message may take until it is confirmed, reconnecting included; a nearer
            deadline of the work at hand shortens it.
        max_unconfirmed: messages that may wait for their confirms; a call that finds no room waits for
            its *timeout*, then fails.
        heartbeat: seconds without a sign of life after which the connection counts as lost; 0: never.
        connect_timeout: seconds for each step of connecting.
        ca_file: the certificates to trust, for ``amqps``; by default those of the system.
        cert_file: the certificate of this client.
        key_file: its private key.

    Raises:
        ConfigError: an argument is wrong. MissingExtra: pika is not installed.
    """

    def __init__(
        self,
        url: str = "amqp://guest:guest@localhost:5672/",
        *,
        content_type: str = encoding.JSON,
        timeout: float = 10.0,
        max_unconfirmed: int = 10_000,
        heartbeat: int = 10,
        connect_timeout: float = 10.0,
        ca_file: str | None = None,
        cert_file: str | None = None,
        key_file: str | None = None,
    ) -> None:
        check_timeout("timeout", timeout)
        check_timeout("connect_timeout", connect_timeout)
        _check(url, max_unconfirmed, heartbeat)
        need("amqp")
        self.timeout = timeout
        self.content_type = content_type
        self._settings = (heartbeat, connect_timeout, max_unconfirmed, ca_file, cert_file, key_file)
        self._url = url
        self._links = PerProcess(self._open, self._close, "AMQP publisher")
        self._failures = Seldom()

    def publish(
        self,
        exchange: str,
        routing_key: str,
        payload: Any,
        headers: Mapping[str, str] | None = None,
        *,
        mandatory: bool = True,
        key: str | None = None,
        content_type: str | None = None,
        properties: Mapping[str, Any] | None = None,
    ) -> str:
        """
        Publish one message and return its id once the broker has confirmed that it keeps it. Any thread may call.

        Args:
            exchange: where to; ``""`` leads to the queue that *routing_key* names.
            routing_key: which queues get it, as the kind of the exchange has it.
            payload: bytes as they are, anything else encoded by its content type.
            headers: go with it; correlation id and trace are added.
            mandatory: it is a failure when no queue takes it. Else it is then lost, and confirmed all the same.
            key: what a consumer with ``order: key`` keeps in order; goes as header ``X-Patron-Key``.
            content_type: of *payload*; default the publisher's. It goes as property.
            properties: further properties of AMQP, such as ``priority``, ``expiration`` or ``reply_to``; messages
                are persistent unless ``delivery_mode`` is 1, and ``message_id`` is a UUID unless it says otherwise.

        Raises:
            PublishFailed: it may not be there: not confirmed in time, refused, or taken by no queue.
            DeadlineExceeded: there was no time left to send it.
            EncodeError, UnknownContentType: the payload cannot be written.
        """
        arguments = (exchange, routing_key, payload, headers, mandatory, key, content_type, properties)
        return _confirmed(self._begin(*arguments))

    def publish_async(
        self,
        exchange: str,
        routing_key: str,
        payload: Any,
        headers: Mapping[str, str] | None = None,
        *,
        mandatory: bool = True,
        key: str | None = None,
        content_type: str | None = None,
        properties: Mapping[str, Any] | None = None,
    ) -> Future[str]:
        """
        Begin to publish one message; the future has what `publish` returns or raises.

        A failed one is also counted and, at most once a second, logged, so the future may be dropped. It blocks
        while *max_unconfirmed* messages wait. Callbacks of the future run with the correlation id and span of this
        call, in the publisher's thread: they must not block.

        Raises:
            PublishFailed: there was no room for it within the time-out; it was not sent.
            DeadlineExceeded, EncodeError, UnknownContentType: as `publish`.
        """
        arguments = (exchange, routing_key, payload, headers, mandatory, key, content_type, properties)
        delivery = self._begin(*arguments)
        delivery.add_done_callback(self._report)
        return delivery

    def flush(self, timeout: float | None = None) -> None:
        """
        Return when every message so far is confirmed or has failed; *timeout* in seconds (default: the publisher's).

        Raises:
            PublishFailed: some are neither yet. DeadlineExceeded: there is no time to wait.
        """
        link = self._links.peek()
        if link is None:
            return
        if left := link.flush(budget(self.timeout if timeout is None else timeout)):
            raise PublishFailed(f"{left} messages were not confirmed in time; they may still be")

    def close(self) -> None:
        """Flush for at most *timeout* seconds, give up what is left, and close for good. May be called twice."""
        self._links.close()

    def __enter__(self) -> AmqpPublisher:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _begin(
        self,
        exchange: str,
        routing_key: str,
        payload: Any,
        headers: Mapping[str, str] | None,
        mandatory: bool,
        key: str | None,
        content_type: str | None,
        properties: Mapping[str, Any] | None,
    ) -> Delivery:
        left = budget(self.timeout)
        until = time.monotonic() + left
        operation = _instrument(exchange).start()
        operation.outcome = "false"
        try:
            body, table = encoded(payload, headers, content_type or self.content_type)
            message = Outgoing(exchange, routing_key, body, _properties(table, key, properties), mandatory)
            delivery = Delivery(operation, message, until)
        except BaseException as error:
            operation.fail(error)
            operation.finish()
            raise
        operation.detach()
        try:
            self._links.get(left).send(delivery)
        except BaseException as error:
            delivery.fail(error)
            raise
        return delivery

    def _report(self, delivery: Future[str]) -> None:
        error = delivery.exception()
        if error is not None and (more := self._failures.due()) is not None:
            log.error("message not published", error=str(error), more=more)

    def _open(self, timeout: float) -> Link:
        from patron.clients._amqp_link import Link, LinkSettings

        return Link(LinkSettings(self._url, "patron publisher", *self._settings))

    def _close(self, link: Link) -> None:
        if left := link.close(self.timeout):
            log.error("messages given up", messages=left, waited=self.timeout)


def _check(url: str, max_unconfirmed: int, heartbeat: int) -> None:
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("amqp", "amqps") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fine = False
    problems = [
        problem
        for wrong, problem in (
            (not fine, "url is none of RabbitMQ: use amqp://user:password@host:5672/vhost, or amqps://"),
            (max_unconfirmed < 1, f"max_unconfirmed {max_unconfirmed} is below 1"),
            (not 0 <= heartbeat <= 65535, f"heartbeat {heartbeat} is not from 0 to 65535 seconds"),
        )
        if wrong
    ]
    if problems:
        raise ConfigError(*problems)


@functools.lru_cache(maxsize=1024)
def _instrument(exchange: str) -> Instrument:
    return Instrument(
        "producer",
        "amqp",
        exchange,
        name=f"amqp-publisher {exchange}",
        metrics=_METRIC_SET,
        labels={"exchange": exchange},
        tags={"component": "amqp-publisher", "exchange": exchange},
    )


def _properties(table: dict[str, str], key: str | None, more: Mapping[str, Any] | None) -> dict[str, Any]:
    """The properties of the message; the content type is one of them, as the Go original reads it."""
    content_type = next(value for name, value in table.items() if name.lower() == CONTENT_TYPE.lower())
    values: dict[str, Any] = {
        "message_id": uuid.uuid4().hex,
        "timestamp": int(time.time()),
        "delivery_mode": _PERSISTENT,
    }
    if len(content_type.encode()) <= _LONGEST_SHORT:
        values["content_type"] = content_type
        table.pop(CONTENT_TYPE, None)
    if key is not None:
        table[_KEY_HEADER] = key
    return {**values, **(more or {}), "headers": table}


def _confirmed(delivery: Delivery) -> str:
    """What *delivery* comes to; the publisher's thread fails it in time, and this is the last resort."""
    try:
        return delivery.result(max(0.0, delivery.until - time.monotonic()) + 0.5)
    except TimeoutError:
        delivery.fail(PublishFailed("RabbitMQ did not confirm in time; the message may be there"))
    return delivery.result()
