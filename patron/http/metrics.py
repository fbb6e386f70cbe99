"""The metrics of the HTTP component."""

from __future__ import annotations

from patron.observe.metrics import Counter, Histogram, MetricSet

__all__ = ["HANDLED", "METRICS", "METRIC_SET", "SECONDS"]

_LABELS = ("method", "path", "status_code")

# Every request that was answered, the admin routes' too; `path` is the pattern of the route.
HANDLED = Counter("component_http_handled_total", "Requests answered by the HTTP component.", _LABELS)

# From the request's head to the end of its answer. Most answers take about a millisecond.
SECONDS = Histogram(
    "component_http_handled_seconds",
    "Seconds that the HTTP component took to answer.",
    _LABELS,
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)

METRICS = (HANDLED, SECONDS)
METRIC_SET = MetricSet(HANDLED, SECONDS, "status_code")
