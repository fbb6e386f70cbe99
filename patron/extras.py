"""Packages beside the core: which of them a service needs that are not installed, said before it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from patron.calling import named
from patron.errors import MissingExtra

if TYPE_CHECKING:
    from patron.service import Service

__all__ = ["missing", "need"]

#: By package: the module that it brings, and the extra that brings it.
_EXTRAS: Mapping[str, tuple[str, str]] = {
    "kafka-python": ("kafka", "kafka"),
    "confluent-kafka": ("confluent_kafka", "confluent"),
    "pika": ("pika", "amqp"),
    "boto3": ("boto3", "sqs"),
    "apsw": ("apsw", "sqlite"),
    "redis": ("redis", "redis"),
    "jaeger-client": ("jaeger_client", "jaeger"),
    "protobuf": ("google.protobuf", "protobuf"),
}
#: By the ``driver`` of a source or a producer, else the ``system`` of a source.
_DRIVERS = {
    "kafka-python": "kafka-python",
    "confluent": "confluent-kafka",
    "amqp": "pika",
    "sqs": "boto3",
    "apsw": "apsw",
}
#: By the name of a factory of resources.
_CLIENTS = {
    "patron.clients.amqp:AmqpPublisher": "pika",
    "patron.clients.sns:SnsPublisher": "boto3",
    "patron.clients.sqs:SqsPublisher": "boto3",
    "patron.cache.redis:RedisStore": "redis",
}
_KAFKA = "patron.clients.kafka:KafkaProducer"
_PROTOBUF = ("application/x-protobuf", "application/x-google-protobuf")


def need(driver: str) -> None:
    """
    Go on only if the package of *driver* is installed; it is not imported.

    Raises:
        MissingExtra: it is not.
    """
    if lacking := _lacking(_DRIVERS[driver]):
        raise lacking


def missing(service: Service) -> Iterator[str]:
    """One line for each part of *service* that needs what is not installed. Nothing is imported."""
    for where, package in _needs(service):
        if lacking := _lacking(package):
            yield f"{where}: {lacking}"


def _lacking(package: str) -> MissingExtra | None:
    if not package:
        return None
    module, extra = _EXTRAS[package]
    return None if _is_there(module) else MissingExtra(package, extra)


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package around it
        return False
    except ValueError:  # it was imported, or put there by hand, without a spec
        return True


def _needs(service: Service) -> Iterator[tuple[str, str]]:
    """Each part of *service* with the package that it works with, if any."""
    for component in service.components:
        yield f"component {component.name}", _driver(getattr(component, "source", None))
    for name, factory in service.resources.items():
        yield f"resource {name}", _client(factory)
    for route in service.routes:
        where = f"route {route.method} {route.path}"
        if any("://" in store for store in route.stores):
            yield where, "redis"
        if any(name in _PROTOBUF for name in route.produces):
            yield where, "protobuf"
    if service.trace.sampler_param:
        yield f"trace: sampler_param is {service.trace.sampler_param}", "jaeger-client"


def _driver(source: Any) -> str:
    return _DRIVERS.get(str(getattr(source, "driver", None) or getattr(source, "system", "")), "")


def _client(factory: Any) -> str:
    if named(factory) != _KAFKA:
        return _CLIENTS.get(named(factory), "")
    given = factory.keywords if isinstance(factory, partial) else {}
    return _DRIVERS.get(given.get("driver", "kafka-python"), "")
