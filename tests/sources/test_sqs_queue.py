"""What the SQS source does beside the contract: leases, partial failures, wire format, limits, statistics."""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from brokers.moto_process import SqsServer
from brokers.processes import Server
from brokers.tcp_proxy import Proxy

from patron.consumer import Consumer
from patron.consumer.source import Message, Subscription
from patron.errors import ConfigError, ConnectionLost, NotASource, PublishFailed, SourceError, Stale
from patron.observe.metrics import exposition
from patron.sources.sqs import SqsSource
from patron.testing import driven, until

pytestmark = pytest.mark.broker


class World:
    """A queue of the test's own, and boto3 beside Patron."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.queue = f"patron-{uuid.uuid4().hex[:12]}"
        self.client = boto3.client("sqs", endpoint_url=url)

    def source(self, queue: str | None = None, **options: Any) -> SqsSource:
        defaults = {"endpoint_url": self.url, "create": True, "wait": 0.05, "receivers": 1}
        return SqsSource(queue or self.queue, **{**defaults, **options})

    @contextlib.contextmanager
    def opened(self, **options: Any) -> Iterator[Subscription]:
        subscription = self.source(**options).open()
        try:
            yield subscription
        finally:
            subscription.close()

    def publish(self, *bodies: bytes, queue: str | None = None, **options: Any) -> None:
        with contextlib.closing(self.source().publisher()) as publisher:
            for body in bodies:
                publisher.publish(queue or self.queue, body, **options)

    @property
    def address(self) -> str:
        return self.client.get_queue_url(QueueName=self.queue)["QueueUrl"]

    def bare(self) -> list[dict[str, Any]]:
        return self.client.receive_message(
            QueueUrl=self.address, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        ).get("Messages", [])

    def left(self) -> int:
        """How many messages are in the queue, those that are out included."""
        return sum(self._count(state) for state in ("", "Delayed", "NotVisible"))

    def out(self) -> int:
        """How many messages are out."""
        return self._count("NotVisible")

    def _count(self, state: str) -> int:
        name = f"ApproximateNumberOfMessages{state}"
        found = self.client.get_queue_attributes(QueueUrl=self.address, AttributeNames=[name])
        return int(found["Attributes"][name])


def receive(subscription: Subscription, count: int) -> list[Message]:
    received: list[Message] = []

    def enough() -> bool:
        received.extend(subscription.poll(count - len(received), 0.05))  # type: ignore[arg-type]
        return len(received) >= count

    until(enough, 20)
    return received


@pytest.fixture
def world(sqs: SqsServer) -> Iterator[World]:
    made = World(sqs.url)
    yield made
    made.client.close()


# On the wire


def test_plain_text_and_few_headers_are_what_any_program_reads(world: World) -> None:
    world.publish(b'{"id":1}', headers={"Content-Type": "application/json", "X-Mine": "1"})
    (raw,) = world.bare()
    assert raw["Body"] == '{"id":1}'
    assert {name: each["StringValue"] for name, each in raw["MessageAttributes"].items()} == {
        "Content-Type": "application/json",
        "X-Mine": "1",
    }


def test_what_another_program_sends_is_read(world: World) -> None:
    with world.opened() as subscription:
        attributes = {
            "x-flow-id": {"DataType": "String", "StringValue": "R1"},
            "count": {"DataType": "Number", "StringValue": "3"},
            "seal": {"DataType": "Binary", "BinaryValue": b"ab"},
        }
        before = time.time()
        world.client.send_message(QueueUrl=world.address, MessageBody="plain", MessageAttributes=attributes)
        (message,) = receive(subscription, 1)
        assert (message.body, message.headers, message.key) == (
            b"plain",
            {"x-flow-id": "R1", "count": "3", "seal": "YWI="},
            None,
        )
        assert message.raw["MessageId"] == message.id
        assert message.timestamp is not None
        assert abs(message.timestamp - before) < 60  # the attribute is in milliseconds
        subscription.ack([message])


def test_more_headers_than_attributes_arrive_all_the_same_and_the_users_own_stay_visible(
    world: World,
) -> None:
    headers = {f"x-patron-{number}": "v" for number in range(6)} | {
        f"h{number}": str(number) for number in range(8)
    }
    world.publish(b"x", headers=headers, key="k")
    with world.opened() as subscription:
        (message,) = receive(subscription, 1)
        assert (message.headers, message.key) == (headers, "k")
        subscription.nack([message])
    (raw,) = world.bare()
    assert len(raw["MessageAttributes"]) == 10
    assert {f"h{number}" for number in range(8)} < set(raw["MessageAttributes"])
    assert json.loads(raw["MessageAttributes"]["X-Patron-Headers"]["StringValue"])["X-Patron-Key"] == "k"


@pytest.mark.parametrize(
    ("body", "attributes"),
    [
        ("no base64!", {"X-Patron-Encoding": "base64"}),
        ("AAAA", {"X-Patron-Encoding": "zlib"}),
        ("x", {"X-Patron-Encoding": "rot13"}),
        ("x", {"X-Patron-Headers": "{broken"}),
        ("x", {"X-Patron-Headers": "[1]"}),
    ],
)
def test_broken_wrapping_is_a_message_all_the_same(
    world: World, body: str, attributes: dict[str, str]
) -> None:
    with world.opened() as subscription:
        given = {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}
        world.client.send_message(QueueUrl=world.address, MessageBody=body, MessageAttributes=given)
        (message,) = receive(subscription, 1)
        assert message.body == body.encode()
        subscription.ack([message])


def test_a_message_near_the_limit_can_become_a_dead_letter(world: World) -> None:
    body = b"0123456789abcdef" * 65536
    world.publish(body, headers={f"x-patron-{number}": "v" * 100 for number in range(9)})
    with world.opened() as subscription:
        (message,) = receive(subscription, 1)
        assert message.body == body
        subscription.ack([message])


def test_what_is_too_large_even_when_compressed_is_refused(world: World) -> None:
    import random

    with pytest.raises(PublishFailed, match="AWS takes 1048576"):
        world.publish(random.Random(1).randbytes(1_000_000))


def test_a_delay_beyond_what_sqs_has_is_refused(world: World) -> None:
    with pytest.raises(PublishFailed, match="not within 0 and 900"):
        world.publish(b"x", delay=901)
    with pytest.raises(PublishFailed, match="FIFO"):
        world.publish(b"x", delay=1, queue=f"{world.queue}.fifo")


def test_a_key_that_is_no_group_is_kept_and_orders(world: World) -> None:
    queue = f"{world.queue}.fifo"
    world.publish(b"1", b"2", key="käse", queue=queue)
    world.publish(b"3", key="brot", queue=queue)
    with world.opened(queue=queue) as subscription:
        messages = receive(subscription, 3)
        assert [(message.key, message.body) for message in messages] == [
            ("käse", b"1"),
            ("käse", b"2"),
            ("brot", b"3"),
        ]
        assert len({message.lane for message in messages}) == 2
        subscription.ack(messages)


def test_a_dot_in_a_topic_is_a_dash_in_the_queue(world: World) -> None:
    world.publish(b"x", queue=f"{world.queue}.dlq")
    with world.opened(queue=f"{world.queue}-dlq") as subscription:
        (message,) = receive(subscription, 1)
        subscription.ack([message])


# Leases


def test_a_lease_that_ended_is_stale_and_the_message_comes_again(world: World) -> None:
    world.publish(b"1")
    with world.opened(lease=1.0) as first, world.opened() as second:
        (message,) = receive(first, 1)
        (again,) = receive(second, 1)
        assert again.deliveries == 2
        until(lambda: all(lease.ends < time.monotonic() for lease in first._held.values()))
        with pytest.raises(Stale) as raised:
            first.ack([message])
        assert raised.value.messages == (message,)
        with contextlib.suppress(Stale):  # moto deletes by an old receipt handle, SQS may not
            second.ack([again])


def test_a_message_that_was_settled_is_stale_and_the_others_are_settled(world: World) -> None:
    world.publish(b"1", b"2")
    with world.opened() as subscription:
        one, two = receive(subscription, 2)
        subscription.ack([one])
        for act in (subscription.ack, subscription.nack, subscription.extend):
            with pytest.raises(Stale) as raised:
                act([one])
            assert raised.value.messages == (one,)
        with pytest.raises(Stale) as raised:
            subscription.ack([one, two])
        assert raised.value.messages == (one,)
        assert not subscription.poll(10, 0.3)
    assert world.left() == 0


def test_a_receipt_handle_that_sqs_does_not_know_is_stale_alone(world: World) -> None:
    world.publish(b"1", b"2")
    with world.opened() as subscription:
        one, two = receive(subscription, 2)
        world.client.purge_queue(QueueUrl=world.address)
        world.publish(b"3")
        (three,) = receive(subscription, 1)
        with pytest.raises(Stale) as raised:
            subscription.ack([one, two, three])
        assert set(map(id, raised.value.messages)) == {id(one), id(two)}
    assert world.left() == 0


def test_more_messages_than_a_request_takes_are_settled_extended_and_given_back(world: World) -> None:
    world.publish(*(str(number).encode() for number in range(25)))
    with world.opened(lease=2.0) as subscription:
        messages = {message.id: message for message in receive(subscription, 25)}
        assert len(messages) == 25
        began = time.monotonic()
        while time.monotonic() - began < 3:  # beyond the lease
            subscription.extend(list(messages.values()))
            assert not subscription.poll(10, 0.2)
        subscription.nack(list(messages.values()))
        subscription.ack(receive(subscription, 25))
    assert world.left() == 0


def test_what_waits_between_two_polls_is_extended_with_the_rest(world: World) -> None:
    world.publish(*(str(number).encode() for number in range(3)))
    with world.opened(lease=2.0, wait=1.0) as subscription:
        (first,) = receive(subscription, 1)
        subscription.poll(2, 0.0)  # asks for two more, and does not wait for them
        until(lambda: len(subscription._receivers.waiting()) == 2)
        began = time.monotonic()
        while time.monotonic() - began < 3:
            subscription.extend([first])
            time.sleep(0.1)
        others = subscription.poll(2, 0.0)
        assert {message.deliveries for message in others} == {1}
        subscription.ack([first, *others])
    assert world.left() == 0


def test_sqs_leaves_a_message_with_one_receiver_for_twelve_hours(world: World) -> None:
    world.publish(b"1")
    with world.opened() as subscription:
        (message,) = receive(subscription, 1)
        (lease,) = subscription._held.values()
        lease.received -= 43200 - 5
        lease.ends = lease.received
        subscription.extend([message])
        assert lease.ends - time.monotonic() < 5
        lease.received -= 5
        with pytest.raises(Stale):
            subscription.extend([message])


def test_a_processor_that_takes_longer_than_the_lease_processes_once(world: World) -> None:
    seen: list[int] = []

    def process(message: Message) -> None:
        seen.append(message.deliveries)
        until(lambda: time.monotonic() - began > 2.5)

    began = time.monotonic()
    world.publish(b"1")
    source = world.source(lease=1.0)
    with driven(Consumer("slow", source, process)) as live:
        until(lambda: seen)
        until(lambda: live.component.info()["held"] == 0)  # type: ignore[attr-defined]
    assert seen == [1]
    assert world.left() == 0


def test_a_group_waits_for_its_message_that_was_given_back_with_a_delay(world: World) -> None:
    queue = f"{world.queue}.fifo"
    world.publish(b"1", key="k", queue=queue)
    with world.opened(queue=queue) as subscription:
        messages = receive(subscription, 1)
        began = time.monotonic()
        subscription.nack(messages, 0.5)
        world.publish(b"2", key="k", queue=queue)
        (first,) = receive(subscription, 1)
        assert first.body == b"1"
        assert time.monotonic() - began >= 0.5
        subscription.ack([first])
        (second,) = receive(subscription, 1)
        subscription.ack([second])


# Failures


def test_a_call_that_failed_in_part_can_be_repeated(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQS answers each entry by itself: what it did is not asked for again, and is not stale either."""
    world.publish(*(str(number).encode() for number in range(4)))
    with world.opened() as subscription:
        messages = receive(subscription, 4)
        client = subscription._queues.client
        real = client.delete_message_batch
        asked: list[int] = []

        def in_part(QueueUrl: str, Entries: list[dict[str, str]]) -> dict[str, Any]:
            asked.append(len(Entries))
            if len(asked) > 3:
                return real(QueueUrl=QueueUrl, Entries=Entries)
            done = real(QueueUrl=QueueUrl, Entries=Entries[:1])
            failed = [
                {"Id": each["Id"], "Code": "InternalError", "Message": "busy", "SenderFault": False}
                for each in Entries[1:]
            ]
            return {**done, "Failed": failed}

        monkeypatch.setattr(client, "delete_message_batch", in_part)
        with pytest.raises(SourceError, match="InternalError: busy"):
            subscription.ack(messages)
        assert asked == [4, 3, 2]
        subscription.ack(messages)
        assert asked == [4, 3, 2, 1]
    assert world.left() == 0


