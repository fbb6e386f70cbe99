"""The publisher to RabbitMQ, against the real broker."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pika
import pytest
from brokers.processes import Unavailable
from brokers.rabbitmq_server import RabbitMQ, RabbitMQServer
from brokers.requirements import missing

from patron import correlation
from patron.clients.amqp import METRICS, AmqpPublisher
from patron.errors import ConfigError, DeadlineExceeded, EncodeError, PublishFailed
from patron.observe import capture
from patron.reliability.deadline import deadline
from patron.testing.until import until

pytestmark = pytest.mark.broker


class World:
    """A queue and an exchange of the test's own, read with the bare driver."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = f"patron-{uuid.uuid4().hex[:12]}"
        self.connection = pika.BlockingConnection(pika.URLParameters(url))
        self.channel = self.connection.channel()
        self.channel.queue_declare(self.name)
        self.channel.exchange_declare(self.name, "topic")
        self.channel.queue_bind(self.name, self.name, "orders.#")

    def read(self) -> tuple[Any, Any, bytes]:
        found = self.channel.basic_get(self.name, auto_ack=True)
        assert found[0] is not None, "the queue is empty"
        return found

    def depth(self) -> int:
        return self.channel.queue_declare(self.name, passive=True).method.message_count

    def close(self) -> None:
        self.channel.queue_delete(self.name)
        self.channel.exchange_delete(self.name)
        self.connection.close()


@pytest.fixture
def world(rabbitmq: RabbitMQServer) -> Iterator[World]:
    world = World(rabbitmq.url)
    yield world
    world.close()


@pytest.fixture
def publisher(world: World) -> Iterator[AmqpPublisher]:
    with AmqpPublisher(world.url) as publisher:
        yield publisher


def test_a_confirmed_message_is_there_with_its_id_and_persistent(world, publisher):
    identifier = publisher.publish(world.name, "orders.created", {"id": 7}, {"tenant": "t1"})
    method, properties, body = world.read()
    assert (method.routing_key, body) == ("orders.created", b'{"id":7}')
    assert properties.message_id == identifier
    assert properties.delivery_mode == 2
    assert properties.headers["tenant"] == "t1"
    assert abs(properties.timestamp - time.time()) < 60


def test_the_wire_is_that_of_the_go_original(world, publisher):
    with correlation.use("order-17"):
        publisher.publish("", world.name, {})
    _, properties, _ = world.read()
    assert properties.content_type == "application/json"
    assert properties.headers["X-Correlation-Id"] == "order-17"
    assert properties.headers["uber-trace-id"].count(":") == 3
    assert "Content-Type" not in properties.headers


def test_bytes_go_as_they_are_with_the_type_that_is_said(world, publisher):
    publisher.publish("", world.name, b"\xff\x00", content_type="image/png")
    _, properties, body = world.read()
    assert (body, properties.content_type) == (b"\xff\x00", "image/png")


def test_key_and_further_properties_travel_along(world, publisher):
    publisher.publish("", world.name, {}, key="c1", properties={"priority": 3, "message_id": "mine"})
    _, properties, _ = world.read()
    assert properties.headers["X-Patron-Key"] == "c1"
    assert (properties.priority, properties.message_id) == (3, "mine")


def test_what_no_queue_takes_is_a_failure_unless_nobody_need_listen(world, publisher):
    with pytest.raises(PublishFailed, match="no queue takes messages to exchange"):
        publisher.publish(world.name, "nobody", {})
    assert publisher.publish(world.name, "nobody", {}, mandatory=False)


def test_an_exchange_that_is_missing_fails_its_own_messages_only(world, publisher):
    publisher.publish("", world.name, {})
    with pytest.raises(PublishFailed, match="404 NOT_FOUND"):
        publisher.publish("nowhere", "x", {})
    waiting = [publisher.publish_async("", world.name, number) for number in range(100)]
    with pytest.raises(PublishFailed, match="404 NOT_FOUND"):
        publisher.publish("nowhere", "x", {})
    assert all(each.result(10) for each in waiting)


