"""How far a consumer is behind, by partition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from patron.observe.metrics import Gauge
from patron.sources._kafka_lanes import Partition

__all__ = ["METRICS", "OffsetGauges"]

# 0 in a process that has the partition no more, so that the sum over processes is right.
offset_diff = Gauge(
    "component_kafka_offset_diff",
    "Offsets between what was fetched of a partition and its end.",
    ("group", "topic", "partition"),
    across="livesum",
)

METRICS = [offset_diff]


class OffsetGauges:
    """The gauges of one subscription."""

    def __init__(self, group: str) -> None:
        self._group = group
        self._children: dict[Partition, Any] = {}

    def set(self, behind: Mapping[Partition, int]) -> None:
        """Show *behind*, and 0 for the partitions that are not in it."""
        for partition in behind.keys() - self._children.keys():
            self._children[partition] = offset_diff.bind(
                group=self._group, topic=partition.topic, partition=str(partition.partition)
            )
        for partition, child in self._children.items():
            child.set(behind.get(partition, 0))
