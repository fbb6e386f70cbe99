"""The SQLite source as a queue: order, leases, redelivery, delays, waking, on both drivers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from patron.consumer.source import Message
from patron.errors import ConnectionLost, SourceError, Stale
from patron.sources.sqlite import Outgoing, SqlitePublisher, SqliteSource, SqliteSubscription

pytest.importorskip("apsw")


@pytest.fixture(params=["sqlite3", "apsw"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> SqliteSource:
    return SqliteSource(tmp_path / "queue.db", "orders", driver=request.param)


@pytest.fixture
def publisher(source: SqliteSource) -> Iterator[SqlitePublisher]:
    publisher = source.publisher()
    yield publisher
    publisher.close()


@pytest.fixture
def first(source: SqliteSource) -> Iterator[SqliteSubscription]:
    subscription = source.open()
    yield subscription
    subscription.close()


@pytest.fixture
def second(source: SqliteSource) -> Iterator[SqliteSubscription]:
    subscription = source.open()
    yield subscription
    subscription.close()


def take(subscription: SqliteSubscription, count: int, limit: int = 100) -> list[Message]:
    """Poll until *count* messages came."""
    found: list[Message] = []
    end = time.monotonic() + 10
    while len(found) < count and time.monotonic() < end:
        found += subscription.poll(limit, 0.5)
    assert len(found) == count, [str(message) for message in found]
    return found


def nothing(subscription: SqliteSubscription) -> bool:
    return not subscription.poll(100, 0.05)


def bodies(messages: list[Message]) -> list[bytes]:
    return [message.body for message in messages]


def numbered(count: int, key: str | None = "k", topic: str = "orders") -> list[Outgoing]:
    return [Outgoing(topic, b"%d" % number, key) for number in range(count)]


def test_a_message_comes_as_it_was_published(publisher, first):
    id_ = publisher.publish("orders", bytes(range(256)), key="ké\U0001f600", headers={"a": "ü", "B": ""})
    (message,) = take(first, 1)
    assert (message.body, message.key, message.lane) == (bytes(range(256)), "ké\U0001f600", "ké\U0001f600")
    assert (message.id, message.topic, message.headers) == (id_, "orders", {"a": "ü", "B": ""})
    assert message.deliveries == 1
    assert abs(message.timestamp - time.time()) < 10


def test_bodies_of_every_size_come_whole_also_together(publisher, first):
    wanted = [b"", b"\0", b"\xff\xfe\0\0", b"x" * 5000, b"\0" * 3_000_000, b"", b"y" * 6_000_000]
    publisher.publish_many([Outgoing("orders", body) for body in wanted])
    assert bodies(take(first, len(wanted))) == wanted


def test_a_subscription_reads_only_its_topic(publisher, first):
    publisher.publish("others", b"no")
    publisher.publish("orders", b"yes")
    assert bodies(take(first, 1)) == [b"yes"]
    assert nothing(first)


def test_poll_gives_no_more_than_its_limit_and_goes_on_from_there(publisher, first):
    publisher.publish_many(numbered(10, None))
    assert bodies(first.poll(4, 1)) == [b"0", b"1", b"2", b"3"]
    assert bodies(take(first, 6, limit=5)) == [b"%d" % n for n in range(4, 10)]


def test_poll_with_limit_0_takes_nothing(publisher, first):
    publisher.publish("orders", b"1")
    assert first.poll(0, 0.0) == ()
    assert len(take(first, 1)) == 1


def test_an_acked_message_never_comes_again(source, publisher, first):
    publisher.publish_many(numbered(3))
    first.ack(take(first, 3))
    first.close()
    fresh = source.open()
    try:
        assert nothing(fresh)
        assert source.topics() == {}
    finally:
        fresh.close()


def test_a_nacked_message_comes_again_before_its_followers_and_counts(publisher, first):
    publisher.publish_many(numbered(2))
    (head,) = first.poll(1, 1)
    first.nack([head])
    again = take(first, 2)
    assert bodies(again) == [b"0", b"1"]
    assert [message.deliveries for message in again] == [2, 1]


def test_a_nack_keeps_the_deliveries_that_the_message_says(publisher, first):
    publisher.publish("orders", b"1")
    (message,) = take(first, 1)
    message.deliveries -= 1  # what the engine does for a message that never started
    first.nack([message])
    assert take(first, 1)[0].deliveries == 1


def test_a_nack_with_delay_holds_its_lane_and_no_other(publisher, first):
    publisher.publish_many([*numbered(3, "slow"), Outgoing("orders", b"other", "quick")])
    (head,) = first.poll(1, 1)
    started = time.monotonic()
    first.nack([head], 0.3)
    assert bodies(take(first, 1)) == [b"other"]
    assert nothing(first)
    assert bodies(take(first, 3)) == [b"0", b"1", b"2"]
    assert time.monotonic() - started >= 0.3


def test_returned_messages_of_a_lane_keep_their_order_whatever_their_delays(publisher, first, second):
    publisher.publish_many(numbered(3))
    one, two, three = take(first, 3)
    first.nack([three])
    first.nack([one], 0.2)
    first.nack([two], 0.05)
    assert bodies(take(second, 3, limit=1)) == [b"0", b"1", b"2"]


def test_an_unordered_message_that_waits_holds_nobody(publisher, first):
    publisher.publish_many(numbered(2, None))
    (one,) = first.poll(1, 1)
    first.nack([one], 0.2)
    assert bodies(take(first, 2)) == [b"1", b"0"]


def test_a_delayed_message_takes_its_place_when_it_is_due(publisher, first):
    late = publisher.publish("orders", b"late", key="k", headers={"h": "1"}, delay=0.2)
    publisher.publish("orders", b"soon", key="k")
    messages = take(first, 2)
    assert bodies(messages) == [b"soon", b"late"]
    assert (messages[1].id, messages[1].headers) == (late, {"h": "1"})
    first.ack(messages)
    publisher.publish("orders", b"later", key="k", delay=0.01)
    assert bodies(take(first, 1)) == [b"later"]
    assert nothing(first)


def test_a_key_leased_by_one_is_not_given_to_another_until_settled(publisher, first, second):
    publisher.publish_many([*numbered(2, "a"), *numbered(2, "b")])
    (held,) = first.poll(1, 1)
    assert held.key == "a"
    theirs = take(second, 2)
    assert {message.key for message in theirs} == {"b"}
    publisher.publish("orders", b"2", key="a")
    assert nothing(second)
    first.ack([held])
    assert bodies(take(second, 2)) == [b"1", b"2"]


def test_each_unordered_message_goes_to_one_of_them(publisher, first, second):
    publisher.publish_many(numbered(200, None))
    mine, theirs = [], []
    while found := [*first.poll(7, 0.02)]:
        mine += found
        theirs += second.poll(7, 0.02)
    assert len(mine) + len(theirs) == 200
    assert len({message.id for message in mine + theirs}) == 200


def test_a_hot_key_leaves_room_for_the_others(source, publisher):
    publisher.publish_many([*numbered(1000, "hot"), Outgoing("orders", b"x", "cold")])
    subscription = SqliteSource(source.path, "orders", driver=source.driver, lane_limit=10).open()
    try:
        held = take(subscription, 11)
        assert held[-1].key == "cold"
        assert nothing(subscription)
        subscription.ack(held[:5])
        assert bodies(take(subscription, 5)) == [b"%d" % n for n in range(10, 15)]
    finally:
        subscription.close()


def test_a_long_lane_that_was_passed_by_comes_in_order_when_it_is_free(publisher, first, second):
    publisher.publish_many(numbered(3500, "hot"))
    held = take(first, 256)
    assert nothing(first)  # it holds as many of one lane as it may
    publisher.publish("orders", b"cold", key="cold")
    assert bodies(take(second, 1)) == [b"cold"]
    first.close()  # gives everything back
    got: list[Message] = []
    while len(got) < 3500 and (found := second.poll(500, 5)):
        second.ack(found)
        got += found
    assert bodies(got) == [b"%d" % n for n in range(3500)]
    assert [message.deliveries for message in got[: len(held) + 1]] == [2] * len(held) + [1]


def test_close_gives_back_what_was_not_settled(publisher, first, second):
    publisher.publish_many(numbered(3))
    first.ack(take(first, 3)[:1])
    assert nothing(second)
    first.close()
    first.close()
    assert bodies(take(second, 2)) == [b"1", b"2"]


def test_settling_what_is_not_held_is_stale_and_the_rest_is_settled(publisher, first, second):
    publisher.publish_many(numbered(3, None))
    one, two, three = take(first, 3)
    first.nack([one])
    with pytest.raises(Stale) as caught:
        first.ack([one, two])
    assert caught.value.messages == (one,)
    with pytest.raises(Stale):
        second.ack([three])
    with pytest.raises(Stale):
        first.nack([two])


def test_what_is_closed_says_so(publisher, first):
    publisher.publish("orders", b"1")
    first.close()
    with pytest.raises(ConnectionLost):
        first.poll(1, 0)
    with pytest.raises(ConnectionLost):
        first.stats()


def test_stats_tell_what_waits(publisher, first):
    publisher.publish_many(numbered(5, None))
    first.poll(2, 1)
    stats = first.stats()
    assert (stats.assigned, stats.lag) == (1, 3)
    assert 0 <= stats.oldest_age < 10


def test_wake_ends_a_poll_that_waits_and_else_the_next_one(first):
    first.wake()
    assert first.poll(1, 60) == ()
    waker = threading.Timer(0.1, first.wake)
    waker.start()
    assert first.poll(0, 60) == ()
    waker.join()


def test_a_waiting_poll_sees_a_message_from_a_thread(publisher, first):
    sender = threading.Timer(0.1, publisher.publish, ("orders", b"1"))
    sender.start()
    assert bodies(first.poll(1, 60)) == [b"1"]
    sender.join()


def test_browsing_shows_pages_and_takes_nothing(source, publisher, first):
    publisher.publish_many([Outgoing("orders.dlq", b"%d" % n, headers={"reason": "bad"}) for n in range(5)])
    page = source.browse("orders.dlq", limit=3)
    rest = source.browse("orders.dlq", after=page[-1].raw)
    assert bodies(page + rest) == [b"0", b"1", b"2", b"3", b"4"]
    assert page[0].headers == {"reason": "bad"}
    assert source.topics() == {"orders.dlq": 5}


def test_removing_leaves_what_is_being_processed(source, publisher, first):
    publisher.publish_many(numbered(3, None))
    first.poll(1, 1)
    assert source.remove(source.browse()) == 2
    assert bodies(source.browse()) == [b"0"]


def test_a_message_removed_behind_the_back_of_a_subscription_is_skipped(source, publisher, first, second):
    publisher.publish_many(numbered(3))
    (head,) = first.poll(1, 1)
    assert nothing(second)
    source.remove(source.browse()[1:2])
    first.ack([head])
    assert bodies(take(second, 1)) == [b"2"]


@pytest.mark.parametrize("statement", ["GLANCE", "LEASE", "IN_ONE_PIECE"])
def test_a_poll_that_fails_half_way_loses_nothing_and_keeps_the_order(
    publisher, first, monkeypatch, statement
):
    publisher.publish_many([*numbered(6, "k"), *numbered(6, None)])
    with monkeypatch.context() as broken:
        broken.setattr(f"patron.sources._sqlite_queries.{statement}", "SELECT nonsense")
        with pytest.raises(SourceError, match="nonsense"):
            first.poll(10, 1)
    found = []
    while len(found) < 12:
        more = first.poll(4, 5)
        assert 1 <= len(more) <= 4
        found += more
    assert bodies([message for message in found if message.key]) == [b"%d" % n for n in range(6)]
    assert len({message.id for message in found}) == 12
    assert {message.deliveries for message in found} == {1}
    first.ack(found)
    assert first.stats().lag == 0


def test_returned_messages_that_are_read_half_way_come_whole(publisher, first, second, monkeypatch):
    publisher.publish_many(numbered(9))
    take(first, 9)
    first.close()
    with monkeypatch.context() as broken:
        broken.setattr("patron.sources._sqlite_queries.IN_ONE_PIECE", "SELECT nonsense")
        with pytest.raises(SourceError):
            second.poll(9, 1)
    assert bodies(take(second, 9, limit=2)) == [b"%d" % n for n in range(9)]


def test_a_lane_that_another_took_while_this_one_chose_stays_the_others(
    publisher, first, second, monkeypatch
):
    publisher.publish_many([*numbered(5), Outgoing("orders", b"free", "free"), *numbered(2, None)])
    choose, stolen = first._choose, []

    def choose_too_slowly(found, room):
        chosen = choose(found, room)
        stolen.extend(second.poll(2, 0.0) if not stolen else ())
        return chosen

    monkeypatch.setattr(first, "_choose", choose_too_slowly)
    assert bodies(take(first, 3)) == [b"free", b"0", b"1"]
    assert bodies(stolen) == [b"0", b"1"]
    assert nothing(first)
    second.ack(stolen)
    assert bodies(take(first, 3, limit=1)) == [b"2", b"3", b"4"]


def test_an_unordered_message_that_another_took_meanwhile_is_left_to_it(
    publisher, first, second, monkeypatch
):
    publisher.publish_many(numbered(4, None))
    choose, stolen = first._choose, []

    def choose_too_slowly(found, room):
        chosen = choose(found, room)
        stolen.extend(second.poll(2, 0.0))
        return chosen

    monkeypatch.setattr(first, "_choose", choose_too_slowly)
    assert bodies(first.poll(3, 0.0)) == [b"2"]
    assert bodies(stolen) == [b"0", b"1"]
