"""The quick start does what the README says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

pytestmark = pytest.mark.server

ROOT = Path(__file__).parent.parent.parent
ORDER = {"customer": "c1", "items": [{"sku": "A1", "quantity": 2}]}


def post(shop: Any, order: Any, **headers: str) -> Any:
    body = order if isinstance(order, bytes) else json.dumps(order).encode()
    return shop.request("POST", "/orders", body, Content_Type="application/json", **headers)


def alive(shop: Any) -> bool:
    try:
        return shop.get("/alive").status == 200
    except OSError:
        return False


def status_of(shop: Any, order_id: str) -> str:
    return shop.json(f"/orders/{order_id}")["status"]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_order_is_accepted_then_processed_and_every_worker_knows(shop: Any, workers: str) -> None:
    shop.run(PATRON_WORKERS=workers)
    answer = post(shop, ORDER)
    accepted = json.loads(answer.body)
    assert (answer.status, accepted["status"]) == (201, "accepted")
    shop.until(lambda: {status_of(shop, accepted["id"]) for _ in range(10)} == {"processed"})


def test_products_are_shown_and_each_has_an_id_of_its_own(shop: Any) -> None:
    shop.run()
    products = shop.json("/products")
    assert products[0] == {"id": "A1", "name": "kettle", "cents": 2990}
    assert [shop.json(f"/products/{product['id']}") for product in products] == products
    assert shop.get("/products/nothing").status == 404
    shop.signal(signal.SIGTERM)
    assert shop.wait() == 0
    assert shop.run().json("/products") == products, "they are stored once"


def test_the_answer_about_products_is_kept_and_renewed_for_who_asks_once_it_is_two_seconds_old(
    shop: Any,
) -> None:
    shop.run()
    old = shop.get("/products/A1")
    assert (old.headers["Cache-Control"], old.headers["Age"]) == ("max-age=30", "0")
    change(shop.database, "UPDATE products SET cents = 1 WHERE id = 'A1'")
    kept = shop.get("/products/A1", Cache_Control="no-cache")
    assert (kept.body, kept.headers["ETag"]) == (old.body, old.headers["ETag"])
    assert kept.headers["Warning"].startswith("199 ")
    assert shop.get("/products/A1", If_None_Match=old.headers["ETag"]).status == 304
    shop.until(lambda: json.loads(shop.get("/products/A1", Cache_Control="no-cache").body)["cents"] == 1)


def test_a_poisonous_order_ends_in_the_dead_letters_with_its_reason(shop: Any) -> None:
    shop.run()
    order = {"customer": "c1", "items": [{"sku": "POISON", "quantity": 1}]}
    accepted = json.loads(post(shop, order).body)
    shop.until(lambda: shop.json("/dead-letters")["dead_letters"])
    [letter] = shop.json("/dead-letters")["dead_letters"]
    assert letter["order"] == {"id": accepted["id"], "order": order}
    assert "POISON" in json.dumps(letter["headers"])
    assert status_of(shop, accepted["id"]) == "rejected"
    good = json.loads(post(shop, ORDER).body)  # the customer's next order is not held up
    shop.until(lambda: status_of(shop, good["id"]) == "processed")


def test_one_correlation_id_stands_on_the_answer_and_on_the_lines_of_both_halves(shop: Any) -> None:
    shop.run()
    answer = post(shop, ORDER)
    correlation = answer.headers["X-Correlation-Id"]
    shop.until(lambda: shop.lines("order processed"))
    assert shop.lines("order processed")[0]["correlationID"] == correlation
    assert [line for line in shop.lines("request") if line["correlationID"] == correlation]


@pytest.mark.parametrize(
    ("order", "field"),
    [
        ({"customer": "c1", "items": [{"sku": "A1", "quantity": 0}]}, "items.0.quantity"),
        ({"customer": "c1", "items": [{"sku": "A1", "quantity": "2"}]}, "items.0.quantity"),
        ({"customer": "c1", "items": []}, "items"),
        ({"items": [{"sku": "A1", "quantity": 1}]}, "customer"),
    ],
    ids=["quantity 0", "a quantity that is text", "no items", "no customer"],
)
def test_an_order_that_makes_no_sense_is_a_400_that_names_the_field(
    shop: Any, order: Any, field: str
) -> None:
    shop.run()
    answer = post(shop, order)
    assert answer.status == 400
    assert field in json.loads(answer.body)["fields"]


def test_an_unknown_order_is_a_404(shop: Any) -> None:
    shop.run()
    assert shop.get("/orders/nothing").status == 404


def test_a_full_disk_is_a_503_that_says_when_to_come_back_and_nothing_is_half_written(
    shop: Any, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=False).returncode
    ):
        pytest.skip("mounting a small file system needs root")
    try:
        shop.database = disk / "shop.db"
        shop.run()
        (disk / "filler").write_bytes(b"x" * 300_000)
        answers = [
            post(shop, {"customer": "c" * 100, "items": [{"sku": "s" * 100, "quantity": 1}] * 50})
            for _ in range(120)
        ]
        assert {answer.status for answer in answers} == {201, 503}
        refused = next(answer for answer in answers if answer.status == 503)
        assert int(refused.headers["Retry-After"]) > 0
        (disk / "filler").unlink()
        accepted = [json.loads(a.body)["id"] for a in answers if a.status == 201]
        shop.until(lambda: all(status_of(shop, order_id) == "processed" for order_id in accepted))
        assert post(shop, ORDER).status == 201
        shop.signal(signal.SIGTERM)
        assert shop.wait() == 0
        assert integrity(shop.database) == "ok"
    finally:
        shop.kill_group()
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.fixture
def queue(request: pytest.FixtureRequest) -> dict[str, str]:
    """The variables that lead the shop to a broker, with a topic of its own."""
    kind, server, variable = request.param
    if kind == "memory":
        return {"SOURCE": kind}
    url = request.getfixturevalue(server).url
    return {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "SOURCE": kind,
        "SHOP_TOPIC": f"shop-{uuid4().hex[:8]}",
        variable: url,
    }


on_each = pytest.mark.parametrize(
    "queue",
    [
        ("memory", "", ""),
        pytest.param(("kafka", "kafka", "KAFKA_URL"), marks=pytest.mark.broker),
        pytest.param(("amqp", "rabbitmq", "AMQP_URL"), marks=pytest.mark.broker),
        pytest.param(("sqs", "exact_sqs", "AWS_ENDPOINT_URL"), marks=pytest.mark.broker),
    ],
    ids=["memory", "kafka", "amqp", "sqs"],
    indirect=True,
)


@on_each
def test_it_runs_on_any_queue_by_the_environment_alone(shop: Any, queue: dict[str, str]) -> None:
    shop.run(**queue)
    good = json.loads(post(shop, ORDER).body)
    bad = json.loads(post(shop, {**ORDER, "items": [{"sku": "POISON", "quantity": 1}]}).body)
    later = json.loads(post(shop, ORDER).body)
    shop.until(lambda: status_of(shop, good["id"]) == status_of(shop, later["id"]) == "processed")
    shop.until(lambda: shop.json("/dead-letters")["dead_letters"])
    [letter] = shop.json("/dead-letters")["dead_letters"]
    assert (letter["order"]["id"], "POISON" in json.dumps(letter["headers"])) == (bad["id"], True)
    shop.signal(signal.SIGTERM)
    assert shop.wait() == 0


@pytest.mark.parametrize("kind", ["kafka", "amqp", "sqs"])
def test_an_order_is_a_503_and_no_promise_while_the_broker_is_away(shop: Any, kind: str) -> None:
    away = {
        "KAFKA_URL": "127.0.0.1:1",
        "AMQP_URL": "amqp://127.0.0.1:1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
    }
    keys = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }
    shop.run(wait=False, SOURCE=kind, **away, **keys)
    shop.until(lambda: alive(shop))
    answer = post(shop, ORDER)
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert shop.get("/ready").status == 503, "nobody has read the queue yet"


def change(database: Path, sql: str) -> None:
    from patron import SqliteSource

    source = SqliteSource(path=database, topic="orders")
    connection = source.connect()
    try:
        with source.transaction(connection):
            connection.execute(sql)
    finally:
        connection.close()


def integrity(database: Path) -> str:
    from patron import SqliteSource

    connection = SqliteSource(path=database, topic="orders").connect()
    try:
        assert connection.execute("SELECT count(*) FROM orders").fetchone()
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
    finally:
        connection.close()


def replayed(folder: Path, orders: int, queue: dict[str, str]) -> dict[str, str]:
    """What ``replay.py`` counted."""
    script = ROOT / "examples" / "quickstart" / "replay.py"
    command = [sys.executable, str(script), "--orders", str(orders), "--folder", str(folder)]
    given = {name: value for name, value in queue.items() if name != "SHOP_TOPIC"}
    ran = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=360, env={**os.environ, **given}
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return {
        name: value.strip() for name, _, value in (line.partition("  ") for line in ran.stdout.splitlines())
    }


@pytest.mark.stress
def test_no_order_is_lost_while_processes_are_killed(tmp_path: Path) -> None:
    figures = replayed(tmp_path, 1500, {"SOURCE": ""})
    assert (figures["accepted (201)"], figures["lost"]) == ("1500", "0")


@pytest.mark.stress
@on_each
def test_no_order_is_lost_in_any_queue(tmp_path: Path, queue: dict[str, str]) -> None:
    figures = replayed(tmp_path, 300, queue)
    assert (figures["accepted (201)"], figures["lost"]) == ("300", "0")
