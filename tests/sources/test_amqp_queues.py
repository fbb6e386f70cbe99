"""Queues of the real RabbitMQ: what is made, what is refused, what happens when connections end."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pika
import pytest
from brokers.rabbitmq_server import RabbitMQ, RabbitMQServer

import patron.sources
from patron.consumer.consumer import Consumer
from patron.consumer.letters import Letters
from patron.consumer.source import Message
from patron.errors import ConfigError, ConnectionLost, MissingExtra, NotASource, PublishFailed, Stale
from patron.reliability.retry import RetryPolicy
from patron.sources import _amqp_subscription
from patron.sources.amqp import AmqpSource
from patron.testing.driving import driven
from patron.testing.until import until

pytestmark = pytest.mark.broker


class World:
    """Names of the test's own, and the bare driver to look behind the scenes."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = f"patron-{uuid.uuid4().hex[:12]}"
        self.connection = pika.BlockingConnection(pika.URLParameters(url))
        self.queues: set[str] = {self.name, f"{self.name}.dlq"}

    def source(self, **settings: Any) -> AmqpSource:
        return AmqpSource(self.name, **{"url": self.url, "create": True, "queue_type": "classic", **settings})

    def fill(self, count: int, **settings: Any) -> None:
        source = self.source(**settings)
        source.prepare([])
        with self.connection.channel() as channel:
            for number in range(count):
                channel.basic_publish("", self.name, str(number).encode())
        until(lambda: self.depth() == count, 30)

    def publish(
        self, body: bytes, properties: Any = None, exchange: str = "", key: str | None = None
    ) -> None:
        with self.connection.channel() as channel:
            channel.basic_publish(exchange, key or self.name, body, properties)

    def depth(self, queue: str | None = None) -> int:
        with self.connection.channel() as channel:
            return channel.queue_declare(queue or self.name, passive=True).method.message_count

    def declare(self, queue: str, **arguments: Any) -> None:
        self.queues.add(queue)
        with self.connection.channel() as channel:
            channel.queue_declare(queue, durable=True, arguments=arguments)

    def delete(self, queue: str) -> None:
        with self.connection.channel() as channel:
            channel.queue_delete(queue)

    def close(self) -> None:
        for queue in self.queues:
            self.delete(queue)
        self.connection.close()


@pytest.fixture
def world(rabbitmq: RabbitMQServer) -> Iterator[World]:
    world = World(rabbitmq.url)
    yield world
    world.close()


def receive(subscription: Any, count: int, limit: int = 100) -> list[Message]:
    received: list[Message] = []
    until(
        lambda: (
            received.extend(subscription.poll(min(limit, count - len(received)), 0.1)),
            len(received) >= count,
        )[1],
        10,
    )
    return received


# What is there


def test_a_missing_queue_is_named_with_the_way_to_make_it(world):
    source = world.source(create=False)
    with pytest.raises(NotASource, match=f"queue '{world.name}' is not there .*`create: true`"):
        source.open()
    with pytest.raises(NotASource, match="create: true"):
        source.prepare([])


def test_prepare_looks_at_the_dead_letters_too_and_makes_what_is_missing(world):
    world.declare(world.name)
    with pytest.raises(NotASource, match=f"queue '{world.name}.dlq' is not there"):
        world.source(create=False).prepare([f"{world.name}.dlq"])
    world.source().prepare([f"{world.name}.dlq"])
    assert world.depth(f"{world.name}.dlq") == 0


@pytest.mark.parametrize("kind", ["quorum", "classic"])
def test_a_queue_is_made_of_the_kind_that_is_asked_for(world, kind):
    world.source(queue_type=kind, single_active=True, queue_arguments={"x-max-length": 9}).prepare([])
    version = world.connection._impl.server_properties["version"]
    unlimited = {"x-delivery-limit": -1} if kind == "quorum" and int(version.split(".")[0]) >= 4 else {}
    arguments = {"x-queue-type": kind, "x-single-active-consumer": True, "x-max-length": 9, **unlimited}
    world.declare(world.name, **arguments)  # the broker compares


