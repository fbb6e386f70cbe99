"""The driver confluent when members of its group come and go."""

from __future__ import annotations

from functools import partial

import pytest
from sources import test_kafka_rebalance
from sources.test_kafka_rebalance import (  # noqa: F401 - the same tests, with this driver
    test_a_member_too_many_is_ready_without_a_partition,
    test_a_slow_processor_keeps_its_membership_and_its_message,
    test_members_come_and_go_and_nothing_is_lost_doubled_or_overtaken,
)


@pytest.fixture(autouse=True)
def _confluent(monkeypatch: pytest.MonkeyPatch) -> None:
    made = partial(test_kafka_rebalance.source_on, driver="confluent")
    monkeypatch.setattr(test_kafka_rebalance, "source_on", made)
