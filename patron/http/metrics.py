"""The metrics of the HTTP component."""

from __future__ import annotations

from patron.observe.metrics import Counter, Histogram, MetricSet

__all__ = ["HANDLED", "LIMITED", "LIMIT_ERRORS", "METRICS", "METRIC_SET", "SECONDS"]

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

# Requests answered with 429 by a `RateLimit`; `by` is address, principal or route.
LIMITED = Counter("component_http_limited_total", "Requests refused by a rate limit.", ("path", "by"))

# Requests for which the store of a `RateLimit` failed; they are let in unless the limit says otherwise.
LIMIT_ERRORS = Counter(
    "component_http_limit_errors_total", "Requests whose rate limit could not be checked.", ("path", "by")
)

METRICS = (HANDLED, SECONDS, LIMITED, LIMIT_ERRORS)
METRIC_SET = MetricSet(HANDLED, SECONDS, "status_code")
