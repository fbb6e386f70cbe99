"""
Metrics of the user that were made before this process knew where to keep their values.

A module that is named in the configuration is imported before the service starts, and its
``prometheus_client`` metrics are made then, with values that only this process sees.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary
from prometheus_client.metrics import MetricWrapperBase

__all__ = ["adopt"]


def adopt(registry: CollectorRegistry) -> None:
    """Let the metrics of *registry* keep their values where new ones do; the objects stay the same."""
    for collector in list(registry._collector_to_names):
        if isinstance(collector, (Counter, Gauge, Histogram, Summary)):
            for metric in _children(collector):
                _move(metric)


def _children(metric: MetricWrapperBase) -> Iterable[Any]:
    labelled = bool(metric._labelnames)
    return list(metric._metrics.values()) if labelled else [metric]


def _move(metric: Any) -> None:
    """Make the values of *metric* anew, and count in them what was counted in memory so far."""
    before = [(value.get(), value._multiprocess) for value in _values(metric)]
    metric._metric_init()
    for value, (counted, elsewhere) in zip(_values(metric), before, strict=True):
        if counted and not elsewhere:
            value.inc(counted)


def _values(metric: Any) -> list[Any]:
    if isinstance(metric, Histogram):
        return [metric._sum, *metric._buckets]
    return [metric._count, metric._sum] if isinstance(metric, Summary) else [metric._value]