def test_a_publisher_that_comes_first_makes_the_queue_as_the_consumer_would(world):
    with closing(
        world.source(single_active=True, queue_arguments={"x-max-length": 9}).publisher()
    ) as publisher:
        publisher.publish(world.name, b"1")
    world.declare(
        world.name, **{"x-queue-type": "classic", "x-single-active-consumer": True, "x-max-length": 9}
    )


def test_what_is_there_is_left_as_it_is(world):
    world.declare(world.name, **{"x-max-length": 5})
    world.source(queue_type="quorum").open().close()
    world.declare(world.name, **{"x-max-length": 5})


def test_arguments_that_the_broker_refuses_are_no_endless_retry(world):
    with pytest.raises(NotASource, match="x-max-length"):
        world.source(queue_arguments={"x-max-length": "many"}).prepare([])


def test_exchange_and_bindings_are_made_and_the_routing_key_is_the_key(world):
    source = world.source(exchange=world.name, exchange_kind="topic", bindings=["orders.*", "paid"])
    source.prepare([])
    world.publish(b"1", exchange=world.name, key="orders.created")
    world.publish(b"2", exchange=world.name, key="other")
    world.publish(b"3", exchange=world.name, key="paid")
    subscription = source.open()
    messages = receive(subscription, 2)
    assert [(message.body, message.key) for message in messages] == [(b"1", "orders.created"), (b"3", "paid")]
    subscription.ack(messages)
    subscription.close()
    with world.connection.channel() as channel:
        channel.exchange_delete(world.name)
    with pytest.raises(NotASource, match=f"exchange '{world.name}' is not there"):
        world.source(exchange=world.name, create=False).open()


def test_a_wrong_password_or_virtual_host_ends_it_and_is_not_shown(world):
    source = world.source(url=world.url.replace("guest:guest", "guest:hunter2"))
    with pytest.raises(NotASource, match="refuses user 'guest'") as caught:
        source.open()
    assert "hunter2" not in f"{caught.value} {source!r}"
    with pytest.raises(NotASource, match="refuses the virtual host"):
        world.source(url=f"{world.url}nowhere").open()


def test_a_connection_that_breaks_in_the_handshake_is_tried_again(rabbitmq, world):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def half() -> None:
            client, _ = listener.accept()
            with client, socket.create_connection((rabbitmq.host, rabbitmq.port)) as server:
                server.sendall(client.recv(100))
                client.sendall(server.recv(10_000))  # Connection.Start
                client.recv(10_000)  # Connection.StartOk, which nobody answers

        thread = threading.Thread(target=half)
        thread.start()
        with pytest.raises(ConnectionLost):
            world.source(url=rabbitmq.url_at(listener.getsockname()[1])).open()
        thread.join()


def test_no_broker_is_a_lost_connection():
    with pytest.raises(ConnectionLost, match=r"^RabbitMQ at localhost:1: Connection refused$"):
        AmqpSource("q", "amqp://localhost:1/").open()


# Reading


def test_the_broker_pushes_as_many_as_the_first_poll_asks_for(world):
    world.fill(30)
    subscription = world.source().open()
    assert receive(subscription, 5, limit=5)
    assert world.depth() == 25
    more = receive(subscription, 5)  # none is settled: so more may be pushed
    assert [int(message.body) for message in more] == [5, 6, 7, 8, 9]
    subscription.close()
    until(lambda: world.depth() == 30, 10)


def test_a_fixed_prefetch_is_kept(world):
    world.fill(30)
    subscription = world.source(prefetch=3).open()
    messages = receive(subscription, 3)
    assert subscription.poll(10, 0.2) == []
    subscription.ack(messages[1:2])
    assert [message.body for message in receive(subscription, 1)] == [b"3"]
    subscription.close()


