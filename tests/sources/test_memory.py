"""The memory source keeps the contract of every source, as a queue and as a log."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from patron.consumer.source import Source, Subscription
from patron.errors import ConfigError, NotASource
from patron.sources import lookup, names
from patron.sources.memory import MemorySource, forget_broker, memory_broker
from patron.testing.contract import SourceContract


class _Memory(SourceContract):
    checks_topics = True

    @pytest.fixture(autouse=True)
    def _own_broker(self, _world: None) -> Iterator[None]:
        yield
        forget_broker(self.topic)

    def lose(self) -> bool:
        memory_broker(self.topic).lose()
        return True

    def spoil(self) -> bool:
        broker = memory_broker(self.topic)
        broker.publish(self.topic, b"{broken", problem="compressed in an unknown way")
        return True

    @contextlib.contextmanager
    def rebalance(self) -> Iterator[None]:
        memory_broker(self.topic).revoke(self.topic, orderly=True)
        yield


class TestQueue(_Memory):
    def source(self) -> Source:
        return MemorySource(self.topic, broker=self.topic)

    def crash(self, subscription: Subscription) -> None:
        memory_broker(self.topic).expire_leases(self.topic)


class TestLog(_Memory):
    def source(self) -> Source:
        return MemorySource(self.topic, positional=True, broker=self.topic)


@pytest.fixture
def name() -> Iterator[str]:
    yield "test-memory"
    forget_broker("test-memory")


@pytest.mark.parametrize("positional", [False, True])
def test_no_lane_starves_behind_a_long_one(name: str, positional: bool) -> None:
    broker = memory_broker(name)
    source = MemorySource("t", positional=positional, partitions=8, broker=name)
    subscription = source.open()
    for number in range(800):
        broker.publish("t", b"", key=f"k{number % 40}" if number % 2 else "k0")
    lanes = set()
    for _ in range(4):
        lanes |= {message.lane for message in subscription.poll(2, 0.0)}
    assert len(lanes) == 8
    subscription.close()


def test_a_topic_is_a_queue_or_a_log_and_not_both(name: str) -> None:
    subscription = MemorySource("t", broker=name).open()
    with pytest.raises(NotASource, match="read as a queue, so not as a log"):
        MemorySource("t", positional=True, broker=name).open()
    subscription.close()


def test_what_was_published_before_a_log_was_read_is_in_it(name: str) -> None:
    broker = memory_broker(name)
    for number in range(10):
        broker.publish("t", str(number).encode(), key="k" if number % 2 else None)
    subscription = MemorySource("t", positional=True, broker=name).open()
    messages = list(subscription.poll(100, 0.0))
    assert sorted(int(message.body) for message in messages) == list(range(10))
    assert [int(m.body) for m in messages if m.key == "k"] == [1, 3, 5, 7, 9]
    subscription.close()


def test_every_wrong_setting_of_a_source_is_reported() -> None:
    with pytest.raises(ConfigError) as caught:
        MemorySource("", partitions=0, lease=0)
    assert len(caught.value.problems) == 3


def test_a_source_is_found_by_its_name() -> None:
    assert lookup("memory") is MemorySource
    assert {"memory", "sqlite"} <= set(names())
    with pytest.raises(ConfigError, match=r"no source type 'kafak': there are .*memory"):
        lookup("kafak")
