"""The metrics of periodic components."""

from __future__ import annotations

from patron.observe.metrics import Counter, Gauge, Histogram, MetricSet

__all__ = ["METRICS", "TRIES"]

# Runs, by how they ended: succeeded, failed (out of tries), skipped (the function raised `Skip`),
# stopped (the service stopped between two tries).
runs = Counter("component_periodic_runs_total", "Runs by how they ended.", ("name", "status"))

# Tries of the function, by how they ended: succeeded, failed, retried, rejected, skipped.
run_seconds = Histogram(
    "component_periodic_run_seconds", "How long the function ran, once for each try.", ("name", "outcome")
)

# Ticks that nobody ran for, since the run before them took too long or the process stood still.
skipped_ticks = Counter(
    "component_periodic_skipped_ticks_total", "Ticks that passed while nothing could run.", ("name",)
)

# The age of the last success is time() minus this.
last_success = Gauge(
    "component_periodic_last_success_timestamp_seconds",
    "When a run last succeeded, in seconds since the epoch.",
    ("name",),
    across="livemax",
)

METRICS = [runs, run_seconds, skipped_ticks, last_success]

TRIES = MetricSet(None, run_seconds, "outcome")
"""What the operation of a try feeds."""
