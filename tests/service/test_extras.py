"""Packages that are not installed are named before the service runs."""

from __future__ import annotations

import sys
from functools import partial
from types import ModuleType

import pytest

from patron import Consumer, MemorySource, Service, SqliteSource, extras
from patron.cache import RedisStore
from patron.clients import AmqpPublisher, KafkaProducer, SnsPublisher, SqsPublisher
from patron.errors import ConfigError, MissingExtra
from patron.http import RateLimit, RouteCache, get
from patron.observe import TraceSettings
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
        (
            SqliteSource("q.db", "t", driver="apsw"),
            "apsw",
            'apsw is not installed: pip install "patron[sqlite]"',
        ),
    ],
)
def test_a_missing_driver_is_named_with_what_brings_it(monkeypatch, source, module, told):
    monkeypatch.setitem(sys.modules, module, None)
    assert list(extras.missing(reading(source))) == [f"component orders: {told}"]


def test_only_the_driver_that_is_used_must_be_there(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda module: None if module == "confluent_kafka" else module)
    assert list(extras.missing(reading(KafkaSource("t", group="g")))) == []


def test_a_module_that_was_put_there_by_hand_counts(monkeypatch):
    monkeypatch.setitem(sys.modules, "pika", ModuleType("pika"))
    assert list(extras.missing(reading(AmqpSource("q")))) == []


@pytest.mark.parametrize("source", [MemorySource("t"), SqliteSource("t.db", "t")])
def test_sources_of_our_own_need_none(source):
    assert list(extras.missing(reading(source))) == []


@pytest.mark.parametrize(
    "options", [{"cache": RouteCache(9, store=REDIS)}, {"limits": [RateLimit(1, store=REDIS)]}]
)
def test_a_route_with_a_store_in_redis_needs_its_driver(monkeypatch, options):
    monkeypatch.setitem(sys.modules, "redis", None)
    service = Service("shop", routes=[get("/a", print, **options), get("/b", print, limits=[RateLimit(1)])])
    assert list(extras.missing(service)) == [
        'route GET /a: redis is not installed: pip install "patron[redis]"'
    ]


def test_components_that_read_nothing_need_none():
    class Idle:
        name = "idle"

        def run(self, stop): ...

    assert list(extras.missing(Service("shop", components=[Idle()]))) == []


@pytest.mark.parametrize(
    ("factory", "module", "told"),
    [
        (
            partial(KafkaProducer, brokers="b"),
            "kafka",
            'kafka-python is not installed: pip install "patron[kafka]"',
        ),
        (
            partial(KafkaProducer, brokers="b", driver="confluent"),
            "confluent_kafka",
            'confluent-kafka is not installed: pip install "patron[confluent]"',
        ),
        (AmqpPublisher, "pika", 'pika is not installed: pip install "patron[amqp]"'),
        (partial(SqsPublisher, queue="q"), "boto3", 'boto3 is not installed: pip install "patron[sqs]"'),
        (SnsPublisher, "boto3", 'boto3 is not installed: pip install "patron[sqs]"'),
        (partial(RedisStore, url=REDIS), "redis", 'redis is not installed: pip install "patron[redis]"'),
    ],
)
def test_the_package_of_a_client_is_missed_before_the_service_runs_or_where_it_is_made(
    monkeypatch, factory, module, told
):
    monkeypatch.setitem(sys.modules, module, None)
    service = Service("shop", resources={"out": factory})
    with pytest.raises(ConfigError) as caught:
        service.inspect()
    assert caught.value.problems == (f"resource out: {told}",)
    with pytest.raises(MissingExtra) as made:
        factory()
    assert str(made.value) == told


@pytest.mark.parametrize("kind", ["x-protobuf", "x-google-protobuf"])
def test_a_route_that_says_to_answer_in_protocol_buffers_needs_the_package(monkeypatch, kind):
    monkeypatch.setitem(sys.modules, "google.protobuf", None)
    service = Service("shop", routes=[get("/a", print, produces=[f"application/{kind}"]), get("/b", print)])
    assert list(extras.missing(service)) == [
        'route GET /a: protobuf is not installed: pip install "patron[protobuf]"'
    ]


def test_a_package_may_be_missing_with_the_one_around_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "google.protobuf", raising=False)
    monkeypatch.setitem(sys.modules, "google", None)
    service = Service("shop", routes=[get("/a", print, produces=["application/x-protobuf"])])
    assert len(list(extras.missing(service))) == 1


def test_sampling_needs_a_client_and_no_sampling_does_not(monkeypatch):
    monkeypatch.setitem(sys.modules, "jaeger_client", None)
    assert list(extras.missing(Service("shop", trace=TraceSettings(sampler_param=0.0)))) == []
    assert list(extras.missing(Service("shop", trace=TraceSettings(sampler_param=0.1)))) == [
        'trace: sampler_param is 0.1: jaeger-client is not installed: pip install "patron[jaeger]"'
    ]


def test_nothing_is_missed_where_everything_is_installed(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda module: module)
    service = Service(
        "shop", components=[Consumer("orders", AmqpSource("q"), print)], resources={"out": AmqpPublisher}
    )
    assert service.inspect().name == "shop"
