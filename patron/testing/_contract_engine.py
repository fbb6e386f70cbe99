"""What every source must do with the consume engine on top."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pytest

from patron.consumer.settings import Batch
from patron.consumer.source import Message
from patron.errors import NotASource, Reject, Retry, Skip
from patron.reliability.retry import RetryPolicy
from patron.testing._contract_suite import QUICK, Suite, UnreliablePublisher, header_of
from patron.testing.driving import Driven, driven
from patron.testing.until import until

__all__ = ["SourceWithEngine"]


class SourceWithEngine(Suite):
    """The engine on top."""

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
            for number in range(self.many):
                publisher.publish(self.topic, str(number).encode(), key=f"k{number % 8}")
        with driven(self.consumer(process, workers=8)):
            until(lambda: sum(map(len, seen.values())) >= self.many, self.patience)
        assert together == []
        assert all(numbers == sorted(numbers) for numbers in seen.values())
        assert sorted(itertools.chain(*seen.values())) == list(range(self.many))
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
        reasons = {letter.body: header_of(letter.headers, "x-patron-reason") for letter in letters}
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
        assert "delivered 3 times" in header_of(letter.headers, "x-patron-reason")
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
        live = Driven(consumer, self.budget)
        live.start()
        until(lambda: consumer.in_flight(), self.patience)
        self.publish(*map(str, range(1, 41)), key="goes on")
        until(lambda: len(done) >= 40, self.patience)
        assert [work.what.startswith(self.topic) for work in consumer.in_flight()] == [True]
        took = live.end()
        assert took < self.budget
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
            for number in range(self.many):
                publisher.publish(
                    self.topic, str(number).encode(), key=None if number % 3 else f"k{number % 5}"
                )
        consumer = self.consumer(process, workers=2, prefetch=8)
        with driven(consumer):
            until(lambda: len(done) >= self.many, self.patience)
        assert sorted(done) == list(range(self.many))
        assert self.all_settled()

    def test_a_body_or_type_that_cannot_be_decoded_stops_nobody(self) -> None:
        done: list[Any] = []
        odd = [(b"", "application/json"), (b"\xff\xfe", "text/plain"), (b"1", "no type at all"), (b"{", "")]
        with contextlib.closing(self.source().publisher()) as publisher:
            for body, kind in odd:
                publisher.publish(self.topic, body, key="k", headers={"content-type": kind})
            publisher.publish(self.topic, b'"last"', key="k")
        with driven(self.consumer(lambda message: done.append(message.decode()))):
            letters = self.read_dead_letters(len(odd))
            until(lambda: done == ["last"], self.patience)
        assert all(
            header_of(letter.headers, "x-patron-reason").startswith("undecodable: ") for letter in letters
        )
        assert self.all_settled()

    def test_what_cannot_be_read_is_a_dead_letter_and_never_processed(self) -> None:
        done: list[bytes] = []
        self.publish(b"before")
        if not self.spoil():
            pytest.skip("there is nothing that this source cannot read")
        self.publish(b"after")
        with driven(self.consumer(lambda message: done.append(message.body))):
            (letter,) = self.read_dead_letters(1)
            until(lambda: len(done) == 2, self.patience)
        assert set(done) == {b"before", b"after"}
        assert header_of(letter.headers, "x-patron-reason").startswith("undecodable: ")
        assert self.all_settled()

    def test_a_lane_that_fails_for_long_leaves_room_for_the_others(self) -> None:
        if not (self.delays and self.orders_keys):
            pytest.skip("this broker has no delays, or no lanes")
        keys = [f"k{number % 20}" for number in range(120)]
        with contextlib.closing(self.source().publisher()) as publisher:
            for number, key in enumerate(keys):
                publisher.publish(self.topic, str(number).encode(), key=key)
        with self.opened() as subscription:
            messages = self.receive(subscription, 120, limit=1000)
            lanes = {message.key: message.lane for message in messages}
            subscription.nack(messages)
        healed = threading.Event()
        failing: list[Any] = []
        seen: dict[str | None, list[int]] = defaultdict(list)

        def process(message: Message) -> None:
            if not failing:
                failing.append(message.lane)
            if message.lane == failing[0] and not healed.is_set():
                raise Retry(0.5)
            seen[message.key].append(int(message.body))

        assert len(set(lanes.values())) > 1, "all keys share one lane"
        with driven(self.consumer(process, prefetch=10, retry=RetryPolicy(attempts=1000))):
            until(lambda: failing, self.patience)
            others = {key for key, lane in lanes.items() if lane != failing[0]}
            until(lambda: sum(map(len, list(seen.values()))) == 6 * len(others), self.patience)
            assert set(seen) == others
            healed.set()
            until(lambda: sum(map(len, list(seen.values()))) == 120, self.patience)
        assert all(numbers == sorted(numbers) for numbers in seen.values())
        assert self.all_settled()

    def test_a_missing_topic_ends_the_consumer_with_its_name(self) -> None:
        if not self.checks_topics:
            pytest.skip("this source does not check its topics")
        strict = dataclasses.replace(self.source(), create=False)  # type: ignore[type-var]
        with driven(self.consumer(print, strict)) as live:
            until(lambda: live.ended, self.patience)
            assert isinstance(live.error, NotASource)
            assert self.topic in str(live.error)
