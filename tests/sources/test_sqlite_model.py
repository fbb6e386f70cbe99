"""The SQLite source against a model: whatever several subscriptions do, lanes are exclusive and in order."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path

import pytest

from patron.consumer.source import Message
from patron.sources.sqlite import SqliteSource, SqliteSubscription


class World:
    """Three subscriptions and a publisher on one file, and what must hold of them."""

    def __init__(self, source: SqliteSource, choice: random.Random) -> None:
        self.source = source
        self.choice = choice
        self.publisher = source.publisher()
        self.subscriptions = [source.open() for _ in range(3)]
        self.held: dict[SqliteSubscription, list[Message]] = {one: [] for one in self.subscriptions}
        self.published: dict[str | None, list[int]] = defaultdict(list)
        self.settled: dict[str | None, list[int]] = defaultdict(list)
        self.deliveries: dict[int, int] = defaultdict(int)
        self.number = 0

    def publish(self) -> None:
        for _ in range(self.choice.randint(1, 12)):
            key = self.choice.choice(["a", "a", "a", "b", "c", None])
            self.publisher.publish("orders", b"%d" % self.number, key=key)
            self.published[key].append(self.number)
            self.number += 1

    def poll(self) -> None:
        subscription = self.choice.choice(self.subscriptions)
        messages = subscription.poll(limit := self.choice.randint(1, 8), 0.0)
        assert len(messages) <= limit
        for message in messages:
            number = int(message.body)
            self.deliveries[number] += 1
            assert message.deliveries == self.deliveries[number]
            assert number not in self.settled[message.key]
            assert number not in [int(other.body) for held in self.held.values() for other in held]
            if message.key is not None:
                owners = {
                    one for one, held in self.held.items() for other in held if other.key == message.key
                }
                assert owners <= {subscription}, "a lane of two owners"
                # Everything before it in its lane is settled, or held here, or came in this same poll.
                before = [n for n in self.published[message.key] if n < number]
                known = {int(other.body) for other in self.held[subscription]} | set(
                    self.settled[message.key]
                )
                assert set(before) <= known, "out of order"
            self.held[subscription].append(message)

    def ack(self) -> None:
        subscription, messages = self.some_held()
        subscription.ack(messages)
        for message in messages:
            self.settled[message.key].append(int(message.body))

    def nack(self) -> None:
        subscription, messages = self.some_held()
        for message in messages:
            subscription.nack([message], self.choice.choice([0.0, 0.0, 0.002]))

    def some_held(self) -> tuple[SqliteSubscription, list[Message]]:
        """Some of what a subscription holds: of each lane all from some place on, or the first ones."""
        subscription = self.choice.choice(self.subscriptions)
        chosen = [one for one in self.held[subscription] if self.choice.random() < 0.6]
        self.held[subscription] = [one for one in self.held[subscription] if one not in chosen]
        return subscription, chosen

    def reopen(self) -> None:
        subscription = self.choice.choice(self.subscriptions)
        end = self.choice.choice([subscription.close, subscription._release])  # in order, or like the dead
        end()
        self.subscriptions.remove(subscription)
        del self.held[subscription]
        fresh = self.source.open()
        self.subscriptions.append(fresh)
        self.held[fresh] = []

    def drain(self) -> None:
        for subscription in self.subscriptions:
            subscription.nack(self.held[subscription])
            self.held[subscription] = []
        while sum(map(len, self.settled.values())) < self.number:
            subscription = self.choice.choice(self.subscriptions)
            messages = subscription.poll(5, 0.05)
            subscription.ack(messages)
            for message in messages:
                self.settled[message.key].append(int(message.body))

    def close(self) -> None:
        for subscription in self.subscriptions:
            subscription.close()
        self.publisher.close()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("lane_limit", [3, 256])
def test_lanes_are_exclusive_and_in_order_whatever_happens(
    tmp_path: Path, seed: int, lane_limit: int
) -> None:
    choice = random.Random(seed)
    source = SqliteSource(tmp_path / "queue.db", "orders", "normal", lane_limit=lane_limit)
    world = World(source, choice)
    try:
        for _ in range(250):
            act = choice.choices(["publish", "poll", "ack", "nack", "reopen"], [3, 8, 5, 1, 0.3])[0]
            getattr(world, act)()
        world.drain()
        assert {key: sorted(found) for key, found in world.settled.items() if found} == dict(world.published)
        assert source.topics() == {}
    finally:
        world.close()
