"""The example with SNS and SQS does what its first lines say."""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from brokers.moto_process import VARIABLES, SqsServer

from patron.sources.sqs import SqsSource

pytestmark = [pytest.mark.server, pytest.mark.broker]

ROOT = Path(__file__).parent.parent.parent
CONFIG = ROOT / "examples" / "sqs" / "config.yaml"


@pytest.fixture
def shipping(tmp_path: Path, sqs: SqsServer, harness: ModuleType) -> Iterator[Any]:
    """The service, on a topic and queues of its own."""
    process = harness.ServiceProcess(tmp_path, harness.free_port())
    process.parcels = f"parcels-{uuid.uuid4().hex[:12]}"
    given = {name: os.environ.get(name, value) for name, value in VARIABLES.items()}
    env = {**given, "AWS_ENDPOINT_URL": sqs.url, "PARCELS": process.parcels}
    process.start(sys.executable, "-m", "patron", "run", str(CONFIG), env=env)
    yield process
    process.kill_group()


def post(shipping: Any, parcel: dict[str, Any]) -> str:
    body = json.dumps(parcel).encode()
    answer = shipping.request("POST", "/parcels", body, Content_Type="application/json")
    assert answer.status == 201
    return json.loads(answer.body)["id"]


def test_a_parcel_is_announced_and_weighed_and_one_too_heavy_is_a_dead_letter(
    shipping: Any, sqs: SqsServer
) -> None:
    light = post(shipping, {"sender": "c1", "grams": 1200})
    heavy = post(shipping, {"sender": "c1", "grams": 1_000_000})
    shipping.until(lambda: shipping.request("GET", f"/parcels/{light}").status == 200)
    assert shipping.json(f"/parcels/{light}") == {"id": light, "class": "parcel"}
    letters = SqsSource(
        f"{shipping.parcels}-to-weigh-dlq", endpoint_url=sqs.url, wait=0.1, create=True
    ).open()
    try:
        received: list[Any] = []
        shipping.until(lambda: received.extend(letters.poll(1, 0.1)) or received)
        assert received[0].decode()["id"] == heavy
        assert received[0].headers["x-patron-reason"] == "1000000 g: nobody can lift that"
        letters.ack(received)
    finally:
        letters.close()
