"""The memory source keeps the contract of every source, as a queue and as a log."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from patron.consumer.source import Source, Subscription
from patron.sources.memory import MemorySource, forget_broker, memory_broker
from patron.testing.contract import SourceContract


class _Memory(SourceContract):
    @pytest.fixture(autouse=True)
    def _own_broker(self, _world: None) -> Iterator[None]:
        yield
        forget_broker(self.topic)

    def lose(self) -> bool:
        memory_broker(self.topic).lose()
        return True


class TestQueue(_Memory):
    def source(self) -> Source:
        return MemorySource(self.topic, broker=self.topic)

    def crash(self, subscription: Subscription) -> None:
        memory_broker(self.topic).expire_leases(self.topic)


class TestLog(_Memory):
    def source(self) -> Source:
        return MemorySource(self.topic, positional=True, broker=self.topic)
