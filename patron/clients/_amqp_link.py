"""The publishing thread of one process and its connection; the only file of the clients that knows pika."""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from patron.clients._amqp_delivery import Delivery, Room
from patron.errors import ConfigError, MissingExtra, PublishFailed
from patron.reasons import innermost
from patron.reliability import RetryPolicy
from patron.secured import amqp_explained, check_files

try:
    import pika
    from pika.adapters.select_connection import IOLoop, SelectConnection
    from pika.exceptions import ProbableAuthenticationError, StreamLostError
except ImportError as error:
    raise MissingExtra("pika", "amqp") from error

__all__ = ["Link", "LinkSettings"]

# What goes wrong arrives as an error where it can be acted on; pika would log each step of it as well.
if logging.getLogger("pika").level == logging.NOTSET:
    logging.getLogger("pika").setLevel(logging.CRITICAL)

_RECONNECT = RetryPolicy(initial=0.2, cap=5.0)
_SWEEP = 0.05
_FAREWELL = 1.0
_AROUND = 20  # bytes of a frame around the properties
_SURELY_FIT = 500  # characters of headers that fit into the smallest frame that AMQP allows


@dataclass(frozen=True)
class LinkSettings:
    """Where the broker is and how to talk to it."""

    url: str
    name: str
    heartbeat: int
    connect_timeout: float
    most: int
    ca_file: str | None
    cert_file: str | None
    key_file: str | None

    @property
    def shown(self) -> str:
        """Host and port."""
        parts = urlsplit(self.url)
        return f"{parts.hostname}:{parts.port or (5671 if parts.scheme == 'amqps' else 5672)}"

    def parameters(self) -> pika.ConnectionParameters:
        """The same for the driver."""
        check_files(ca_file=self.ca_file, cert_file=self.cert_file, key_file=self.key_file)
        try:
            parameters = pika.URLParameters(self.url)
            if self.ca_file or self.cert_file:
                context = ssl.create_default_context(cafile=self.ca_file)
                if self.cert_file:
                    context.load_cert_chain(self.cert_file, self.key_file)
                parameters.ssl_options = pika.SSLOptions(context, parameters.host)
        except (ValueError, TypeError, KeyError, OSError) as error:
            raise ConfigError(f"settings for RabbitMQ at {self.shown}: {error}") from error
        parameters.heartbeat = self.heartbeat
        parameters.connection_attempts = 1
        parameters.socket_timeout = parameters.stack_timeout = self.connect_timeout
        parameters.client_properties = {"connection_name": self.name, "product": "Patron"}
        return parameters


