"""The SQLite source under the suite that every source inherits, on both drivers."""

from __future__ import annotations

import pytest

from patron.consumer.source import Subscription
from patron.sources.sqlite import SqliteSource
from patron.testing.contract import SourceContract


class TestWithTheStandardLibrary(SourceContract):
    def source(self) -> SqliteSource:
        return SqliteSource(self.tmp_path / "queue.db", self.topic)

    def crash(self, subscription: Subscription) -> None:
        subscription._release()  # what a dead process leaves: closed files, and leases that nobody gave back


class TestWithApsw(TestWithTheStandardLibrary):
    @pytest.fixture(autouse=True)
    def _apsw(self) -> None:
        pytest.importorskip("apsw")

    def source(self) -> SqliteSource:
        return SqliteSource(self.tmp_path / "queue.db", self.topic, driver="apsw")
