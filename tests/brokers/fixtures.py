"""
Servers as fixtures: ``kafka``, ``rabbitmq``, ``sqs``, ``redis`` for the session, ``own_...`` to be killed; ``proxy``;
``secured_kafka`` and ``secured_rabbitmq`` with TLS and passwords.

Each is started when the first test asks for it, unless ``PATRON_TEST_KAFKA_URL`` and so on lead to one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from brokers.kafka_secured import SecuredKafka
from brokers.kafka_server import Kafka, KafkaServer, Tansu
from brokers.moto_process import VARIABLES, ExactMoto, Moto, SqsServer
from brokers.processes import Server, ServerProcess, Unavailable
from brokers.rabbitmq_secured import SecuredRabbitMQ
from brokers.rabbitmq_server import RabbitMQ, RabbitMQServer
from brokers.redis_server import Redis, RedisServer
from brokers.requirements import missing, required
from brokers.tcp_proxy import Proxy

Folders = pytest.TempPathFactory


def _given(server: type[Server], variable: str) -> Server | None:
    """The server that the environment names."""
    address = os.environ.get(variable)
    if not address:
        return None
    parts = urlsplit(address if "//" in address else f"//{address}")
    assert parts.port is not None, f"{variable} {address!r} names no port"
    return server(parts.port, host=parts.hostname or "127.0.0.1")


def _run(server: type[ServerProcess], folder: Path) -> Iterator[Any]:
    """A server of our own, as long as the fixture lives."""
    try:
        running = server(folder)
    except Unavailable as reason:
        missing(server.name, str(reason))
    try:
        running.start()
        yield running
    finally:
        running.close()


def _session(server: type[ServerProcess], given: Server | None, folders: Folders) -> Iterator[Server]:
    if given is not None:
        yield given
    else:
        yield from _run(server, folders.mktemp(server.name))


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: Folders) -> Iterator[KafkaServer]:
    """Kafka: ``kafka.url`` is ``host:port``; ``kafka.real`` is False for the stand-in that needs no Java."""
    given = _given(KafkaServer, "PATRON_TEST_KAFKA_URL")
    if given is not None and (ports := os.environ.get("PATRON_TEST_KAFKA_PROXIED")):
        given.proxied, given.proxy = map(int, ports.split(","))
    yield from _session(_kafka(), given, tmp_path_factory)


def _kafka() -> type[ServerProcess]:
    """The real one; Tansu when it cannot be had and nobody insists on it."""
    if required("kafka"):
        return Kafka
    try:
        Kafka.available()
    except Unavailable:
        return Tansu
    return Kafka


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: Folders) -> Iterator[RabbitMQServer]:
    """RabbitMQ: ``rabbitmq.url`` is ``amqp://guest:guest@host:port/``."""
    yield from _session(RabbitMQ, _given(RabbitMQServer, "PATRON_TEST_RABBITMQ_URL"), tmp_path_factory)


@pytest.fixture(scope="session")
def sqs(tmp_path_factory: Folders) -> Iterator[SqsServer]:
    """SQS and SNS: ``sqs.url`` is the endpoint; the variables with the credentials are set when they are not."""
    with pytest.MonkeyPatch.context() as variables:
        for name, value in VARIABLES.items():
            variables.setenv(name, os.environ.get(name, value))
        yield from _session(Moto, _given(SqsServer, "PATRON_TEST_SQS_URL"), tmp_path_factory)


@pytest.fixture(scope="session")
def exact_sqs(tmp_path_factory: Folders) -> Iterator[SqsServer]:
    """SQS whose FIFO groups keep their order when receivers are killed, which moto's own do not."""
    yield from _session(ExactMoto, _given(SqsServer, "PATRON_TEST_SQS_URL"), tmp_path_factory)


@pytest.fixture(scope="session")
def redis(tmp_path_factory: Folders) -> Iterator[RedisServer]:
    """Redis: ``redis.url`` is ``redis://host:port/0``, which tests share: each has a prefix of its own."""
    yield from _session(Redis, _given(RedisServer, "PATRON_TEST_REDIS_URL"), tmp_path_factory)


@pytest.fixture(scope="session")
def secured_kafka(tmp_path_factory: Folders) -> Iterator[SecuredKafka]:
    """Kafka that wants passwords or certificates, and speaks TLS; always a private one."""
    yield from _run(SecuredKafka, tmp_path_factory.mktemp("secured-kafka"))


@pytest.fixture(scope="session")
def secured_rabbitmq(tmp_path_factory: Folders) -> Iterator[SecuredRabbitMQ]:
    """RabbitMQ that speaks TLS and wants certificates; always a private one."""
    yield from _run(SecuredRabbitMQ, tmp_path_factory.mktemp("secured-rabbitmq"))


@pytest.fixture
def real_kafka(kafka: KafkaServer) -> KafkaServer:
    """Kafka for what the stand-in cannot do."""
    if not kafka.real:
        missing("kafka", "Tansu cannot do this: it needs Apache Kafka, with Java 17 and Maven")
    return kafka


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[Kafka]:
    """A real Kafka of this test alone, which may ``kill()``, ``stop()``, ``start()`` and ``restart()`` it."""
    yield from _run(Kafka, tmp_path / "kafka")


@pytest.fixture
def own_rabbitmq(tmp_path: Path) -> Iterator[RabbitMQ]:
    """A RabbitMQ of this test alone, which may ``kill()``, ``stop()``, ``start()`` and ``restart()`` it."""
    yield from _run(RabbitMQ, tmp_path / "rabbitmq")


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Redis]:
    """A Redis of this test alone, which may ``kill()``, ``freeze()``, ``start()`` and ``restart()`` it."""
    yield from _run(Redis, tmp_path / "redis")


@pytest.fixture
def proxy() -> Iterator[Callable[[Server], Proxy]]:
    """``proxy(rabbitmq).url`` leads to the server through a proxy, which can ``cut()`` the connections and more."""
    made: list[Proxy] = []

    def through(server: Server) -> Proxy:
        try:
            made.append(Proxy(server))
        except Unavailable as reason:
            missing(server.name, str(reason))
        return made[-1]

    yield through
    for each in made:
        each.close()
