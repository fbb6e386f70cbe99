"""One connection of pika, driven by the thread that opened it: the only file of the sources that knows the driver."""

from __future__ import annotations

import contextlib
import logging
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pika
from pika import exceptions
from pika.adapters.select_connection import IOLoop, SelectConnection

from patron.errors import ConfigError, ConnectionLost, NotASource, SourceError
from patron.reasons import innermost
from patron.secured import amqp_explained, check_files
from patron.sources._amqp_frames import Deliveries, Frames, OnDelivery

__all__ = ["Address", "Channel", "ChannelClosed", "Connection"]

# What goes wrong arrives here as an error and is told by who acts on it; pika would log each step of it as well.
if logging.getLogger("pika").level == logging.NOTSET:
    logging.getLogger("pika").setLevel(logging.CRITICAL)

#: Seconds that a broker has to say good-bye.
FAREWELL = 1.0

#: Bytes that are read at once.
_RECEIVE = 65536

#: Turns that the driver needs to close its socket.
_CLEAN_UP = 3


@dataclass(frozen=True)
class Address:
    """Where the broker is and how to talk to it; *url* may carry a password, `shown` does not."""

    url: str
    name: str
    heartbeat: int
    timeout: float
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    @property
    def shown(self) -> str:
        """Host, port and virtual host."""
        parts = urlsplit(self.url)
        port = parts.port or (5671 if parts.scheme == "amqps" else 5672)
        return f"{parts.hostname or 'localhost'}:{port}{parts.path if parts.path != '/' else ''}"

    def parameters(self) -> pika.ConnectionParameters:
        """The same for the driver."""
        try:
            parameters = pika.URLParameters(self.url)
        except (ValueError, TypeError, KeyError, OSError) as error:
            raise ConfigError(f"url of RabbitMQ at {self.shown}: {error}") from error
        parameters.heartbeat = self.heartbeat
        parameters.socket_timeout = parameters.stack_timeout = self.timeout
        parameters.connection_attempts = 1
        parameters.client_properties = {"connection_name": self.name, "product": "Patron"}
        if self.ca_file or self.cert_file:
            parameters.ssl_options = pika.SSLOptions(self._tls(), parameters.host)
        return parameters

    def _tls(self) -> ssl.SSLContext:
        check_files(ca_file=self.ca_file, cert_file=self.cert_file, key_file=self.key_file)
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file:
                context.load_cert_chain(self.cert_file, self.key_file)
        except OSError as error:
            files = ", ".join(filter(None, (self.ca_file, self.cert_file, self.key_file)))
            raise ConfigError(f"TLS files {files} cannot be read: {error}") from error
        return context


class ChannelClosed(ConnectionLost):
    """The broker closed a channel; *code* is its reply code, such as 404."""

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        super().__init__(f"RabbitMQ closed the channel: {code} {text}")

    @property
    def refused(self) -> bool:
        """Whether this user may not do it; what somebody else has for himself may be free later."""
        return self.code == 403 and "exclusive" not in str(self)