class Link:
    """
    A thread that publishes what any thread hands over, and keeps the connection alive meanwhile.

    It connects when there is something to publish, and again, with growing pauses, when the connection is lost: what
    was not sent waits for it within its time, what was sent and not confirmed has failed. Each exchange has a channel
    of its own, for a channel is closed by the first message to an exchange that is not there.
    """

    def __init__(self, settings: LinkSettings) -> None:
        self._settings = settings
        self._parameters = settings.parameters()
        self._loop = IOLoop()
        self._room = Room(settings.most)
        self._handed: deque[Delivery] = deque()
        self._called = False
        self._ended = threading.Event()
        # Below: only the thread of the loop.
        self._outlets: dict[str, _Outlet] = {}
        self._driver: Any = None
        self._open = False
        self._blocked: str | None = None
        self._closing = False
        self._sweeping = False
        self._failures = 0
        self._trouble = "not connected yet"
        self._thread = threading.Thread(target=self._run, name="amqp-publisher", daemon=True)
        self._thread.start()

    # Any thread

    def send(self, delivery: Delivery) -> None:
        """
        Take *delivery*, which is confirmed or fails by its time.

        Raises:
            PublishFailed: there was no room for it, so it was not sent.
        """
        self._room.enter(max(0.0, delivery.until - time.monotonic()))
        delivery.add_done_callback(lambda _: self._room.leave())
        self._handed.append(delivery)
        if not self._called:
            self._called = True
            self._loop.add_callback_threadsafe(self._take)
        if self._ended.is_set():
            delivery.fail(PublishFailed("the AMQP publisher is closed"))

    def flush(self, timeout: float) -> int:
        """Wait until everything is confirmed or has failed, at most *timeout* seconds; how many are left."""
        return self._room.empty(time.monotonic() + timeout)

    def close(self, timeout: float) -> int:
        """Flush, give up what is left, and end the thread; how many were given up."""
        left = self.flush(timeout)
        self._loop.add_callback_threadsafe(self._shut)
        self._thread.join(_FAREWELL + 1)
        return left

    # The thread of the loop

    def _run(self) -> None:
        try:
            self._loop.start()
        finally:
            self._ended.set()
            self._give_up(PublishFailed("the AMQP publisher was closed before RabbitMQ confirmed"))
            self._loop.close()

    def _take(self) -> None:
        self._called = False
        while self._handed:
            delivery = self._handed.popleft()
            self._outlet(delivery.message.exchange).waiting.append(delivery)
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(_SWEEP, self._sweep)
        self._pump()

    def _outlet(self, exchange: str) -> _Outlet:
        outlet = self._outlets.get(exchange)
        if outlet is None:
            outlet = self._outlets[exchange] = _Outlet(self._settings.shown)
        return outlet

    def _pump(self) -> None:
        if self._driver is None:
            self._connect()
        elif self._open and self._blocked is None:
            for outlet in self._outlets.values():
                outlet.pump(self._driver)

    def _waiting(self) -> bool:
        return any(outlet.waiting or outlet.unconfirmed for outlet in self._outlets.values())

    def _sweep(self) -> None:
        """Fail what has no time left."""
        now = time.monotonic()
        blocked = f"RabbitMQ blocks publishers: {self._blocked}" if self._blocked is not None else ""
        for outlet in self._outlets.values():
            outlet.sweep(now, blocked or self._trouble, blocked)
        self._sweeping = self._waiting()
        if self._sweeping:
            self._loop.call_later(_SWEEP, self._sweep)

    def _give_up(self, error: PublishFailed) -> None:
        for outlet in self._outlets.values():
            outlet.fail(outlet.unconfirmed.values(), error)
            outlet.fail(outlet.waiting, error)
        while self._handed:
            self._handed.popleft().fail(error)

    # Connection

    def _connect(self) -> None:
        self._open = False
        self._driver = _Driver(
            self._parameters,
            on_open_callback=self._on_open,
            on_open_error_callback=self._on_lost,
            on_close_callback=self._on_lost,
            custom_ioloop=self._loop,
        )
        self._driver.add_on_connection_blocked_callback(self._on_blocked)
        self._driver.add_on_connection_unblocked_callback(self._on_unblocked)

    def _on_open(self, driver: Any) -> None:
        self._open = True
        self._failures = 0
        self._trouble = "RabbitMQ opened no channel"
        self._pump()

    def _on_lost(self, driver: Any, error: BaseException) -> None:
        self._open, self._blocked = False, None
        self._trouble = f"RabbitMQ at {self._settings.shown}: {_told(error)}"
        for outlet in self._outlets.values():
            outlet.lost(
                PublishFailed(f"the connection was lost before a confirm, it may be there: {_told(error)}")
            )
        if self._closing:
            self._driver = None
            self._loop.stop()
            return
        self._failures += 1
        # None only after the pause: whatever is handed over meanwhile waits for the next attempt.
        self._loop.call_later(_RECONNECT.delay(self._failures), self._again)

    def _again(self) -> None:
        self._driver = None
        if self._waiting() and not self._closing:
            self._connect()

    def _on_blocked(self, driver: Any, frame: Any) -> None:
        self._blocked = str(frame.method.reason) or "no reason given"

    def _on_unblocked(self, driver: Any, frame: Any) -> None:
        self._blocked = None
        self._pump()

    def _shut(self) -> None:
        self._closing = True
        self._loop.call_later(_FAREWELL, self._drop)
        self._loop.call_later(_FAREWELL + 0.5, self._loop.stop)
        # `_on_lost` ends the loop.
        if self._open:
            self._driver.close()
        elif self._driver is None or not self._driver.drop():
            self._loop.stop()

    def _drop(self) -> None:
        """A broker that does not say good-bye is left."""
        if self._driver is not None:
            self._driver.drop()


class _Driver(SelectConnection):  # type: ignore[misc]
    def drop(self) -> bool:
        """Let go of the socket, which is closed within the next turns of the loop; whether there is one."""
        # Not `close`: pika fails an assertion of its own when a connection is given up that is not open yet.
        if self._transport is None:
            return False
        self._terminate_stream(StreamLostError("dropped"))
        return True