def test_settled_in_any_order_is_settled(world):
    world.fill(10)
    subscription = world.source().open()
    messages = receive(subscription, 10)
    subscription.ack([messages[7], messages[1]])
    subscription.ack([messages[0], messages[2], messages[9]])
    subscription.nack([messages[3]])
    subscription.ack([messages[1], messages[0]])  # once more, which the broker must not hear of
    (again,) = receive(subscription, 1)
    assert (again.body, again.deliveries) == (b"3", 2)
    subscription.ack([again])
    subscription.close()
    until(lambda: world.depth() == 4, 10)


def test_what_waits_for_its_time_goes_back_at_the_end(world):
    world.fill(2)
    subscription = world.source().open()
    first, second = receive(subscription, 2)
    subscription.nack([first], 600)
    subscription.nack([second], 0.2)
    assert [message.body for message in receive(subscription, 1)] == [b"1"]
    subscription.close()
    until(lambda: world.depth() == 2, 10)


def test_messages_of_an_older_connection_are_stale_and_the_others_are_settled(world):
    world.fill(2)
    before = world.source().open()
    old = receive(before, 2)
    before.close()
    subscription = world.source().open()
    new = receive(subscription, 2)
    for settle in (subscription.ack, subscription.nack):
        with pytest.raises(Stale) as caught:
            settle([old[0], new.pop()])
        assert caught.value.messages == (old[0],)
    subscription.close()
    until(lambda: world.depth() == 1, 10)


def test_the_depth_is_looked_at_now_and_then_without_waiting(world, monkeypatch):
    monkeypatch.setattr(_amqp_subscription, "STATS_EVERY", 0.05)
    world.fill(3)
    subscription = world.source().open()
    assert (subscription.stats().assigned, subscription.stats().lag) == (1, 3)
    world.publish(b"4")
    until(lambda: (subscription.poll(0, 0.02), subscription.stats().lag)[1] == 4, 10)
    subscription.close()


def test_one_reader_at_a_time_when_it_is_exclusive(world):
    world.fill(1)
    first, second = world.source(exclusive=True).open(), world.source().open()
    receive(first, 1)
    with pytest.raises(ConnectionLost, match="exclusive"):
        second.poll(1, 5.0)
    first.close()
    second.close()


def test_higher_priority_reads_first(world):
    world.fill(0)
    low, high = world.source(prefetch=10).open(), world.source(prefetch=10, priority=5).open()
    low.poll(1, 0.05)
    high.poll(1, 0.05)
    world.publish(b"1")
    assert receive(high, 1)
    assert low.poll(1, 0.1) == []
    low.close()
    high.close()


# Connections that end


def test_a_cut_connection_is_lost_and_everything_comes_again(world, rabbitmq, proxy):
    world.fill(3)
    through = proxy(rabbitmq)
    subscription = world.source(url=through.url).open()
    messages = receive(subscription, 3)
    through.cut()
    with pytest.raises(ConnectionLost):
        subscription.poll(1, 5.0)
    with pytest.raises(ConnectionLost):
        subscription.ack(messages)
    subscription.close()
    until(lambda: world.depth() == 3, 10)


def test_a_broker_that_falls_silent_is_noticed_by_its_heartbeat_and_closing_is_quick(world, rabbitmq, proxy):
    world.fill(1)
    through = proxy(rabbitmq)
    subscription = world.source(url=through.url, heartbeat=1).open()
    receive(subscription, 1)
    through.hole()
    with pytest.raises(ConnectionLost, match="Heartbeat"):
        until(lambda: subscription.poll(1, 0.5), 20)  # pika looks every heartbeat + 5 s
    other = threading.Thread(target=subscription.close)
    other.start()
    other.join(5)
    assert not other.is_alive()
    through.heal()


def test_a_deleted_queue_cancels_the_consumer_and_is_missing_then(world):
    world.fill(0)
    source = world.source(create=False)
    subscription = source.open()
    subscription.poll(1, 0.05)
    world.delete(world.name)
    with pytest.raises(ConnectionLost, match="cancelled the consumer"):
        until(lambda: subscription.poll(1, 0.5), 10)
    subscription.close()
    with pytest.raises(NotASource):
        source.open()