def test_a_network_that_fails_for_a_moment_loses_nothing_that_is_held(
    sqs: SqsServer, proxy: Callable[[Server], Proxy], world: World
) -> None:
    through = proxy(sqs)
    world.publish(b"1")
    with world.opened(endpoint_url=through.url) as subscription:
        (message,) = receive(subscription, 1)
        through.refuse()
        with pytest.raises(SourceError) as raised:
            subscription.ack([message])
        assert not isinstance(raised.value, ConnectionLost)
        assert not subscription.poll(1, 0.5)
        through.accept()
        subscription.ack([message])
    assert world.left() == 0


def test_a_network_that_fails_for_long_is_a_lost_connection(
    sqs: SqsServer, proxy: Callable[[Server], Proxy], world: World
) -> None:
    through = proxy(sqs)
    world.publish(b"1")
    with world.opened(endpoint_url=through.url, lease=6.0) as subscription:
        receive(subscription, 1)
        through.refuse()
        began = time.monotonic()
        with pytest.raises(ConnectionLost):
            until(lambda: subscription.poll(1, 0.1))
        assert time.monotonic() - began >= 2.0


def test_an_idle_source_notices_at_once_that_sqs_is_gone(
    sqs: SqsServer, proxy: Callable[[Server], Proxy], world: World
) -> None:
    through = proxy(sqs)
    with world.opened(endpoint_url=through.url) as subscription:
        through.refuse()
        with pytest.raises(ConnectionLost):
            until(lambda: subscription.poll(1, 0.1))


