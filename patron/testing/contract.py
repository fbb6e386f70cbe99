"""
What every source must do: a suite that a source inherits, alone and with the engine on top.

::

    class TestNats(SourceContract):
        def source(self) -> Source:
            return NatsSource(self.topic, servers=["localhost:4222"])

``self.topic`` is a new name in each test and ``self.tmp_path`` a directory of its own; `source` may be
called often in one test and must mean the same topic. The class attributes and the hooks below say
what a broker cannot do; a test that it therefore cannot pass is skipped, and says so.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from patron import correlation
from patron.consumer.consumer import Consumer
from patron.consumer.settings import Batch
from patron.consumer.source import Message, Publisher, Revoked, Source, Subscription
from patron.errors import PublishFailed, Reject, Skip
from patron.reliability.retry import RetryPolicy
from patron.testing.driving import Driven, driven
from patron.testing.until import until

__all__ = ["SourceContract", "UnreliablePublisher"]

#: Short waits, for tests that want failures to be over soon.
QUICK = RetryPolicy(attempts=3, initial=0.01, cap=0.02)

BODIES = {
    "text": b"hello",
    "empty": b"",
    "every byte": bytes(range(256)),
    "1 MiB": b"0123456789abcdef" * 65536,
}


class UnreliablePublisher:
    """A source whose publisher refuses the first *failures* messages; all else is the source's own."""

    def __init__(self, source: Source, failures: int) -> None:
        self._source = source
        self._left = itertools.repeat(True, failures)
        self.refused = 0
        self.system = source.system
        self.positional = source.positional
        self.target = source.target
        if hasattr(source, "lease"):
            self.lease = source.lease

    def open(self) -> Subscription:
        """The source's own subscription."""
        return self._source.open()

    def publisher(self) -> Publisher:
        """A publisher that refuses at first."""
        return _Refusing(self, self._source.publisher())

    def refuses(self) -> bool:
        """Whether the next message is refused."""
        refused = next(self._left, False)
        self.refused += refused
        return refused


class _Refusing:
    def __init__(self, owner: UnreliablePublisher, publisher: Publisher) -> None:
        self._owner = owner
        self._publisher = publisher

    def publish(self, topic: str, body: bytes, **options: Any) -> str:
        if self._owner.refuses():
            raise PublishFailed("refused by the test")
        return self._publisher.publish(topic, body, **options)

    def close(self) -> None:
        self._publisher.close()