def test_a_channel_that_the_broker_closes_is_a_lost_connection(world):
    world.fill(1)
    subscription = world.source().open()
    receive(subscription, 1)
    subscription._channel.driver.basic_ack(999)
    with pytest.raises(ConnectionLost, match="406 PRECONDITION_FAILED - unknown delivery tag 999"):
        until(lambda: subscription.poll(1, 0.5), 10)
    subscription.close()


def test_a_processor_may_take_longer_than_the_heartbeat(world):
    world.fill(1)
    done: list[bytes] = []

    def process(message: Message) -> None:
        pause = threading.Event()
        pause.wait(3.5)
        done.append(message.body)

    consumer = Consumer("slow", world.source(heartbeat=1), process, dead_letters=f"{world.name}.dlq")
    with driven(consumer):
        until(lambda: done, 10)
    assert done == [b"0"]
    assert world.depth() == 0


def test_a_consumer_survives_its_broker(own_rabbitmq: RabbitMQ):
    source = AmqpSource("orders", own_rabbitmq.url, create=True)
    source.prepare([])
    publisher = source.publisher()
    for number in range(50):
        publisher.publish("orders", str(number).encode())
    publisher.close()
    done: set[int] = set()
    held = threading.Event()

    def process(message: Message) -> None:
        if int(message.body) >= 20:
            held.wait(30)
        done.add(int(message.body))

    quick = RetryPolicy(initial=0.1, cap=0.5)
    with driven(Consumer("test", source, process, reconnect=quick)):
        until(lambda: len(done) == 20, 20)
        own_rabbitmq.kill()
        held.set()
        own_rabbitmq.start()
        until(lambda: len(done) == 50, 30)


# Poison


class Raw(pika.BasicProperties):
    """Properties whose table of headers is given in bytes, as the driver would not write it."""

    def __init__(self, table: bytes) -> None:
        super().__init__()
        self.table = table

    def encode(self) -> list[bytes]:
        return [b"\x20\x00", len(self.table).to_bytes(4, "big"), self.table]


POISON = {
    "not utf-8": (b"1", Raw(b"\x01hS\x00\x00\x00\x02\xff\xfe"), "unreadable header"),
    "no json": (b"{", pika.BasicProperties(content_type="application/json"), "undecodable"),
    "no type": (b"{", pika.BasicProperties(), "undecodable"),
    "other type": (b"1", pika.BasicProperties(content_type="application/x-unheard-of"), "undecodable"),
    "compression": (b"1", pika.BasicProperties(content_encoding="zip9"), "unknown content encoding"),
    "nothing": (b"", pika.BasicProperties(), "undecodable"),
    "copies": (b"{", pika.BasicProperties(headers={"CC": ["elsewhere"], "x-death": "mine"}), "undecodable"),
    "10 MB": (b"[" * 10_000_000, pika.BasicProperties(), "undecodable"),
}


def test_poison_becomes_dead_letters_with_a_reason_and_the_consumer_goes_on(world):
    world.fill(0)
    done: list[Any] = []
    for body, properties, _ in POISON.values():
        world.publish(body, properties)
    odd = b"\x01hT\x7f\xff\xff\xff\xff\xff\xff\xff"  # a time so late that pika would break the connection
    world.publish(b'"odd"', Raw(odd))
    world.publish(b'"good"')
    dead_letters = f"{world.name}.dlq"
    consumer = Consumer(
        "test", world.source(), lambda message: done.append(message.decode()), dead_letters=dead_letters
    )
    with driven(consumer):
        until(lambda: len(done) == 2 and world.depth(dead_letters) == len(POISON), 20)
    assert sorted(done) == ["good", "odd"]
    letters = world.source().letters(dead_letters)
    reasons = [message.headers["x-patron-reason"] for message in receive(letters, len(POISON))]
    letters.close()
    for _, _, reason in POISON.values():
        assert any(reason in each for each in reasons), (reason, reasons)


# Publishing


