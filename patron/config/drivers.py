"""Which packages the sources of a service need that are not installed: said before it runs, not when it fails."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from patron.errors import MissingExtra
from patron.service import Service

__all__ = ["missing"]

#: By the ``driver`` of a source, else its ``system``: the module, its package, and the extra that brings it.
_DRIVERS = {
    "kafka-python": ("kafka", "kafka-python", "kafka"),
    "confluent": ("confluent_kafka", "confluent-kafka", "confluent"),
    "amqp": ("pika", "pika", "amqp"),
    "sqs": ("boto3", "boto3", "sqs"),
}


def missing(service: Service) -> Iterator[str]:
    """One line for each component, and each store of a route, whose driver is not there. Nothing is imported."""
    for component in service.components:
        source = getattr(component, "source", None)
        module, package, extra = _DRIVERS.get(_driver(source), ("", "", ""))
        if module and find_spec(module) is None:
            yield f"component {component.name}: {MissingExtra(package, extra)}"
    for route in service.routes:
        if any("://" in store for store in route.stores) and find_spec("redis") is None:
            yield f"route {route.method} {route.path}: {MissingExtra('redis', 'redis')}"


def _driver(source: Any) -> str:
    return str(getattr(source, "driver", None) or getattr(source, "system", ""))
