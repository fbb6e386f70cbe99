"""The metrics of consumers, and the tally that keeps them off the hot path."""

from __future__ import annotations

import collections
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from patron.observe.metrics import Counter, Gauge, Histogram

__all__ = ["FORMERLY", "METRICS", "ConsumerMetrics", "Tally"]

_LABELS = ("name", "topic")

# What happened to messages: received, processed, failed (one failed try), retried, skipped,
# requeued, rejected (a processor's own `Reject`), dead-lettered, undecodable, redelivered
# (received again), deduplicated (a newer one of its key was in the batch), stale (finished after
# it was taken away), given-back (unstarted, at a stop).
messages = Counter(
    "component_consumer_message_status_total",
    "Messages by what happened to them.",
    (*_LABELS, "status"),
)

# Tries of the processor, by how they ended; a batch is one try.
processing_seconds = Histogram(
    "component_consumer_processing_seconds",
    "How long the processor ran, once for each try.",
    _LABELS,
)

# Connections lost, settlements refused, dead letters not published.
errors = Counter(
    "component_consumer_errors_total",
    "Failures of the consumer itself, not of a message.",
    ("name",),
)

# Received and not settled; what prefetch bounds.
in_flight = Gauge("component_consumer_in_flight", "Messages received and not yet settled.", _LABELS)

# How long the message that was received last had waited, the oldest of its poll.
message_age = Gauge(
    "component_consumer_message_age_seconds",
    "Seconds between publishing and receiving, of the oldest message received last.",
    _LABELS,
    across="livemax",
)

# Waiting in the broker, as far as the source can tell.
lag = Gauge("component_consumer_lag", "Messages that wait in the broker.", _LABELS, across="livemax")

# Of those that wait, as far as the source can tell; 0 when none does.
oldest_age = Gauge(
    "component_consumer_oldest_message_age_seconds",
    "Seconds since the oldest message that waits in the broker was published.",
    _LABELS,
    across="livemax",
)

# The age of the last poll is time() minus this; an age that a hung thread sets itself would lie.
last_poll = Gauge(
    "component_consumer_last_poll_timestamp_seconds",
    "When the source was last asked, in seconds since the epoch.",
    _LABELS,
    across="livemin",
)

# 1 while the consumer has what it reads assigned, else 0.
assigned = Gauge("component_consumer_assigned", "Lanes or queues that the consumer may read now.", _LABELS)

METRICS = [messages, processing_seconds, errors, in_flight, message_age, lag, oldest_age, last_poll, assigned]

FORMERLY = {
    "component_kafka_message_status": messages.name,
    "component_kafka_consumer_errors": errors.name,
    "component_async_consumer_errors": errors.name,
    "component_kafka_offset_diff": lag.name,
    "component_amqp_message_age": message_age.name,
    "component_amqp_message_counter": messages.name,
    "component_amqp_queue_size": lag.name,
    "component_sqs_message_age": message_age.name,
    "component_sqs_message_counter": messages.name,
    "component_sqs_queue_size": lag.name,
}
"""Names of the Go original (its v0.73) and the ones that took their place."""


class ConsumerMetrics:
    """The children of one consumer, bound once; its counters may be used by any thread."""

    def __init__(self, name: str, topic: str) -> None:
        self._labels = {"name": name, "topic": topic}
        self._status: dict[str, Any] = {}
        self.processing = processing_seconds.bind(**self._labels)
        self.errors = errors.bind(name=name)
        self.in_flight = in_flight.bind(**self._labels)
        self.message_age = message_age.bind(**self._labels)
        self.lag = lag.bind(**self._labels)
        self.oldest_age = oldest_age.bind(**self._labels)
        self.last_poll = last_poll.bind(**self._labels)
        self.assigned = assigned.bind(**self._labels)
        for status in ("received", "processed", "failed", "dead-lettered"):
            self._bound(status)

    def count(self, status: str, number: int = 1) -> None:
        """*number* messages more have this status."""
        if number:
            (self._status.get(status) or self._bound(status)).inc(number)

    def _bound(self, status: str) -> Any:
        child = self._status[status] = messages.bind(**self._labels, status=status)
        return child


class Tally:
    """
    Durations, added up by one thread and handed to a histogram in one go.

    Observing one by one takes the lock of the histogram, and with several processes a write into a
    mapped file, twice per message; a run of messages mostly falls into one bucket.
    """

    __slots__ = ("_bounds", "_child", "_seconds", "add")

    def __init__(self, child: Any) -> None:
        self._child = child
        # The inner parts of a prometheus_client histogram: a value per bucket, not cumulated, and the sum.
        self._bounds: list[float] = child._upper_bounds
        self._seconds: list[float] = []
        self.add: Callable[[float], None] = self._seconds.append
        """One more duration."""

    def flush(self) -> None:
        """Hand over what was added since the last time."""
        seconds = self._seconds
        if seconds:
            self._child._sum.inc(sum(seconds))
            for bucket, count in self._counted(seconds):
                self._child._buckets[bucket].inc(count)
            seconds.clear()

    def _counted(self, seconds: Sequence[float]) -> Iterable[tuple[int, int]]:
        if max(seconds) <= self._bounds[0]:
            return [(0, len(seconds))]
        return collections.Counter(bisect_left(self._bounds, each) for each in seconds).items()