class SourceContract:
    """Inherit it, write `source`, and say what the broker cannot do."""

    orders_keys: bool = True
    """Messages with the same key share a lane, so they keep their order."""

    counts_deliveries: bool = True
    """``Message.deliveries`` grows with each delivery, also to another connection."""

    delays: bool = True
    """A nack with a delay keeps the message away that long, and so does a publish."""

    patience: float = 10.0
    """Seconds that a message may take to arrive."""

    quiet: float = 0.3
    """Seconds after which a message that did not arrive is taken not to come."""

    topic: str
    tmp_path: Path

    # What a source's suite writes

    def source(self) -> Source:
        """The source under test, which reads ``self.topic``."""
        raise NotImplementedError("write source()")

    def dead_letters(self, topic: str) -> Source:
        """The same kind of source, for *topic*; the default replaces the field ``topic``."""
        return dataclasses.replace(self.source(), topic=topic)  # type: ignore[type-var]

    def short_lease(self, seconds: float) -> Source | None:
        """The source with leases of *seconds*; None when it has none to set."""
        source = self.source()
        return dataclasses.replace(source, lease=seconds) if hasattr(source, "lease") else None  # type: ignore[type-var]

    def crash(self, subscription: Subscription) -> None:
        """Let *subscription* end as if its process had been killed. Default: close it."""
        subscription.close()

    def lose(self) -> bool:
        """Break every connection; returns False when the suite cannot do that."""
        return False

    # Help for the tests

    @pytest.fixture(autouse=True)
    def _world(self, tmp_path: Path) -> None:
        self.topic = f"patron-{uuid.uuid4().hex[:12]}"
        self.tmp_path = tmp_path

    def publish(self, *bodies: bytes | str, key: str | None = None, **options: Any) -> list[str]:
        """Publish *bodies* to the topic; returns their ids."""
        with contextlib.closing(self.source().publisher()) as publisher:
            encoded = (body.encode() if isinstance(body, str) else body for body in bodies)
            return [publisher.publish(self.topic, body, key=key, **options) for body in encoded]

    @contextlib.contextmanager
    def opened(self, source: Source | None = None) -> Iterator[Subscription]:
        """An open subscription, closed at the end of the block."""
        subscription = (source or self.source()).open()
        try:
            yield subscription
        finally:
            subscription.close()

    def receive(self, subscription: Subscription, count: int, limit: int = 100) -> list[Message]:
        """*count* messages, not necessarily from one poll."""
        received: list[Message] = []
        end = time.monotonic() + self.patience
        while len(received) < count:
            assert time.monotonic() < end, (
                f"received {len(received)} of {count} messages in {self.patience} s"
            )
            received += _messages(subscription.poll(min(limit, count - len(received)), 0.1))
        return received

    def nothing_comes(self, subscription: Subscription, seconds: float | None = None) -> bool:
        """Whether nothing arrives for a while."""
        end = time.monotonic() + (self.quiet if seconds is None else seconds)
        while time.monotonic() < end:
            if _messages(subscription.poll(10, 0.05)):
                return False
        return True

    def all_settled(self, topic: str | None = None) -> bool:
        """Whether nothing is left for a new reader of the topic."""
        with self.opened(self.dead_letters(topic) if topic else None) as subscription:
            return self.nothing_comes(subscription)

    def read_dead_letters(self, count: int, topic: str = "test.dlq") -> list[Message]:
        """*count* dead letters of the consumer that `consumer` makes."""
        with self.opened(self.dead_letters(topic)) as subscription:
            messages = self.receive(subscription, count)
            subscription.ack(messages)
            return messages

    def consumer(
        self, processor: Callable[..., Any], source: Source | None = None, **settings: Any
    ) -> Consumer:
        """A consumer of the source that tries three times, with short waits."""
        settings.setdefault("retry", QUICK)
        return Consumer("test", source or self.source(), processor, **settings)

    # The source alone

    @pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
    def test_a_body_arrives_as_it_was_sent(self, body: bytes) -> None:
        self.publish(body)
        with self.opened() as subscription:
            (message,) = self.receive(subscription, 1)
            assert message.body == body
            subscription.ack([message])

    def test_headers_key_and_topic_arrive_as_they_were_sent(self) -> None:
        headers = {"content-type": "application/json", "X-Name": "Zoë ☃ 猫", "empty": ""}
        self.publish(b"{}", key="käse", headers=headers)
        with self.opened() as subscription:
            (message,) = self.receive(subscription, 1)
            assert {name: message.headers[name] for name in headers} == headers
            assert message.key == "käse"
            assert message.topic == self.topic
            assert message.id
            subscription.ack([message])

    def test_what_is_published_inside_an_operation_carries_its_correlation_id(self) -> None:
        name = correlation.settings().header
        with correlation.use("order-17"):
            self.publish(b"added", headers={"a": "b"})
            self.publish(b"kept", headers={name.upper(): "its-own"})
        self.publish(b"outside")
        with self.opened() as subscription:
            messages = self.receive(subscription, 3)
            found = {m.body: [v for k, v in m.headers.items() if k.lower() == name.lower()] for m in messages}
            assert found == {b"added": ["order-17"], b"kept": ["its-own"], b"outside": []}
            subscription.ack(messages)

    def test_a_time_stamp_is_the_time_of_publishing_or_unknown(self) -> None:
        self.publish(b"1")
        with self.opened() as subscription:
            (message,) = self.receive(subscription, 1)
            assert message.timestamp is None or message.timestamp > 1_000_000_000
            subscription.ack([message])

    def test_a_confirmed_message_is_there_and_has_an_id_of_its_own(self) -> None:
        ids = self.publish(b"1", b"2", b"3")
        assert len(set(ids)) == 3
        with self.opened() as subscription:
            messages = self.receive(subscription, 3)
            assert sorted(message.body for message in messages) == [b"1", b"2", b"3"]
            subscription.ack(messages)

    def test_order_holds_within_a_key(self) -> None:
        if not self.orders_keys:
            pytest.skip("this broker keeps no order by key")
        for number in range(30):
            self.publish(str(number), key=f"k{number % 3}")
        by_key: dict[str | None, list[int]] = defaultdict(list)
        lanes: dict[str | None, set[Any]] = defaultdict(set)
        with self.opened() as subscription:
            for _ in range(30):
                (message,) = self.receive(subscription, 1)
                by_key[message.key].append(int(message.body))
                lanes[message.key].add(message.lane)
                subscription.ack([message])
        assert all(numbers == sorted(numbers) for numbers in by_key.values())
        assert all(len(lane) == 1 and None not in lane for lane in lanes.values())

    def test_positions_grow_within_a_lane(self) -> None:
        if not self.source().positional:
            pytest.skip("this source has no positions")
        self.publish(*map(str, range(5)), key="k")
        with self.opened() as subscription:
            positions = [message.position for message in self.receive(subscription, 5)]
            assert None not in positions
            assert positions == sorted(set(positions))  # type: ignore[type-var]

    def test_never_more_than_the_limit(self) -> None:
        self.publish(*map(str, range(10)))
        with self.opened() as subscription:
            seen = 0
            while seen < 10:
                messages = self.receive(subscription, 1, limit=3)
                more = _messages(subscription.poll(2, 0.1))
                assert len(more) <= 2
                subscription.ack([*messages, *more])
                seen += len(messages) + len(more)

    def test_what_is_acknowledged_does_not_come_again(self) -> None:
        self.publish(b"1", b"2")
        with self.opened() as subscription:
            subscription.ack(self.receive(subscription, 2))
            assert self.nothing_comes(subscription)
        assert self.all_settled()

    def test_what_is_given_back_comes_again(self) -> None:
        self.publish(b"1")
        with self.opened() as subscription:
            (first,) = self.receive(subscription, 1)
            subscription.nack([first])
            (again,) = self.receive(subscription, 1)
            assert again.body == b"1"
            assert again.deliveries == 2 or not self.counts_deliveries
            subscription.ack([again])
        assert self.all_settled()

    def test_what_is_given_back_keeps_its_place(self) -> None:
        if not self.orders_keys:
            pytest.skip("this broker keeps no order by key")
        self.publish(*map(str, range(4)), key="k")
        with self.opened() as subscription:
            messages = self.receive(subscription, 4)
            subscription.ack(messages[:1])
            subscription.nack(messages[1:])
            again = []
            for _ in range(3):
                (message,) = self.receive(subscription, 1)
                again.append(int(message.body))
                subscription.ack([message])
            assert again == [1, 2, 3]

    def test_what_never_started_counts_no_delivery(self) -> None:
        if not self.counts_deliveries:
            pytest.skip("this broker does not count deliveries")
        self.publish(b"1")
        with self.opened() as subscription:
            for _ in range(3):
                (message,) = self.receive(subscription, 1)
                message.deliveries -= 1
                subscription.nack([message])
            (message,) = self.receive(subscription, 1)
            assert message.deliveries == 1
            subscription.ack([message])

    def test_a_delay_keeps_a_message_away(self) -> None:
        if not self.delays:
            pytest.skip("this broker has no delays")
        self.publish(b"1")
        with self.opened() as subscription:
            (message,) = self.receive(subscription, 1)
            given_back = time.monotonic()
            subscription.nack([message], 0.5)
            assert self.nothing_comes(subscription, 0.3)
            subscription.ack(self.receive(subscription, 1))
            assert time.monotonic() - given_back >= 0.5

    def test_a_message_can_be_published_for_later(self) -> None:
        if not self.delays:
            pytest.skip("this broker has no delays")
        published = time.monotonic()
        self.publish(b"1", delay=0.5)
        with self.opened() as subscription:
            assert self.nothing_comes(subscription, 0.2)
            subscription.ack(self.receive(subscription, 1))
            assert time.monotonic() - published >= 0.5

    def test_closing_gives_back_what_was_not_settled(self) -> None:
        self.publish(b"1", b"2")
        with self.opened() as subscription:
            messages = self.receive(subscription, 2)
            kept = messages[0] if not self.source().positional else None
            if kept is not None:
                subscription.ack([kept])
        with self.opened() as subscription:
            expected = 2 if kept is None else 1
            again = self.receive(subscription, expected)
            assert all(message.deliveries == 2 for message in again) or not self.counts_deliveries
            subscription.ack(again)
        assert self.all_settled()

    def test_a_crash_loses_nothing(self) -> None:
        self.publish(b"1", b"2", b"3")
        subscription = self.source().open()
        self.receive(subscription, 3)
        self.crash(subscription)
        with self.opened() as after:
            again = self.receive(after, 3)
            assert sorted(message.body for message in again) == [b"1", b"2", b"3"]
            after.ack(again)
        with contextlib.suppress(Exception):
            subscription.close()

    def test_polling_for_nothing_fetches_nothing(self) -> None:
        self.publish(b"1")
        with self.opened() as subscription:
            assert _messages(subscription.poll(0, 0.05)) == []
            (message,) = self.receive(subscription, 1)
            assert _messages(subscription.poll(0, 0.0)) == []
            assert message.deliveries == 1 or not self.counts_deliveries
            subscription.ack([message])

    def test_an_idle_source_keeps_its_connection(self) -> None:
        with self.opened() as subscription:
            for _ in range(5):
                assert _messages(subscription.poll(10, 0.1)) == []
                assert _messages(subscription.poll(0, 0.0)) == []
            self.publish(b"1")
            subscription.ack(self.receive(subscription, 1))

    def test_a_poll_waits_for_a_message_and_not_longer(self) -> None:
        with self.opened() as subscription:
            subscription.poll(1, 0.05)
            late = threading.Timer(0.2, self.publish, (b"1",))
            late.start()
            messages = self.receive(subscription, 1)
            late.join()
            assert messages[0].body == b"1"
            subscription.ack(messages)

    def test_waking_ends_a_poll(self) -> None:
        with self.opened() as subscription:
            wake = getattr(subscription, "wake", None)
            if wake is None:
                pytest.skip("this source cannot be woken")
            subscription.poll(1, 0.05)
            wake()
            began = time.monotonic()
            assert _messages(subscription.poll(1, 30.0)) == []
            threading.Timer(0.05, wake).start()
            assert _messages(subscription.poll(1, 30.0)) == []
            assert time.monotonic() - began < 20

    def test_an_extended_lease_lasts(self) -> None:
        source = self.short_lease(1.0)
        if source is None:
            pytest.skip("this source has no leases")
        self.publish(b"1")
        with self.opened(source) as holder, self.opened(source) as other:
            (message,) = self.receive(holder, 1)
            for _ in range(8):
                holder.extend([message])
                assert self.nothing_comes(other, 0.25)
            holder.ack([message])
        assert self.all_settled()

    def test_a_backlog_can_be_looked_at(self) -> None:
        self.publish(b"1", b"2")
        with self.opened() as subscription:
            until(lambda: (subscription.poll(0, 0.05), subscription.stats().assigned)[1], self.patience)
            stats = subscription.stats()
            assert stats.lag is None or stats.lag >= 0
            assert stats.oldest_age is None or stats.oldest_age >= 0
            subscription.ack(self.receive(subscription, 2))

    def test_closing_twice_is_no_mistake(self) -> None:
        subscription = self.source().open()
        subscription.close()
        subscription.close()
        publisher = self.source().publisher()
        publisher.close()
        publisher.close()

    def test_the_settings_name_system_and_target(self) -> None:
        source = self.source()
        assert isinstance(source, Source)
        assert source.system
        assert self.topic in source.target

    # The engine on top

    def test_many_workers_keep_the_order_of_every_key(self) -> None:
        if not self.orders_keys:
            pytest.skip("this broker keeps no order by key")
        seen: dict[str | None, list[int]] = defaultdict(list)
        busy: dict[str | None, int] = defaultdict(int)
        together: list[str | None] = []

        def process(message: Message) -> None:
            busy[message.key] += 1
            if busy[message.key] > 1:
                together.append(message.key)
            time.sleep(0.001)
            seen[message.key].append(int(message.body))
            busy[message.key] -= 1

        with contextlib.closing(self.source().publisher()) as publisher:
            for number in range(200):
                publisher.publish(self.topic, str(number).encode(), key=f"k{number % 8}")
        with driven(self.consumer(process, workers=8)):
            until(lambda: sum(map(len, seen.values())) >= 200, self.patience)
        assert together == []
        assert all(numbers == sorted(numbers) for numbers in seen.values())
        assert sorted(itertools.chain(*seen.values())) == list(range(200))
        assert self.all_settled()

    def test_messages_without_order_are_processed_together(self) -> None:
        meeting = threading.Barrier(4)
        done: list[bytes] = []

        def process(message: Message) -> None:
            meeting.wait(self.patience)
            done.append(message.body)

        self.publish(*map(str, range(4)))
        with driven(self.consumer(process, workers=4, order="none")):
            until(lambda: len(done) == 4, self.patience)
        assert self.all_settled()

    def test_a_failure_is_tried_again_in_its_place(self) -> None:
        attempts: list[tuple[bytes, int]] = []

        def process(message: Message) -> None:
            attempts.append((message.body, message.attempts))
            if message.body == b"1" and message.attempts < 2:
                raise RuntimeError("not yet")

        self.publish(b"0", b"1", b"2", key="k")
        with driven(self.consumer(process, workers=3)):
            until(lambda: (b"2", 0) in attempts and (b"1", 2) in attempts, self.patience)
        if self.orders_keys:
            assert attempts == [(b"0", 0), (b"1", 0), (b"1", 1), (b"1", 2), (b"2", 0)]
        assert self.all_settled()

    def test_what_fails_every_time_is_a_dead_letter_with_its_reason(self) -> None:
        tries: list[int] = []

        def process(message: Message) -> None:
            tries.append(1)
            raise ValueError("no such customer")

        headers = {"content-type": "text/plain", "X-Correlation-Id": "c-1", "x-mine": "☃"}
        self.publish(b"poison", key="k", headers=headers)
        with driven(self.consumer(process)):
            (letter,) = self.read_dead_letters(1)
        assert len(tries) == 3
        assert letter.body == b"poison"
        assert letter.key == "k"
        about = {name.lower(): value for name, value in letter.headers.items()}
        assert about["x-patron-reason"] == "ValueError: no such customer"
        assert about["x-patron-error"] == "ValueError"
        assert about["x-patron-attempts"] == "3"
        assert about["x-patron-deliveries"] == "1" or not self.counts_deliveries
        assert about["x-patron-topic"] == self.topic
        assert about["x-patron-first-failure"].endswith("Z")
        assert about["content-type"] == "text/plain"
        assert about["x-correlation-id"] == "c-1"
        assert about["x-mine"] == "☃"
        assert self.all_settled()

    def test_undecodable_and_rejected_messages_are_dead_letters_at_once(self) -> None:
        tries: dict[bytes, int] = defaultdict(int)

        def process(message: Message) -> None:
            tries[message.body] += 1
            if message.body == b"rejected":
                raise Reject("not for us")
            message.decode()

        self.publish(b"{broken", b"rejected", b"1", headers={"content-type": "application/json"})
        self.publish(b"unknown", headers={"content-type": "application/x-unheard-of"})
        with driven(self.consumer(process)):
            letters = self.read_dead_letters(3)
            until(lambda: tries[b"1"], self.patience)
        reasons = {letter.body: _header(letter.headers, "x-patron-reason") for letter in letters}
        assert set(reasons) == {b"{broken", b"rejected", b"unknown"}
        assert reasons[b"rejected"] == "not for us"
        assert reasons[b"{broken"].startswith("undecodable: ")
        assert set(tries.values()) == {1}
        assert self.all_settled()

    def test_a_message_stays_until_its_dead_letter_is_confirmed(self) -> None:
        source = UnreliablePublisher(self.source(), failures=2)

        def process(message: Message) -> None:
            raise Reject("for the test")

        self.publish(b"1")
        with driven(self.consumer(process, source)):
            (letter,) = self.read_dead_letters(1)
        assert letter.body == b"1"
        assert source.refused == 2
        assert self.all_settled()

    def test_a_message_that_cannot_be_buried_is_not_lost(self) -> None:
        source = UnreliablePublisher(self.source(), failures=1_000_000)

        def process(message: Message) -> None:
            raise Reject("for the test")

        self.publish(b"1")
        with driven(self.consumer(process, source)):
            until(lambda: source.refused >= 2, self.patience)
        with self.opened() as subscription:
            assert [message.body for message in self.receive(subscription, 1)] == [b"1"]

    def test_what_was_given_out_too_often_is_not_processed(self) -> None:
        if not self.counts_deliveries:
            pytest.skip("this broker does not count deliveries")
        tries: list[int] = []
        self.publish(b"1")
        with self.opened() as subscription:
            for _ in range(2):
                subscription.nack(self.receive(subscription, 1))
        with driven(self.consumer(lambda message: tries.append(1), max_deliveries=2)):
            (letter,) = self.read_dead_letters(1)
        assert tries == []
        assert "delivered 3 times" in _header(letter.headers, "x-patron-reason")
        assert self.all_settled()

    def test_skipping_settles(self) -> None:
        seen: list[bytes] = []

        def process(message: Message) -> None:
            seen.append(message.body)
            if message.body == b"steered":
                raise Skip("known already")
            raise RuntimeError("failed")

        self.publish(b"steered", b"failed")
        with driven(self.consumer(process, dead_letters="none", on_exhausted="skip")):
            until(lambda: seen.count(b"steered") == 1 and seen.count(b"failed") == 3, self.patience)
        assert self.all_settled()

    def test_requeueing_gives_back(self) -> None:
        tries: list[int] = []

        def process(message: Message) -> None:
            tries.append(message.deliveries)
            if len(tries) < 3:
                raise RuntimeError("failed")

        self.publish(b"1")
        settings: dict[str, Any] = {"retry": RetryPolicy(attempts=1, initial=0.01, cap=0.01)}
        with driven(self.consumer(process, dead_letters="none", on_exhausted="requeue", **settings)):
            until(lambda: len(tries) == 3, self.patience)
        assert tries == [1, 2, 3] or not self.counts_deliveries
        assert self.all_settled()

    def test_exit_gives_back_and_ends_with_the_error(self) -> None:
        def process(message: Message) -> None:
            raise LookupError("cannot go on")

        self.publish(b"1")
        with driven(self.consumer(process, dead_letters="none", on_exhausted="exit")) as live:
            until(lambda: live.ended, self.patience)
            assert isinstance(live.error, LookupError)
        with self.opened() as subscription:
            assert [message.body for message in self.receive(subscription, 1)] == [b"1"]

    def test_a_processor_that_raises_system_exit_has_only_failed(self) -> None:
        done: list[bytes] = []

        def process(message: Message) -> None:
            if message.body == b"0":
                raise SystemExit(3)
            done.append(message.body)

        self.publish(b"0", b"1", b"2")
        with driven(self.consumer(process)):
            (letter,) = self.read_dead_letters(1)
            until(lambda: len(done) == 2, self.patience)
        assert letter.body == b"0"
        assert self.all_settled()

    def test_what_did_not_start_is_given_back_at_a_stop(self) -> None:
        going = threading.Event()
        go = threading.Event()
        done: list[bytes] = []

        def process(message: Message) -> None:
            going.set()
            assert go.wait(self.patience)
            done.append(message.body)

        self.publish(*map(str, range(10)), key="k")
        live = Driven(self.consumer(process), self.patience)
        live.start()
        assert going.wait(self.patience)
        threading.Timer(0.3, go.set).start()
        live.end()
        assert live.error is None
        assert done == [b"0"]
        with self.opened() as subscription:
            left = self.receive(subscription, 9)
            assert sorted(int(message.body) for message in left) == list(range(1, 10))
            assert all(message.deliveries == 1 for message in left) or not self.counts_deliveries
            subscription.ack(left)
        assert self.all_settled()

    def test_a_processor_that_hangs_stops_neither_the_others_nor_the_end(self) -> None:
        release = threading.Event()
        done: list[bytes] = []

        def process(message: Message) -> None:
            if message.body == b"0":
                release.wait()
            else:
                done.append(message.body)

        self.publish(b"0", key="hangs")
        consumer = self.consumer(process, workers=2, order="none")
        live = Driven(consumer, 1.0)
        live.start()
        until(lambda: consumer.in_flight(), self.patience)
        self.publish(*map(str, range(1, 41)), key="goes on")
        until(lambda: len(done) >= 40, self.patience)
        assert [work.what.startswith(self.topic) for work in consumer.in_flight()] == [True]
        took = live.end()
        assert took < 1.0
        assert [work.what.startswith(self.topic) for work in consumer.in_flight()] == [True]
        with self.opened() as subscription:
            assert b"0" in [message.body for message in self.receive(subscription, 1)]
        release.set()
        until(
            lambda: not [t for t in threading.enumerate() if t.name.startswith("test-worker-")], self.patience
        )

    def test_a_batch_is_processed_as_one_and_fails_one_by_one(self) -> None:
        sizes: list[int] = []
        done: list[bytes] = []

        def process(messages: Sequence[Message]) -> None:
            sizes.append(len(messages))
            if any(message.body == b"3" for message in messages):
                raise RuntimeError("one is bad")
            done.extend(message.body for message in messages)

        self.publish(*map(str, range(6)), key="k")
        with driven(self.consumer(process, batch=Batch(size=6, wait=5.0))):
            (letter,) = self.read_dead_letters(1)
            until(lambda: len(done) == 5, self.patience)
        assert letter.body == b"3"
        assert sizes[0] == 6
        assert done == [b"0", b"1", b"2", b"4", b"5"] or not self.orders_keys
        assert self.all_settled()

    def test_an_idle_consumer_picks_up_and_settles_at_once(self) -> None:
        done = threading.Event()
        with driven(self.consumer(lambda message: done.set())) as live:
            until(lambda: live.component.ready().ok, self.patience)  # type: ignore[attr-defined]
            self.publish(b"1")
            assert done.wait(self.patience)
        assert self.all_settled()

    def test_a_lost_connection_is_opened_again(self) -> None:
        done: set[bytes] = set()
        with driven(self.consumer(lambda message: done.add(message.body), reconnect=QUICK)) as live:
            self.publish(b"1")
            until(lambda: b"1" in done, self.patience)
            if not self.lose():
                pytest.skip("this suite cannot break a connection")
            self.publish(b"2")
            until(lambda: b"2" in done, self.patience)
            assert not live.ended
        assert self.all_settled()

    def test_more_messages_than_prefetch_are_all_processed(self) -> None:
        done: list[int] = []
        lock = threading.Lock()

        def process(message: Message) -> None:
            with lock:
                done.append(int(message.body))

        with contextlib.closing(self.source().publisher()) as publisher:
            for number in range(300):
                publisher.publish(
                    self.topic, str(number).encode(), key=None if number % 3 else f"k{number % 5}"
                )
        consumer = self.consumer(process, workers=2, prefetch=8)
        with driven(consumer):
            until(lambda: len(done) >= 300, self.patience)
        assert sorted(done) == list(range(300))
        assert self.all_settled()


def _messages(received: Sequence[Message | Revoked]) -> list[Message]:
    return [item for item in received if isinstance(item, Message)]


def _header(headers: Mapping[str, str], name: str) -> str:
    return next(value for key, value in headers.items() if key.lower() == name)