@pytest.mark.parametrize("value", [b"\xff" * 60_000, "é" * 64_000], ids=["bytes", "text"])
def test_headers_that_become_too_long_for_a_frame_are_cut_in_the_dead_letter(world, value):
    def process(message: Message) -> None:
        raise ValueError("no, half a \ud800")

    dlq = f"{world.name}.dlq"
    consumer = Consumer("c", world.source(), process, retry=RetryPolicy(attempts=1), dead_letters=dlq)
    with driven(consumer):
        until(lambda: consumer.info()["connected"], 10)
        world.publish(b"x", pika.BasicProperties(headers={"large": value, "small": "s"}))
        until(lambda: world.depth(dlq) == 1, 10)
    with world.connection.channel() as channel:
        _, properties, body = channel.basic_get(dlq, auto_ack=True)
    assert body == b"x"
    assert properties.headers["small"] == "s"
    assert properties.headers["x-patron-reason"] == "ValueError: no, half a \\ud800"


def test_a_publisher_makes_a_missing_queue_or_says_that_it_is_missing(world):
    with pytest.raises(PublishFailed, match=r"is not there on RabbitMQ"):
        world.source(create=False).publisher().publish(world.name, b"1")
    publisher = world.source().publisher()
    assert publisher.publish(world.name, b"1")
    publisher.close()
    assert world.depth() == 1


def test_dead_letters_may_go_to_an_exchange(world):
    exchange = f"{world.name}.dlx"
    source = world.source(dead_letter_exchange=exchange)
    with pytest.raises(PublishFailed, match="dlx"):
        world.source(dead_letter_exchange=exchange, create=False).publisher().publish(
            f"{world.name}.dlq", b"1", delay=1
        )
    source.prepare([f"{world.name}.dlq"])
    publisher = source.publisher()
    publisher.publish(f"{world.name}.dlq", b"letter")
    publisher.publish(world.name, b"replayed")
    publisher.close()
    assert (world.depth(), world.depth(f"{world.name}.dlq")) == (1, 1)
    with world.connection.channel() as channel:
        assert channel.queue_unbind(f"{world.name}.dlq", exchange, f"{world.name}.dlq")
        channel.exchange_delete(exchange)


def test_a_full_queue_is_a_failed_publish(world):
    world.declare(world.name, **{"x-max-length": 0, "x-overflow": "reject-publish"})
    publisher = world.source().publisher()
    with pytest.raises(PublishFailed, match="refused"):
        publisher.publish(world.name, b"1")
    publisher.close()


def test_a_publisher_opens_again_after_a_pause_and_after_a_loss(world, rabbitmq, proxy, monkeypatch):
    through = proxy(rabbitmq)
    publisher = world.source(url=through.url, heartbeat=1).publisher()
    publisher.publish(world.name, b"1")
    later = time.monotonic() + 3
    until(lambda: time.monotonic() > later, 10)  # nobody answers heartbeats
    publisher.publish(world.name, b"2")
    through.refuse()
    with pytest.raises(PublishFailed):
        publisher.publish(world.name, b"3")
    through.accept()
    publisher.publish(world.name, b"4")
    publisher.close()
    until(lambda: world.depth() >= 3, 10)


def test_a_publisher_notices_that_the_broker_closed_the_connection_meanwhile(world, rabbitmq, proxy):
    through = proxy(rabbitmq)
    publisher = world.source(url=through.url, heartbeat=600).publisher()
    publisher.publish(world.name, b"1")
    through.cut()
    until(lambda: not through.connections, 10)
    publisher.publish(world.name, b"2")
    publisher.close()


def test_a_broker_that_does_not_confirm_is_a_failure_in_time(world, rabbitmq, proxy):
    through = proxy(rabbitmq)
    publisher = world.source(url=through.url, confirm_timeout=0.3).publisher()
    publisher.publish(world.name, b"1")
    through.hole()
    with pytest.raises(PublishFailed, match=r"more than 0\.3 s for a confirm"):
        publisher.publish(world.name, b"2")
    through.heal()
    publisher.close()


