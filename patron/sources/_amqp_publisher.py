"""Publishing with confirms over one connection, opened at the first call."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from math import ceil, floor, log10
from time import monotonic
from typing import Any

from patron.errors import ConnectionLost, PublishFailed, SourceError
from patron.observe import log
from patron.sources._amqp_connection import Channel, Connection, properties
from patron.sources._amqp_messages import fitting, properties_of

__all__ = ["AmqpPublisher"]

_PATIENCE = (0.1, 0.2, 0.0)
"""Pauses after a refusal: a queue that is just being made, or chooses a new leader, refuses for a moment."""

_LINGER = 60_000
"""Milliseconds after which an unused queue for delayed messages goes away."""


_OTHERS = 2048
"""Bytes of a frame that are kept for the other properties: each has 255 at most."""


class AmqpPublisher:
    """
    A publisher whose every message is persistent, routed and confirmed. One thread at a time may call.

    Args:
        connect: opens a connection.
        route: the exchange and the routing key of a topic.
        make: makes the queue of a topic when it is missing, and returns whether it did.
        timeout: seconds that the broker has for a confirm.
    """

    def __init__(
        self,
        connect: Callable[[], Connection],
        route: Callable[[str], tuple[str, str]],
        make: Callable[[Connection, str], bool],
        timeout: float,
    ) -> None:
        self._connect = connect
        self._route = route
        self._make = make
        self._timeout = timeout
        self._connection: Connection | None = None
        self._channel: Channel | None = None
        self._used_at = 0.0
        self._sent = 0
        self._confirmed = 0
        self._refused = False
        self._returned: str | None = None

    def publish(
        self,
        topic: str,
        body: bytes,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay: float = 0.0,
    ) -> str:
        """
        Publish to the queue *topic*, and return the id of the message once the broker has confirmed it.

        With a *delay*, it waits in a queue of its own until that is over, which is rounded up to two digits.

        Raises:
            PublishFailed: it may not be there: no queue took it, the broker refused it or did not answer in time.
        """
        values = properties_of(headers, key)
        try:
            connection, channel = self._open()
            values["headers"], cut = fitting(values["headers"], connection.frame_max - _OTHERS)
            if cut:
                log.warn("headers are too long for RabbitMQ and were cut", topic=topic, headers=cut)
            send = partial(self._routed, connection, channel, body, values)
            if delay > 0:
                self._make(connection, topic)
                send("", delay_queue(channel, topic, delay))
            elif not send(*self._route(topic)) and not (
                self._make(connection, topic) and send(*self._route(topic))
            ):
                raise PublishFailed(f"no queue takes messages to {topic!r}: {self._returned}")
        except PublishFailed:
            raise
        except SourceError as error:
            self.close()
            raise PublishFailed(f"cannot publish to {topic!r}: {error}") from error
        self._used_at = monotonic()
        return str(values["message_id"])

    def close(self) -> None:
        """Close the connection. May be called twice, and the next `publish` opens anew."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(SourceError):
                connection.close()

    def _open(self) -> tuple[Connection, Channel]:
        """The connection, a new one when the broker may have given up the old one meanwhile."""
        if self._connection is not None and self._channel is not None and self._alive(self._connection):
            return self._connection, self._channel
        self.close()
        self._connection = self._connect()
        self._channel = channel = self._connection.channel()
        channel.driver.add_on_return_callback(self._on_return)
        channel.call("confirm_delivery", ack_nack_callback=self._on_confirm)
        self._sent = self._confirmed = 0
        return self._connection, channel

    def _alive(self, connection: Connection) -> bool:
        """Nobody answered heartbeats while nothing was published, so a longer pause is the end."""
        heartbeat = connection.address.heartbeat
        if heartbeat and monotonic() - self._used_at > heartbeat:
            return False
        connection.turn(0.0)
        return connection.lost is None and self._channel is not None and self._channel.closed is None

    def _routed(
        self,
        connection: Connection,
        channel: Channel,
        body: bytes,
        values: Mapping[str, Any],
        exchange: str,
        routing_key: str,
    ) -> bool:
        """Publish; whether a queue took it."""
        for pause in _PATIENCE:
            self._send(connection, channel, body, values, exchange, routing_key)
            if not self._refused:
                return self._returned is None
            connection.turn(pause)
        raise PublishFailed(f"RabbitMQ refused the message to {routing_key!r}: the queue is full or failed")

    def _send(
        self,
        connection: Connection,
        channel: Channel,
        body: bytes,
        values: Mapping[str, Any],
        exchange: str,
        routing_key: str,
    ) -> None:
        self._refused, self._returned = False, None
        with channel.using() as driver:
            driver.basic_publish(exchange, routing_key, body, properties(values), mandatory=True)
        self._sent += 1
        try:
            connection.wait(
                lambda: self._confirmed >= self._sent or channel.closed, self._timeout, "a confirm"
            )
        except ConnectionLost as error:
            if connection.blocked is None:
                raise
            raise ConnectionLost(f"RabbitMQ blocks publishers: {connection.blocked}") from error
        channel.check()

    def _on_confirm(self, frame: Any) -> None:
        self._confirmed = frame.method.delivery_tag
        self._refused = frame.method.NAME == "Basic.Nack"

    def _on_return(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self._returned = f"{method.reply_code} {method.reply_text}"


def delay_queue(channel: Channel, topic: str, delay: float) -> str:
    """The queue whose messages move on to *topic* after *delay* seconds; made when it is missing."""
    wait = rounded_up(delay)
    name = f"{topic}.delay.{wait}"
    arguments = {
        "x-message-ttl": wait,
        "x-expires": wait + _LINGER,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": topic,
    }
    channel.call("queue_declare", queue=name, durable=True, arguments=arguments)
    return name


def rounded_up(seconds: float) -> int:
    """
    *seconds* in milliseconds with two digits, never less, so that random delays share few queues.

    >>> rounded_up(0.0123), rounded_up(0.5), rounded_up(61.7)
    (13, 500, 62000)
    """
    exact = max(1, ceil(seconds * 1000))
    unit = 10 ** max(0, floor(log10(exact)) - 1)
    return int(-(-exact // unit) * unit)
