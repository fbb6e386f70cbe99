"""Where a group begins to read partitions, asked for over confluent-kafka."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from patron.observe import log
from patron.sources import _kafka_start as starting
from patron.sources._kafka_confluent_library import END, Client, KafkaException, TopicPartition, patiently
from patron.sources._kafka_lanes import Partition

if TYPE_CHECKING:
    from patron.sources.kafka import KafkaSource

__all__ = ["OLDEST", "offsets_at", "places_to_begin", "starting_points"]

OLDEST = -2
"""As a time stamp of the request ListOffsets, whose -1 is `END`."""

Offsets = dict[Partition, int]


def places_to_begin(
    client: Client, source: KafkaSource, fresh: Sequence[Partition]
) -> tuple[Offsets, Offsets]:
    """
    Where the group goes on in the *fresh* partitions, and where they end now.

    Raises:
        KafkaException: no answer within ``request_timeout``.
    """
    wait = source.request_timeout
    asked = [TopicPartition(*at) for at in fresh]
    found = patiently(lambda: client.committed(asked, timeout=wait), wait) if asked else []
    starts = {Partition(each.topic, each.partition): each.offset for each in found if each.offset >= 0}
    ends = offsets_at(client, fresh, END, wait)
    missing = [at for at in fresh if at not in starts]
    for at, offset in starting_points(client, source, missing).items():
        log.info("group starts", group=source.group, topic=at.topic, partition=at.partition, offset=offset)
        starts[at] = offset
    if missing and source.start != starting.OLDEST:
        # Else a member that gets the partition before the first commit would start later.
        first = [TopicPartition(*at, starts[at]) for at in missing]
        with contextlib.suppress(KafkaException):
            client.commit(offsets=first, asynchronous=False)
    return starts, ends


def starting_points(client: Client, source: KafkaSource, partitions: Sequence[Partition]) -> Offsets:
    """Where the settings say to start in *partitions*. Raises KafkaException."""
    wait = source.request_timeout
    point = starting.point(source.start, time.time())
    if point == starting.OLDEST:
        return offsets_at(client, partitions, OLDEST, wait)
    ends = offsets_at(client, partitions, END, wait)
    if point == starting.NEWEST:
        return ends
    found = offsets_at(client, partitions, point, wait)
    return {at: ends[at] if found[at] < 0 else found[at] for at in partitions}


def offsets_at(client: Client, partitions: Sequence[Partition], moment: int, wait: float) -> Offsets:
    """
    The first offsets at or after *moment*, in milliseconds since the epoch; -1 where there is none.

    Raises:
        KafkaException: no answer within *wait* seconds.
    """
    asked = [TopicPartition(*at, moment) for at in partitions]
    if not asked:
        return {}
    found = patiently(lambda: client.offsets_for_times(asked, timeout=wait), wait)
    return {Partition(each.topic, each.partition): each.offset for each in found}
