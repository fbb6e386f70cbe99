"""The metrics of the cache stores."""

from __future__ import annotations

from patron.observe.metrics import Histogram, MetricSet

__all__ = ["METRICS", "METRIC_SET", "REDIS_SECONDS"]

# Every command that was sent to Redis, or could not be; those that were refused in the pause after a failure are
# not among them. `success` is true or false.
REDIS_SECONDS = Histogram(
    "client_redis_cmd_duration_seconds",
    "Seconds from a command to Redis until its answer.",
    ("command", "success"),
    (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
)

METRICS = (REDIS_SECONDS,)
METRIC_SET = MetricSet(None, REDIS_SECONDS, "success")
