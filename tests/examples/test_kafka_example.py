"""The example on Kafka does what it says, on a real broker."""

from __future__ import annotations

import contextlib
import json
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from brokers.kafka_server import KafkaServer

from patron.sources.kafka import KafkaSource

pytestmark = [pytest.mark.server, pytest.mark.broker]

CONFIG = Path(__file__).parent.parent.parent / "examples" / "kafka" / "config.yaml"


def test_sales_reach_both_groups_and_what_is_none_is_a_dead_letter(
    shop: Any, real_kafka: KafkaServer
) -> None:
    name = f"patron-{uuid.uuid4().hex[:12]}"
    env = {"KAFKA_URL": real_kafka.url, "TILL_NAME": name}
    shop.start(sys.executable, "-m", "patron", "run", str(CONFIG), env=env)
    shop.until(lambda: shop.request("GET", "/ready").status == 200)
    for number, cents in enumerate([250, 150, 0]):
        body = json.dumps({"id": f"s{number}", "shop": "oslo", "cents": cents}).encode()
        assert shop.request("POST", "/sales", body, Content_Type="application/json").status == 201
    shop.until(lambda: json.loads(shop.request("GET", "/takings/oslo").body) == {"cents": 400})
    shop.until(lambda: sum(line["count"] for line in shop.lines("sales indexed")) == 3)
    positions = [line["position"] for line in shop.lines("sale booked")]
    assert positions == sorted(positions)
    letters = KafkaSource(f"{name}.sales", "test", brokers=real_kafka.url).letters(f"{name}.takings.dlq")
    with contextlib.closing(letters) as shelf:
        found: list[Any] = []
        shop.until(lambda: found.extend(shelf.poll(1, 0.1)) or found)
    assert found[0].headers["x-patron-reason"] == "a sale of 0 cents is none"
