"""What every source must do, without the engine."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import threading
import time
from collections import defaultdict
from typing import Any

import pytest

from patron import correlation
from patron.consumer.source import Source
from patron.errors import NotASource
from patron.testing._contract_suite import Suite, messages_of
from patron.testing.until import until

__all__ = ["SourceAlone"]

BODIES = {
    "text": b"hello",
    "empty": b"",
    "every byte": bytes(range(256)),
    "1 MiB": b"0123456789abcdef" * 65536,
}


class SourceAlone(Suite):
    """The source alone."""

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
                more = messages_of(subscription.poll(2, 0.1))
                assert len(more) <= 2
                subscription.ack([*messages, *more])
                seen += len(messages) + len(more)

    def test_what_is_acknowledged_does_not_come_again(self) -> None:
        # More than a request of some brokers may name.
        self.publish(*map(str, range(12)))
        with self.opened() as subscription:
            subscription.ack(self.receive(subscription, 12))
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
        if not self.publishes_later:
            pytest.skip("this broker has no delays")
        published = time.monotonic()
        self.publish(b"1", delay=0.5)
        with self.opened() as subscription:
            # Not after a while of nothing: to open may have taken longer than that.
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
        self.publish(b"1", b"2")
        with self.opened() as subscription:
            assert messages_of(subscription.poll(0, 0.05)) == []
            (message,) = self.receive(subscription, 1)
            for _ in range(5):
                assert messages_of(subscription.poll(0, 0.05)) == []
            messages = [message, *self.receive(subscription, 1)]
            assert all(each.deliveries == 1 for each in messages) or not self.counts_deliveries
            subscription.ack(messages)

    def test_an_idle_source_keeps_its_connection(self) -> None:
        with self.opened() as subscription:
            for _ in range(5):
                assert messages_of(subscription.poll(10, 0.1)) == []
                assert messages_of(subscription.poll(0, 0.0)) == []
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
            assert messages_of(subscription.poll(1, 30.0)) == []
            threading.Timer(0.05, wake).start()
            assert messages_of(subscription.poll(1, 30.0)) == []
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

    # What only some have

    def test_missing_topics_are_named_and_made_when_asked_for(self) -> None:
        if not self.checks_topics:
            pytest.skip("this source does not check its topics")
        strict, making = (dataclasses.replace(self.source(), create=create) for create in (False, True))  # type: ignore[type-var]
        letters = f"{self.topic}.dlq"
        with pytest.raises(NotASource) as caught:
            strict.prepare([letters])  # type: ignore[attr-defined]
        assert self.topic in str(caught.value)
        making.prepare([])  # type: ignore[attr-defined]
        strict.prepare([])  # type: ignore[attr-defined]
        with pytest.raises(NotASource, match=re.escape(letters)):
            strict.prepare([letters])  # type: ignore[attr-defined]
        making.prepare([letters])  # type: ignore[attr-defined]
        making.prepare([letters])  # type: ignore[attr-defined]
        strict.prepare([letters])  # type: ignore[attr-defined]

    def test_header_values_with_odd_characters_arrive_as_they_were_sent(self) -> None:
        headers = {
            "tab-and-newline": "a\tb\nc",
            "quotes": """'"`\\%s{}""",
            "spaces": "  a  ",
            "beyond": "\U0001f431 \u202e",
            "long": "x" * 1000,
        }
        self.publish(b"1", headers=headers)
        with self.opened() as subscription:
            (message,) = self.receive(subscription, 1)
            assert {name: message.headers.get(name) for name in headers} == headers
            subscription.ack([message])

    def test_what_cannot_be_read_is_handed_over_with_its_problem(self) -> None:
        if not self.spoil():
            pytest.skip("there is nothing that this source cannot read")
        self.publish(b"1")
        with self.opened() as subscription:
            messages = self.receive(subscription, 2)
            assert [bool(message.problem) for message in messages if message.body == b"1"] == [False]
            assert len([message for message in messages if message.problem]) == 1
            subscription.ack(messages)
        assert self.all_settled()

    def test_a_delay_holds_up_no_other_lane(self) -> None:
        if not (self.delays and self.orders_keys):
            pytest.skip("this broker has no delays, or no lanes")
        with contextlib.closing(self.source().publisher()) as publisher:
            for number in range(40):
                publisher.publish(self.topic, str(number).encode(), key=f"k{number % 20}")
        with self.opened() as subscription:
            messages = self.receive(subscription, 40)
            lane = messages[0].lane
            late = [message for message in messages if message.lane == lane]
            others = [message for message in messages if message.lane != lane]
            assert others, "all keys share one lane"
            given_back = time.monotonic()
            subscription.nack(late, 1.5)
            subscription.nack(others)
            again = self.receive(subscription, len(others))
            took = time.monotonic() - given_back
            assert lane not in {message.lane for message in again} or took >= 1.5
            subscription.ack(again)
            subscription.ack(self.receive(subscription, len(late)))
            assert time.monotonic() - given_back >= 1.5
        assert self.all_settled()

    def test_lanes_are_given_up_after_asking(self) -> None:
        asked: list[frozenset[Any]] = []
        self.publish(b"1")
        with self.opened() as subscription:
            if not hasattr(subscription, "revoking"):
                pytest.skip("this source gives up no lanes")
            (message,) = self.receive(subscription, 1)
            open_messages = [message]

            def revoking(lanes: frozenset[Any]) -> None:
                asked.append(lanes)
                if message.lane in lanes and open_messages:
                    subscription.ack([open_messages.pop()])

            subscription.revoking = revoking
            end = time.monotonic() + self.patience
            with self.rebalance():
                while not asked:
                    assert time.monotonic() < end, "nobody asked"
                    assert messages_of(subscription.poll(0, 0.05)) == []
            self.settle(subscription, open_messages)
            subscription.revoking = None
        assert any(asked)
        assert self.all_settled()

    def test_dead_letters_can_be_handled_in_any_order(self) -> None:
        letters = getattr(self.source(), "letters", None)
        if letters is None:
            pytest.skip("this source has no way of its own to read dead letters")
        topic = f"{self.topic}.dlq"
        with contextlib.closing(self.source().publisher()) as publisher:
            for number in range(5):
                publisher.publish(topic, str(number).encode(), key="k")
        with contextlib.closing(letters(topic)) as subscription:
            found = {message.body: message for message in self.receive(subscription, 5)}
            subscription.ack([found[b"3"]])
            subscription.ack([found[b"1"]])
        with contextlib.closing(letters(topic)) as subscription:
            left = self.receive(subscription, 3)
            assert sorted(message.body for message in left) == [b"0", b"2", b"4"]
            assert self.nothing_comes(subscription)
            subscription.ack(left)
        with contextlib.closing(letters(topic)) as subscription:
            assert self.nothing_comes(subscription)
            assert not subscription.stats().lag