class _Outlet:
    """What goes to one exchange, over a channel of its own. Only the thread of the loop uses it."""

    def __init__(self, where: str) -> None:
        self.waiting: deque[Delivery] = deque()
        self.unconfirmed: dict[int, Delivery] = {}
        self._where = where
        self._channel: Any = None
        self._ready = False
        self._sent = 0

    def pump(self, driver: Any) -> None:
        """Send what waits, or open the channel that this needs."""
        if not self.waiting:
            return
        if self._channel is None:
            self._ready = False
            self._channel = driver.channel(on_open_callback=self._on_open)
        elif self._ready:
            while self.waiting:
                self._send(self.waiting.popleft())

    def sweep(self, now: float, unsent: str, unconfirmed: str) -> None:
        """Fail what has no time left, and say why it was not sent, or not confirmed."""
        late = [delivery for delivery in self.waiting if delivery.until <= now or delivery.done()]
        if late:
            self.fail(late, PublishFailed(f"the message was not sent in time: {unsent}"))
            self.waiting = deque(delivery for delivery in self.waiting if not delivery.done())
        for delivery in self.unconfirmed.values():
            if delivery.until <= now:
                why = f": {unconfirmed}" if unconfirmed else ""
                delivery.fail(PublishFailed(f"the message was not confirmed in time and may be there{why}"))

    def lost(self, error: PublishFailed) -> None:
        """The channel is gone: what was not confirmed has failed, what waits goes on waiting."""
        unconfirmed, self.unconfirmed, self._channel = self.unconfirmed, {}, None
        self.fail(unconfirmed.values(), error)

    def fail(self, deliveries: Any, error: PublishFailed) -> None:
        """Fail each of *deliveries* with *error*."""
        for delivery in list(deliveries):
            delivery.fail(error)

    def _send(self, delivery: Delivery) -> None:
        message = delivery.message
        if delivery.done():
            return
        try:
            properties = pika.BasicProperties(**message.properties)
            _check_size(properties, self._channel.connection.params.frame_max)
            self._channel.basic_publish(
                message.exchange, message.routing_key, message.body, properties, message.mandatory
            )
        except Exception as error:  # noqa: BLE001 - what AMQP cannot carry is this message's failure, not the thread's
            delivery.fail(_not_sent(error))
            return
        self._sent += 1
        self.unconfirmed[self._sent] = delivery

    def _on_open(self, channel: Any) -> None:
        channel.add_on_return_callback(self._on_return)
        channel.add_on_close_callback(self._on_close)
        self._sent = 0
        channel.confirm_delivery(self._on_confirm, callback=self._on_ready)

    def _on_ready(self, frame: Any) -> None:
        self._ready = True
        self.pump(None)

    def _on_close(self, channel: Any, reason: BaseException) -> None:
        code, text = getattr(reason, "reply_code", None), getattr(reason, "reply_text", None)
        if code is None:
            return  # the connection is lost, which is told by it
        error = PublishFailed(f"RabbitMQ at {self._where} refused what was published: {code} {text}")
        self.lost(error)
        self.fail(self.waiting, error)

    def _on_confirm(self, frame: Any) -> None:
        tag, multiple = frame.method.delivery_tag, frame.method.multiple
        tags = [each for each in self.unconfirmed if each <= tag] if multiple else [tag]
        settle = _settled if frame.method.NAME == "Basic.Ack" else _refused
        for each in tags:
            delivery = self.unconfirmed.pop(each, None)
            if delivery is not None:
                settle(delivery)

    def _on_return(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        """No queue takes it; the confirm that follows settles it."""
        for delivery in self.unconfirmed.values():
            if delivery.message.id == properties.message_id and delivery.returned is None:
                delivery.returned = f"{method.reply_code} {method.reply_text}"
                return


def _told(error: BaseException) -> str:
    """What *error* of a connection says, and what to do about it where that is known."""
    text = innermost(error)
    if isinstance(error, ProbableAuthenticationError):
        return f"{text}: check name and password"
    return amqp_explained(text)


def _settled(delivery: Delivery) -> None:
    if delivery.returned is None:
        delivery.confirm()
        return
    to = f"exchange {delivery.message.exchange!r} with routing key {delivery.message.routing_key!r}"
    delivery.fail(PublishFailed(f"no queue takes messages to {to}: {delivery.returned}"))


def _refused(delivery: Delivery) -> None:
    delivery.fail(PublishFailed("RabbitMQ refused the message: a queue is full or failed"))


def _check_size(properties: Any, frame_max: int) -> None:
    """
    All properties stand in one frame, and the broker closes the connection of who sends a larger one.

    Raises:
        ValueError: they do not fit.
    """
    headers = properties.headers
    if sum(map(len, headers)) + sum(map(len, map(str, headers.values()))) > _SURELY_FIT:
        size = sum(map(len, properties.encode())) + _AROUND
        if size > frame_max:
            raise ValueError(f"its headers and properties have {size} bytes, and RabbitMQ takes {frame_max}")


def _not_sent(error: Exception) -> PublishFailed:
    failed = PublishFailed(f"the message cannot be sent by AMQP: {type(error).__name__}: {error}")
    failed.__cause__ = error
    return failed