# Dead letters


@pytest.mark.parametrize("kind", ["quorum", "classic"])
def test_letters_are_handled_in_any_order_and_the_rest_keeps_its_place(world, kind):
    world.fill(9, queue_type=kind)
    letters = world.source().letters(world.name)
    assert letters.stats().lag == 9
    held = receive(letters, 7, limit=2)
    letters.ack([held[3]])
    letters.ack([held[1]])
    assert letters.stats().lag == 7
    letters.close()
    until(lambda: world.depth() == 7, 10)
    letters = world.source().letters(world.name)
    assert [message.body for message in receive(letters, 7)] == [b"0", b"2", b"4", b"5", b"6", b"7", b"8"]
    letters.close()


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"queue": ""}, "queue is empty"),
        ({"queue": "q" * 256}, "255 bytes"),
        ({"url": "http://x"}, "amqp:// or amqps://"),
        ({"url": "amqp:///"}, "names no host"),
        ({"url": "amqp://x:port/"}, "url is no URL"),
        ({"queue_type": "stream"}, "queue_type 'stream'"),
        ({"exchange_kind": "x"}, "exchange_kind 'x'"),
        ({"bindings": ["a"]}, "need an exchange"),
        ({"exchange": "e", "create": True}, "exchange 'e' of exchange_kind direct has no bindings"),
        ({"prefetch": 0}, "prefetch 0"),
        ({"heartbeat": -1}, "heartbeat -1"),
        ({"connect_timeout": 0}, "connect_timeout 0"),
        ({"confirm_timeout": 0}, "confirm_timeout 0"),
        ({"key_file": "k"}, "cert_file"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AmqpSource(**{"queue": "orders", **settings})


@pytest.mark.parametrize("url", ["amqp://u:s3cret/x@host:5672/", "amqp://u:s3cret\u2100x@host/"])
def test_a_url_that_cannot_be_read_is_refused_without_its_password(url):
    with pytest.raises(ConfigError) as refused:
        AmqpSource("orders", url=url)
    assert "s3cret" not in str(refused.value)
    assert "%2F" in str(refused.value)


def test_tls_files_that_cannot_be_read_are_named():
    source = AmqpSource("q", "amqps://localhost/", ca_file="/nowhere/ca.pem")
    with pytest.raises(ConfigError, match=r"/nowhere/ca\.pem"):
        source.open()


def test_without_the_driver_the_extra_is_named(monkeypatch):
    monkeypatch.delattr(patron.sources, "_amqp_connection", raising=False)
    monkeypatch.delitem(sys.modules, "patron.sources._amqp_connection", raising=False)
    monkeypatch.setitem(sys.modules, "pika", None)
    for call in (AmqpSource("q").open, AmqpSource("q").publisher):
        with pytest.raises(MissingExtra, match=r"patron\[amqp\]"):
            call()


def test_importing_the_source_imports_no_driver():
    code = "import sys, patron.sources.amqp, patron.clients.amqp; assert 'pika' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_letters_with_one_id_are_letters_of_their_own(world):
    world.fill(0)
    for number in range(3):
        world.publish(b"%d" % number, pika.BasicProperties(message_id="17"))
    with Letters(world.source(), world.name, patience=60.0) as letters:
        found = list(letters)  # which waits no longer than for all that are there
        assert [(letter.id, letter.message.body) for letter in found] == [
            ("17", b"0"),
            ("17~2", b"1"),
            ("17~3", b"2"),
        ]
        letters.remove(found[:1])
    until(lambda: world.depth() == 2, 10)


def test_publishing_where_nothing_is_says_what_to_do_or_makes_it(world):
    other = f"{world.name}.dlq"
    publisher = world.source(create=False).publisher()
    with pytest.raises(PublishFailed, match=f"{other}' is not there on RabbitMQ at .*create: true"):
        publisher.publish(other, b"replayed")
    publisher.close()
    publisher = world.source().publisher()
    publisher.publish(other, b"replayed")
    publisher.close()
    assert world.depth(other) == 1
