"""The example on RabbitMQ does what it says, on a real broker."""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import Any

import pika
import pytest
from brokers.rabbitmq_server import RabbitMQServer

pytestmark = [pytest.mark.server, pytest.mark.broker]

CONFIG = Path(__file__).parent.parent.parent / "examples" / "amqp" / "config.yaml"


def test_parcels_reach_the_queues_that_want_them(shop: Any, rabbitmq: RabbitMQServer) -> None:
    name = f"patron-{uuid.uuid4().hex[:12]}"
    env = {"AMQP_URL": rabbitmq.url, "DEPOT_NAME": name}
    shop.start(sys.executable, "-m", "patron", "run", str(CONFIG), env=env)
    shop.until(lambda: shop.request("GET", "/ready").status == 200)
    for number, country in enumerate(["NO", "DE", "AQ"]):
        body = json.dumps({"id": f"p{number}", "country": country}).encode()
        answer = shop.request("POST", "/parcels", body, Content_Type="application/json")
        assert answer.status == 201
    shop.until(lambda: len(shop.lines("label printed")) == 2 and shop.lines("parcel declared"))
    assert sorted(line["parcel"] for line in shop.lines("label printed")) == ["p0", "p1"]
    assert [(line["parcel"], line["country"]) for line in shop.lines("parcel declared")] == [
        ("p0", "parcel.NO")
    ]
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq.url))
    channel = connection.channel()
    dead_letters = f"{name}.labels.dlq"
    shop.until(lambda: channel.queue_declare(dead_letters, passive=True).method.message_count == 1)
    _, properties, _ = channel.basic_get(dead_letters, auto_ack=True)
    assert properties.headers["x-patron-reason"] == "nobody delivers to Antarctica"
    shop.kill_group()
    for queue in ("labels", "customs", "labels.dlq", "customs.dlq"):
        channel.queue_delete(f"{name}.{queue}")
    channel.exchange_delete(f"{name}.parcels")
    connection.close()