def test_a_full_queue_refuses(world, publisher):
    queue = f"{world.name}.full"
    world.channel.queue_declare(queue, arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
    with pytest.raises(PublishFailed, match="refused"):
        publisher.publish("", queue, {})
    world.channel.queue_delete(queue)


def test_what_cannot_be_written_or_sent_is_said_and_the_next_one_goes(world, publisher):
    with pytest.raises(EncodeError):
        publisher.publish("", world.name, object())
    with pytest.raises(PublishFailed, match="cannot be sent by AMQP"):
        publisher.publish("", "k" * 300, {})
    with pytest.raises(PublishFailed, match="cannot be sent by AMQP"):
        publisher.publish("", world.name, {}, properties={"colour": "red"})
    assert publisher.publish("", world.name, {})


def test_each_is_counted_and_timed_with_its_exchange(world, publisher):
    with capture() as seen:
        publisher.publish(world.name, "orders.created", {})
        with pytest.raises(PublishFailed):
            publisher.publish(world.name, "nobody", {})
    operations = [each for each in seen.operations if each.kind == "producer"]
    assert [each.name for each in operations] == [f"amqp-publisher {world.name}"] * 2
    assert [each.outcome for each in operations] == ["true", "false"]
    assert METRICS[0].name == "client_amqp_publish_duration_seconds"
    assert METRICS[0].labels == ("exchange", "success")


def test_many_threads_share_one_connection_and_lose_nothing(world, rabbitmq, proxy):
    through = proxy(rabbitmq)
    ids: list[str] = []
    with AmqpPublisher(through.url) as publisher:

        def work(thread: int) -> None:
            ids.extend(publisher.publish("", world.name, [thread, number]) for number in range(50))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert through.connections == 1
    assert len(set(ids)) == 400
    until(lambda: world.depth() == 400, 10)


def test_one_thread_s_messages_keep_their_order(world, publisher):
    futures = [publisher.publish_async("", world.name, number) for number in range(200)]
    publisher.flush()
    assert all(each.done() for each in futures)
    assert [int(world.read()[2]) for _ in range(200)] == list(range(200))


def test_callbacks_run_with_the_correlation_of_the_sender(world, publisher):
    seen: list[str | None] = []

    def note(future: Future[str]) -> None:
        seen.append(correlation.current())

    with correlation.use("order-17"):
        publisher.publish_async("", world.name, {}).add_done_callback(note)
    until(lambda: seen, 10)
    assert seen == ["order-17"]


def test_a_lost_connection_is_made_again_and_what_was_not_sent_waits_for_it(world, rabbitmq, proxy):
    through = proxy(rabbitmq)
    with AmqpPublisher(through.url) as publisher:
        publisher.publish("", world.name, 1)
        through.refuse()
        future = publisher.publish_async("", world.name, 2)
        until(lambda: not through.connections, 10)
        through.accept()
        error = future.exception(10)
        assert error is None or "may be there" in str(error)  # it was sent before the publisher noticed
        assert publisher.publish("", world.name, 3)


def test_no_broker_is_a_failure_within_the_time(rabbitmq, proxy):
    through = proxy(rabbitmq)
    through.refuse()
    publisher = AmqpPublisher(through.url, timeout=0.5)
    with publisher, pytest.raises(PublishFailed, match="not sent in time: RabbitMQ at"):
        publisher.publish("", "anything", {})


def test_a_broker_that_says_nothing_is_a_failure_within_the_time(world, rabbitmq, proxy):
    through = proxy(rabbitmq)
    with AmqpPublisher(through.url) as publisher:
        publisher.publish("", world.name, {})
        publisher.timeout = 0.5
        through.hole()
        with pytest.raises(PublishFailed, match="not confirmed in time"):
            publisher.publish("", world.name, {})
        through.heal()
        until(lambda: _works(publisher, world.name), 10)


def _works(publisher: AmqpPublisher, queue: str) -> bool:
    try:
        return bool(publisher.publish("", queue, {}))
    except PublishFailed:
        return False


def test_wrong_password_is_said_and_the_password_is_not(world):
    url = world.url.replace("guest:guest", "guest:hunter2")
    with AmqpPublisher(url, timeout=2.0) as publisher:
        with pytest.raises(PublishFailed, match="ACCESS_REFUSED") as caught:
            publisher.publish("", world.name, {})
        assert "hunter2" not in str(caught.value) + repr(publisher)


def test_heartbeats_go_on_while_nothing_is_published(world, rabbitmq, proxy):
    through = proxy(rabbitmq)
    with AmqpPublisher(through.url, heartbeat=1) as publisher:
        publisher.publish("", world.name, {})
        idle = time.monotonic() + 3.5
        until(lambda: time.monotonic() > idle, 10)
        assert through.connections == 1
        publisher.publish("", world.name, {})


def test_a_call_that_finds_no_room_fails_in_time(world, rabbitmq, proxy):
    through = proxy(rabbitmq)
    with AmqpPublisher(through.url, max_unconfirmed=2) as publisher:
        publisher.publish("", world.name, {})
        publisher.timeout = 0.5
        through.hole()
        futures = [publisher.publish_async("", world.name, {}) for _ in range(2)]
        with deadline(0.1), pytest.raises(PublishFailed, match="2 messages wait"):
            publisher.publish("", world.name, {})
        assert all(each.exception(10) for each in futures)
        through.heal()


def test_the_deadline_of_the_work_at_hand_counts(world, publisher):
    with deadline(0), pytest.raises(DeadlineExceeded):
        publisher.publish("", world.name, {})
    assert world.depth() == 0


def test_close_waits_for_confirms_and_refuses_what_comes_later(world):
    publisher = AmqpPublisher(world.url)
    futures = [publisher.publish_async("", world.name, number) for number in range(50)]
    publisher.close()
    publisher.close()
    assert all(each.result(0) for each in futures)
    with pytest.raises(PublishFailed, match="is closed"):
        publisher.publish("", world.name, {})


@pytest.mark.parametrize("connected", [True, False])
def test_closing_is_quick_also_when_the_broker_says_nothing(world, rabbitmq, proxy, connected):
    through = proxy(rabbitmq)
    publisher = AmqpPublisher(through.url)
    if connected:
        publisher.publish("", world.name, {})
    publisher.timeout = 0.3
    through.hole()
    publisher.publish_async("", world.name, {})
    closing = threading.Thread(target=publisher.close)
    closing.start()
    closing.join(5)
    assert not closing.is_alive()
    gc.collect()  # a socket that nobody closed would say so
    through.heal()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_a_connection_of_its_own(world, publisher):
    publisher.publish("", world.name, "parent")
    child = os.fork()
    if child == 0:
        publisher.publish("", world.name, "child")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    publisher.publish("", world.name, "parent")
    until(lambda: world.depth() == 3, 10)


def test_blocked_publishers_are_told_so_and_a_restarted_broker_is_found_again(tmp_path: Path) -> None:
    with started(tmp_path, "vm_memory_high_watermark.absolute = 1MB") as broker:
        connection = pika.BlockingConnection(pika.URLParameters(broker.url))
        connection.channel().queue_declare("q", durable=True)
        connection.close()
        with AmqpPublisher(broker.url, timeout=1.0) as publisher:
            with pytest.raises(PublishFailed, match="not confirmed in time and may be there"):
                publisher.publish("", "q", 1)
            with pytest.raises(
                PublishFailed, match="not sent in time: RabbitMQ blocks publishers: low on memory"
            ):
                publisher.publish("", "q", 2)
            broker.kill()
            configure(broker, "")
            broker.start()
            until(lambda: _works(publisher, "q"), 20)


@contextlib.contextmanager
def started(folder: Path, line: str) -> Iterator[RabbitMQ]:
    """A broker with *line* in its configuration."""
    try:
        broker = RabbitMQ(folder)
    except Unavailable as reason:
        missing("rabbitmq", str(reason))
    configure(broker, line)
    try:
        broker.start()
        yield broker
    finally:
        broker.close()


def configure(broker: RabbitMQ, line: str) -> None:
    (broker.folder / "rabbitmq.conf").write_text(f"disk_free_limit.absolute = 50MB\n{line}\n")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "http://localhost"}, "url is none of RabbitMQ"),
        ({"timeout": 0}, "timeout"),
        ({"max_unconfirmed": 0}, "max_unconfirmed 0"),
        ({"heartbeat": -1}, "heartbeat -1"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AmqpPublisher(**settings)


def test_headers_larger_than_a_frame_fail_their_message_and_no_other(world, publisher):
    before = [publisher.publish_async(world.name, "orders.a", number) for number in range(50)]
    large = publisher.publish_async(world.name, "orders.a", 1, {"large": "x" * 200_000})
    after = [publisher.publish_async(world.name, "orders.a", number) for number in range(50)]
    assert [each.exception(10) for each in before + after] == [None] * 100
    with pytest.raises(PublishFailed, match=r"headers and properties have 20\d+ bytes"):
        large.result(10)
    publisher.publish(world.name, "orders.a", 1, {"large": "x" * 129_000})
