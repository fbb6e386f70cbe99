"""The driver confluent under the suite that every source inherits, with both ways of sharing partitions out."""

from __future__ import annotations

import dataclasses

from sources.test_kafka_contract import TestCooperative as Cooperative
from sources.test_kafka_contract import TestEager as Eager

from patron.sources.kafka import KafkaSource


class TestConfluentCooperative(Cooperative):
    # Of which closing gets a tenth: the library's threads end late on a busy machine.
    budget = 3.0

    def source(self) -> KafkaSource:
        # A member that the library closes in the middle of a rebalance does not say good-bye: the others
        # wait until its session has ended.
        return dataclasses.replace(super().source(), driver="confluent", session_timeout=2.0)


class TestConfluentEager(Eager):
    budget = 3.0

    def source(self) -> KafkaSource:
        return dataclasses.replace(super().source(), driver="confluent")
