"""Drivers that are not installed are named before the service runs."""

from __future__ import annotations

import sys

import pytest

from patron import Consumer, MemorySource, Service, SqliteSource
from patron.config import drivers
from patron.http import RateLimit, RouteCache, get
from patron.sources.amqp import AmqpSource
from patron.sources.kafka import KafkaSource
from patron.sources.sqs import SqsSource

REDIS = "redis://127.0.0.1:1/0"


def reading(source):
    return Service("shop", components=[Consumer("orders", source, print)])


@pytest.mark.parametrize(
    ("source", "module", "told"),
    [
        (KafkaSource("t", group="g"), "kafka", 'kafka-python is not installed: pip install "patron[kafka]"'),
        (
            KafkaSource("t", group="g", driver="confluent"),
            "confluent_kafka",
            'confluent-kafka is not installed: pip install "patron[confluent]"',
        ),
        (AmqpSource("q"), "pika", 'pika is not installed: pip install "patron[amqp]"'),
        (SqsSource("q"), "boto3", 'boto3 is not installed: pip install "patron[sqs]"'),
    ],
)
def test_a_missing_driver_is_named_with_what_brings_it(monkeypatch, source, module, told):
    monkeypatch.setitem(sys.modules, module, None)
    assert list(drivers.missing(reading(source))) == [f"component orders: {told}"]


def test_only_the_driver_that_is_used_must_be_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    assert list(drivers.missing(reading(KafkaSource("t", group="g")))) == []


@pytest.mark.parametrize("source", [MemorySource("t"), SqliteSource("t.db", "t")])
def test_sources_of_our_own_need_none(source):
    assert list(drivers.missing(reading(source))) == []


@pytest.mark.parametrize(
    "options", [{"cache": RouteCache(9, store=REDIS)}, {"limits": [RateLimit(1, store=REDIS)]}]
)
def test_a_route_with_a_store_in_redis_needs_its_driver(monkeypatch, options):
    monkeypatch.setitem(sys.modules, "redis", None)
    service = Service("shop", routes=[get("/a", print, **options), get("/b", print, limits=[RateLimit(1)])])
    assert list(drivers.missing(service)) == [
        'route GET /a: redis is not installed: pip install "patron[redis]"'
    ]


def test_components_that_read_nothing_need_none():
    class Idle:
        name = "idle"

        def run(self, stop): ...

    assert list(drivers.missing(Service("shop", components=[Idle()]))) == []
