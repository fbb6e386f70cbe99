"""What remains of an HTTP request's time is the time-out of every client that it calls."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest
from werkzeug.test import Client, TestResponse

from patron.clients.amqp import AmqpPublisher
from patron.clients.kafka import KafkaProducer
from patron.clients.sns import SnsPublisher
from patron.clients.sqs import SqsPublisher
from patron.errors import PatronError
from patron.http import build, post
from patron.reliability import remaining

OWN = 60.0
"""Seconds that each client would wait by itself."""


@pytest.fixture
def silence() -> Iterator[int]:
    """The port of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


def kafka(port: int):
    pytest.importorskip("kafka")
    producer = KafkaProducer([f"127.0.0.1:{port}"], timeout=OWN)
    return producer, lambda: producer.send("orders", {"a": 1})


def amqp(port: int):
    pytest.importorskip("pika")
    publisher = AmqpPublisher(f"amqp://guest:guest@127.0.0.1:{port}/", timeout=OWN)
    return publisher, lambda: publisher.publish("", "orders", {"a": 1})


def sqs(port: int):
    pytest.importorskip("boto3")
    publisher = SqsPublisher("orders", endpoint_url=f"http://127.0.0.1:{port}", timeout=OWN)
    return publisher, lambda: publisher.publish({"a": 1})


def sns(port: int):
    pytest.importorskip("boto3")
    publisher = SnsPublisher(endpoint_url=f"http://127.0.0.1:{port}", timeout=OWN)
    return publisher, lambda: publisher.publish({"a": 1}, topic_arn="arn:aws:sns:eu-west-1:1:orders")


def asked(call: Callable[[], object], milliseconds: int, errors: list[str]) -> TestResponse:
    def process(request):
        try:
            call()
        except PatronError as error:
            errors.append(type(error).__name__)
            raise

    app = build(routes=[post("/", process)])
    app.start()
    return Client(app).post("/", headers={"X-Request-Timeout-Ms": str(milliseconds)})


@pytest.mark.parametrize("make", [kafka, amqp, sqs, sns], ids=lambda make: make.__name__)
def test_a_broker_that_says_nothing_holds_a_request_no_longer_than_its_client_waits(make, silence):
    client, call = make(silence)
    errors: list[str] = []
    began = time.monotonic()
    try:
        answer = asked(call, 300, errors)
        took = time.monotonic() - began
    finally:
        client.timeout = 0.1  # what close() waits for what was not confirmed
        client.close()
    assert answer.status_code in (503, 504)
    assert errors
    assert took < OWN / 2


@pytest.mark.parametrize("make", [kafka, amqp, sqs, sns], ids=lambda make: make.__name__)
def test_when_the_time_is_over_nothing_is_sent_and_the_answer_is_a_504(make, silence):
    client, call = make(silence)
    errors: list[str] = []

    def late():
        while remaining():
            time.sleep(0.001)
        call()

    try:
        answer = asked(late, 20, errors)
    finally:
        client.close()
    assert (answer.status_code, errors) == (504, ["DeadlineExceeded"])