def test_a_queue_that_is_not_there_is_named(world: World) -> None:
    with pytest.raises(NotASource, match=rf"{world.queue}.*create: true"):
        world.source(create=False).open()


def test_a_queue_that_goes_away_ends_the_consumer(world: World) -> None:
    seen: list[bytes] = []
    world.publish(b"1")
    with driven(
        Consumer(
            "orders",
            world.source(create=False),
            lambda message: seen.append(message.body),
            dead_letters="none",
            on_exhausted="exit",
        )
    ) as live:
        until(lambda: seen)
        world.client.delete_queue(QueueUrl=world.address)
        until(lambda: live.ended)
        assert isinstance(live.error, NotASource)


def test_nobody_there_is_a_lost_connection(world: World) -> None:
    with pytest.raises(ConnectionLost):
        world.source(endpoint_url="http://127.0.0.1:1").open()


def test_without_credentials_or_region_it_says_what_to_give(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(ConfigError, match="the setting `region`, or the variable AWS_DEFAULT_REGION"):
        world.source().open()
    with pytest.raises(NotASource, match="credentials"):
        world.source(region="eu-west-1").open()


@pytest.mark.parametrize(
    "text", ["", "localhost", "localhost:4566", "tcp://localhost:4566", "http://", "http://a:b"]
)
def test_an_endpoint_that_is_no_url_is_refused_with_its_value(text: str) -> None:
    with pytest.raises(ConfigError, match=f"endpoint_url '{text}' is no URL: give it with http://"):
        SqsSource("orders", endpoint_url=text)


def test_a_variable_that_is_no_url_is_a_mistake_of_the_configuration(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost")
    with pytest.raises(ConfigError, match="Invalid endpoint: localhost"):
        world.source(endpoint_url=None).open()


def test_botocore_does_not_tell_at_each_opening_where_the_credentials_were(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("botocore")
    before = logger.level
    logger.setLevel(logging.NOTSET)
    try:
        with caplog.at_level(logging.INFO), world.opened():
            pass
        assert [record for record in caplog.records if record.name.startswith("botocore")] == []
        logger.setLevel(logging.INFO)
        with world.opened():
            assert logger.level == logging.INFO, "a level that somebody has set stays"
    finally:
        logger.setLevel(before)


# Around it


def test_the_depth_is_known_and_shown_by_queue_and_state(world: World) -> None:
    world.publish(b"1", b"2", b"3")
    with world.opened() as subscription:
        receive(subscription, 1)
        until(lambda: subscription.stats().lag is not None)
        stats = subscription.stats()
        assert (stats.assigned, stats.lag) == (1, 2)
        assert stats.oldest_age is not None
        assert 0 <= stats.oldest_age < 60
    page = exposition()[0].decode()
    assert f'component_sqs_queue_size{{queue="{world.queue}",state="available"}} 2.0' in page
    assert f'component_sqs_queue_size{{queue="{world.queue}",state="invisible"}} 1.0' in page
    assert f'component_sqs_queue_size{{queue="{world.queue}",state="delayed"}} 0.0' in page


def test_letters_are_looked_at_in_any_order_and_the_rest_is_given_back(world: World) -> None:
    letters = f"{world.queue}.dlq"
    world.publish(*(str(number).encode() for number in range(5)), queue=letters)
    source = world.source()
    look = source.letters(letters)
    try:
        found = receive(look, 5)
        assert look.stats().lag == 5
        look.ack([message for message in found if message.body == b"3"])
        assert look.stats().lag == 4
    finally:
        look.close()
    look = source.letters(letters)
    try:
        assert sorted(message.body for message in receive(look, 4)) == [b"0", b"1", b"2", b"4"]
        assert not look.poll(10, 0.0)
    finally:
        look.close()


def test_a_queue_may_be_named_by_its_address(world: World) -> None:
    world.publish(b"1")
    source = world.source(queue=world.address, create=False)
    assert source.target == world.queue
    subscription = source.open()
    try:
        subscription.ack(receive(subscription, 1))
    finally:
        subscription.close()


def test_queues_are_made_with_the_attributes_that_are_asked_for(world: World) -> None:
    source = world.source(attributes={"DelaySeconds": "7"})
    source.prepare([f"{world.queue}.dlq"])
    asked = ["DelaySeconds", "MessageRetentionPeriod"]
    found = world.client.get_queue_attributes(QueueUrl=world.address, AttributeNames=asked)["Attributes"]
    assert found == {"DelaySeconds": "7", "MessageRetentionPeriod": "1209600"}
    assert world.client.get_queue_url(QueueName=f"{world.queue}-dlq")["QueueUrl"]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"queue": ""}, "queue is empty"),
        ({"queue": "x" * 81}, "80 characters"),
        ({"owner": "me"}, "12 digits"),
        ({"lease": 0.5}, "lease is 0.5 s"),
        ({"lease": 43201}, "lease is 43201 s"),
        ({"wait": 0}, "wait is 0 s"),
        ({"wait": 21}, "wait is 21 s"),
        ({"receivers": 0}, "receivers is 0"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        SqsSource(**{"queue": "orders", **settings})


def test_a_stop_waits_for_the_request_at_the_queue_and_gives_back_what_it_brings(world: World) -> None:
    subscription = world.source(wait=2.0).open()
    assert not subscription.poll(10, 0.3)  # leaves a request at the empty queue
    ended = threading.Event()

    def close() -> None:
        subscription.close()
        ended.set()

    closing = threading.Thread(target=close, name="closing")
    closing.start()
    world.publish(b"1")
    closing.join()
    assert ended.is_set()
    (raw,) = world.bare()
    assert raw["Body"] == "1"


def test_no_more_is_taken_from_the_queue_than_was_asked_for(world: World) -> None:
    world.publish(*(str(number).encode() for number in range(12)))
    with world.opened(receivers=3) as subscription:
        messages = [message for _ in range(3) for message in receive(subscription, 1)]
        assert world.out() == 3
        subscription.poll(5, 0.0)  # asks for five more, and does not wait for them
        until(lambda: len(subscription._receivers.waiting()) == 5)
        messages += (two := subscription.poll(2, 0.0))
        assert len(two) == 2
        assert world.out() == 8
        messages += receive(subscription, 3)
        subscription.ack(messages)
    assert world.left() == 4


def test_several_requests_at_once_bring_everything(world: World) -> None:
    world.publish(*(str(number).encode() for number in range(40)))
    with world.opened(receivers=4) as subscription:
        bodies: set[bytes] = set()

        def all_there() -> bool:
            received = subscription.poll(40, 0.05)
            bodies.update(message.body for message in received)  # moto may give one to two requests
            if received:
                subscription.ack(received)
            return len(bodies) == 40

        until(all_there, 20)
        assert len(subscription._receivers._threads) > 1
    assert world.left() == 0


def test_a_network_that_swallows_everything_holds_up_neither_the_owner_nor_the_end_for_long(
    sqs: SqsServer, proxy: Callable[[Server], Proxy], world: World
) -> None:
    through = proxy(sqs)
    world.publish(b"1")
    subscription = world.source(endpoint_url=through.url, wait=1.0).open()
    receive(subscription, 1)
    subscription.poll(1, 0.1)
    through.hole()
    began = time.monotonic()
    assert not subscription.poll(1, 0.2)
    subscription.stats()
    subscription.close()
    assert time.monotonic() - began < 5
    through.refuse()  # lets the requests end that are left
    through.heal()
    until(lambda: not [each for each in threading.enumerate() if world.queue in each.name], 20)


def test_the_module_of_the_settings_imports_no_driver() -> None:
    code = "import sys, patron.sources.sqs, patron.clients.sqs, patron.clients.sns; print('boto' in str(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
