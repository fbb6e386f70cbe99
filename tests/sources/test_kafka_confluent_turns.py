"""The driver confluent reads a little ahead of each partition and gives it out by turns, also behind a backlog."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from sources.test_kafka_confluent_source import make  # noqa: F401
from sources.test_kafka_source import (
    Make,
    assigned,
    forgotten_sockets,  # noqa: F401
    messages,
    opened,
    producer,
    receive,
)

from patron.consumer.source import Message
from patron.sources import _kafka_confluent_turns as turns
from patron.sources._kafka_confluent_subscription import _NOWHERE
from patron.sources.kafka import KafkaSource
from patron.testing import until

pytestmark = pytest.mark.broker


def fill(source: KafkaSource, counts: Mapping[int, int]) -> None:
    """Publish so many messages to each partition, one partition after the other."""
    with producer(source) as kafka:
        for partition, count in counts.items():
            for number in range(count):
                kafka.send(source.target, b"%d" % number, partition=partition)


def reads(subscription: Any, ready: Callable[[Any], bool]) -> None:
    """Let *subscription* read ahead, and give nothing out, until what it kept is as it should be."""
    until(lambda: (subscription._fetch(1, 0.0), ready(subscription._turns))[1], 20)


def stuffed(subscription: Any) -> None:
    """Let *subscription* pause both of its partitions, because it has plenty of them."""
    reads(subscription, lambda kept: (subscription.poll(0, 0.0), len(kept._full) == 2)[1])


def of_each(count: int) -> Callable[[Any], bool]:
    return lambda kept: len(kept._shelves) == count


def has_an_error(kept: Any) -> bool:
    """Whether it was read, and not given out, that a partition cannot be read on."""
    errors = (record.error() for shelf in kept._shelves.values() for record in shelf.records)
    return any(error is not None and error.code() in _NOWHERE for error in errors)


def lanes(received: Sequence[Message]) -> Counter[int]:
    return Counter(message.lane[1] for message in received)  # type: ignore[index]


def positions(received: Sequence[Message], partition: int) -> list[int | None]:
    return [message.position for message in received if message.lane[1] == partition]  # type: ignore[index]


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little is kept, about thirty messages of each of four partitions, and everybody is slow."""
    monkeypatch.setattr(turns, "_MOST", 64 * 1024)
    monkeypatch.setattr(turns, "_SLOW", -1.0)
    monkeypatch.setattr(turns, "_STILL", -1.0)


def test_partitions_take_turns_however_much_is_there_of_one(make: Make) -> None:  # noqa: F811
    source = make(partitions=4)
    fill(source, dict.fromkeys(range(4), 800))
    with opened(source) as subscription:
        reads(subscription, of_each(4))
        assert lanes(subscription.poll(40, 0.0)) == {0: 10, 1: 10, 2: 10, 3: 10}
        assert len(lanes(subscription.poll(2, 0.0) + subscription.poll(2, 0.0))) == 4
        received = receive(subscription, 3200 - 44)
        for partition in range(4):
            assert positions(received, partition) == list(range(11, 800))


def test_what_keeps_others_from_being_read_makes_way_and_nothing_is_left_out_or_comes_twice(
    make: Make,  # noqa: F811
    little: None,
) -> None:
    source = make(partitions=4)
    fill(source, dict.fromkeys(range(4), 2000))
    with opened(source) as subscription:
        reads(subscription, of_each(4))
        assert subscription._turns.count < 2000
        received = []
        while len(received) < 8000:
            received += receive(subscription, 1, limit=97)
            assert subscription._turns.count < 2000
        for partition in range(4):
            assert positions(received, partition) == list(range(2000))
        until(lambda: (subscription.poll(10, 0.05), subscription.stats().lag == 0)[1], 20)
        assert not subscription._turns._full


def test_what_is_processed_quickly_is_never_paused_and_so_never_fetched_again(
    make: Make,  # noqa: F811
    little: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "_SLOW", 600.0)
    source = make(partitions=4)
    fill(source, dict.fromkeys(range(4), 500))
    with opened(source) as subscription:
        received = []
        while len(received) < 2000:
            received += receive(subscription, 1)
            assert not subscription._turns._full


def test_a_new_message_does_not_wait_behind_the_backlog_of_another_partition_that_is_slow(
    make: Make,  # noqa: F811
    little: None,
) -> None:
    source = make()
    fill(source, {0: 5000})
    with opened(source) as subscription:
        assigned(subscription, 2)
        until(lambda: (subscription.poll(0, 0.01), subscription._turns._full)[1], 20)
        kept = subscription._turns.count
        fill(source, {1: 1})
        until(lambda: (subscription.poll(0, 0.05), of_each(2)(subscription._turns))[1], 20)
        assert subscription._turns.count <= kept + 3  # its own, and the end of its partition
        received = messages(subscription.poll(10, 0.0))
        assert lanes(received)[1] == 1
        received += receive(subscription, 5001 - len(received))
        assert positions(received, 0) == list(range(5000))


@pytest.mark.parametrize("delay", [0.0, 0.2])
def test_what_is_given_back_while_there_is_plenty_of_its_partition_comes_again_in_order(
    make: Make,  # noqa: F811
    little: None,
    delay: float,
) -> None:
    source = make()
    fill(source, {0: 1000, 1: 1000})
    with opened(source) as subscription:
        stuffed(subscription)
        received = messages(subscription.poll(20, 0.0))
        back = [message for message in received if message.position >= 4]
        subscription.nack(back, delay)
        rest = receive(subscription, 1992)
        for partition in (0, 1):
            assert positions(rest, partition) == list(range(4, 1000))


@pytest.mark.parametrize("assignment", ["cooperative", "eager"])
@pytest.mark.parametrize("delay", [0.0, 0.2])
def test_what_is_given_back_comes_again_although_the_library_has_given_up_on_its_partition(
    make: Make,  # noqa: F811
    delay: float,
    assignment: str,
) -> None:
    source = make(assignment=assignment)
    fill(source, {0: 20, 1: 20})
    with opened(source) as subscription:
        received = receive(subscription, 40)
        subscription._consumer.seek(turns.TopicPartition(source.target, 0, 10_000))
        reads(subscription, has_an_error)
        subscription.nack([message for message in received if message.lane[1] == 0][5:], delay)
        again = receive(subscription, 15)
        assert positions(again, 0) == list(range(5, 20))


def test_a_partition_that_comes_again_after_it_had_plenty_is_read_from_what_was_committed(
    make: Make,  # noqa: F811
    little: None,
) -> None:
    source = make()
    fill(source, {0: 1000, 1: 1000})
    with opened(source) as subscription:
        stuffed(subscription)
        gone = [turns.TopicPartition(source.target, partition) for partition in (0, 1)]
        subscription._lost(subscription._consumer, gone)
        assert subscription._turns.count == 0
        subscription._assigned(subscription._consumer, gone)
        received = receive(subscription, 2000)
        for partition in (0, 1):
            assert positions(received, partition) == list(range(1000))


def test_a_shelf_tells_since_when_it_was_not_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(turns, "monotonic", lambda: next(clock))
    shelf = turns._Shelf()
    shelf.put([b"x" * 100] * 10)
    assert (shelf.since, shelf.bytes) == (0, 10 * (512 + 100))
    shelf.put([b"x"] * 10)
    assert len(shelf.take(9)) == 9
    assert shelf.since == 0
    assert len(shelf.take(1)) == 1
    assert shelf.since == 1  # the first ten are out
    assert len(shelf.take(50)) == 10
    assert (shelf.bytes, shelf.records) == (0, [])
    shelf.put([b"x"])
    assert shelf.since == 3