class Connection:
    """
    An open connection. Every call but `wake` comes from the thread that made it.

    Nothing happens between calls: the driver works in `turn` and in what waits by turning.

    Raises:
        ConnectionLost: the broker cannot be reached. NotASource: it refuses user or virtual host.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.lost: SourceError | None = None
        self.blocked: str | None = None
        self._open = False
        self._ended = False
        parameters = address.parameters()
        self._loop = IOLoop()
        self._loop.activate_poller()
        self._driver = _Driver(
            parameters,
            on_open_callback=self._opened,
            on_open_error_callback=self._failed,
            on_close_callback=self._failed,
            custom_ioloop=self._loop,
        )
        try:
            self._driver.add_on_connection_blocked_callback(self._blocked)
            self._driver.add_on_connection_unblocked_callback(self._unblocked)
            # The driver has its own time-outs for each step; this one only bounds their sum.
            self.wait(lambda: self._open, address.timeout * 2 + 1, "the connection")
        except BaseException:
            self.abort()
            raise

    @property
    def version(self) -> tuple[int, ...]:
        """The version of the broker; empty when it does not tell."""
        told = str((self._driver.server_properties or {}).get("version", ""))
        return tuple(int(part) for part in told.split(".") if part.isdigit())

    @property
    def frame_max(self) -> int:
        """The largest frame that was agreed on, in bytes; all properties of a message stand in one."""
        return int(self._driver.params.frame_max)

    def turn(self, timeout: float) -> None:
        """Let the driver read and write; when there is nothing to do, wait at most *timeout* seconds for it."""
        timer = self._loop.call_later(timeout, _nothing)
        try:
            self._loop.poll()
            self._loop.process_timeouts()
        finally:
            self._loop.remove_timeout(timer)

    def wait(self, done: Callable[[], Any], timeout: float, what: str) -> None:
        """
        Turn until *done*.

        Raises:
            ConnectionLost: it was lost meanwhile, or *timeout* seconds were not enough for *what*.
        """
        end = time.monotonic() + timeout
        while not done():
            self.check()
            left = end - time.monotonic()
            if left <= 0:
                raise ConnectionLost(
                    f"RabbitMQ at {self.address.shown} took more than {timeout:g} s for {what}"
                )
            self.turn(left)

    def check(self) -> None:
        """Raise why the connection is lost, if it is."""
        if self.lost is not None:
            raise self.lost

    def wake(self) -> None:
        """End the turn that waits now, or else the next one. Any thread may call it."""
        self._loop.add_callback_threadsafe(_nothing)

    def channel(self) -> Channel:
        """A new channel, open."""
        return Channel(self)

    def close(self) -> None:
        """Say good-bye, which gives back what was not settled, and close. May be called twice."""
        if self.lost is None:
            with contextlib.suppress(SourceError), translated(self.address):
                self._driver.close()
                self.wait(lambda: self.lost is not None, FAREWELL, "closing")
        self.abort()

    def abort(self) -> None:
        """Close the socket without a word."""
        if self._ended:
            return
        self._ended = True
        if self.lost is None:
            self.lost = ConnectionLost("the connection is closed")
        with contextlib.suppress(exceptions.AMQPError, OSError):
            self._driver.drop()
            for _ in range(_CLEAN_UP):
                self.turn(0)
        self._loop.close()

    def _opened(self, driver: Any) -> None:
        self._open = True
        self._driver.read_more()

    def _failed(self, driver: Any, error: BaseException) -> None:
        if self.lost is None:
            self.lost = _reason(error, self.address)

    def _blocked(self, driver: Any, frame: Any) -> None:
        self.blocked = str(frame.method.reason) or "blocked"

    def _unblocked(self, driver: Any, frame: Any) -> None:
        self.blocked = None


class Channel:
    """A channel of *connection*; `driver` is the one of pika, whose calls may be wrapped in `using`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.closed: ChannelClosed | None = None
        opened: list[Any] = []
        with translated(connection.address):
            self.driver = connection._driver.channel(on_open_callback=opened.append)
            self.driver.add_on_close_callback(self._on_close)
        self._until(opened, "a channel")

    def call(self, method: str, **arguments: Any) -> Any:
        """
        Call *method* of the driver's channel and wait for the broker's answer, which is returned.

        Raises:
            ChannelClosed: the broker refused, and closed the channel. ConnectionLost: likewise.
        """
        answers: list[Any] = []
        with self.using() as driver:
            getattr(driver, method)(callback=answers.append, **arguments)
        self._until(answers, method.replace("_", "."))
        return answers[0].method

    def deliver_to(self, deliver: OnDelivery) -> None:
        """From now on call *deliver* with each message that the broker delivers over this channel."""
        self.connection._driver.frames.deliveries[self.driver.channel_number] = Deliveries(deliver)

    def keep_consumers(self) -> None:
        """
        Do not let the driver cancel the consumers when it closes the channel, which ends them all the same.

        RabbitMQ puts what is on its way to a cancelled consumer of a quorum queue behind everything else.
        """
        getattr(self.driver, "_consumers", {}).clear()

    @contextlib.contextmanager
    def using(self) -> Iterator[Any]:
        """The driver's channel, with its errors as ours."""
        self.check()
        with translated(self.connection.address):
            yield self.driver

    def check(self) -> None:
        """Raise why the channel is of no more use, if it is."""
        self.connection.check()
        if self.closed is not None:
            raise self.closed

    def _until(self, answers: list[Any], what: str) -> None:
        self.connection.wait(lambda: answers or self.closed, self.connection.address.timeout, what)
        if not answers:
            self.check()

    def _on_close(self, channel: Any, reason: BaseException) -> None:
        code, text = getattr(reason, "reply_code", 0), getattr(reason, "reply_text", repr(reason))
        self.closed = ChannelClosed(code, text)


class _Driver(SelectConnection):  # type: ignore[misc]
    def __init__(self, *args: Any, **options: Any) -> None:
        self.frames = Frames(super()._on_data_available)
        super().__init__(*args, **options)

    def _on_data_available(self, data_in: bytes) -> None:
        self.bytes_received += len(data_in)  # what the heartbeat looks at
        self.frames.feed(data_in)

    def read_more(self) -> None:
        """Read larger pieces than 4 KiB."""
        if self._transport is not None:
            self._transport._MAX_RECV_BYTES = _RECEIVE

    def drop(self) -> None:
        """Let go of the socket, which is closed within the next turns."""
        if self._transport is not None:
            self._terminate_stream(exceptions.StreamLostError("dropped"))


@contextlib.contextmanager
def translated(address: Address) -> Iterator[None]:
    """The driver's errors as ours."""
    try:
        yield
    except (exceptions.AMQPError, OSError) as error:
        raise _reason(error, address) from error


def properties(values: Mapping[str, Any]) -> pika.BasicProperties:
    """The driver's form of the properties of a message."""
    return pika.BasicProperties(**values)


def decoded(encoded: bytes) -> pika.BasicProperties:
    """The properties of a message, decoded by the driver."""
    return pika.BasicProperties().decode(encoded)


def _reason(error: BaseException, address: Address) -> SourceError:
    """What the engine should know about *error* of the driver."""
    text = str(error) or repr(error)
    for kind, what in _REFUSED.items():
        # The driver guesses these also when the connection breaks at that moment: then it is worth another try.
        if isinstance(error, kind) and "ByBroker" in text:
            user = urlsplit(address.url).username or "guest"
            return NotASource(f"RabbitMQ at {address.shown} refuses {what.format(user=user)}: {text}")
    return ConnectionLost(f"RabbitMQ at {address.shown}: {amqp_explained(innermost(error))}")


_REFUSED = {
    exceptions.ProbableAuthenticationError: "user {user!r}, check name and password",
    exceptions.ProbableAccessDeniedError: "the virtual host to user {user!r}, check name and permissions",
}


def _nothing() -> None:
    """What a timer calls to end a turn."""
