"""The quick start does what the README says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.server

ROOT = Path(__file__).parent.parent.parent
ORDER = {"customer": "c1", "items": [{"sku": "A1", "quantity": 2}]}


def post(shop: Any, order: Any, **headers: str) -> Any:
    body = order if isinstance(order, bytes) else json.dumps(order).encode()
    return shop.request("POST", "/orders", body, Content_Type="application/json", **headers)


def status_of(shop: Any, order_id: str) -> str:
    return shop.json(f"/orders/{order_id}")["status"]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_order_is_accepted_then_processed_and_every_worker_knows(shop: Any, workers: str) -> None:
    shop.run(PATRON_WORKERS=workers)
    answer = post(shop, ORDER)
    accepted = json.loads(answer.body)
    assert (answer.status, accepted["status"]) == (201, "accepted")
    shop.until(lambda: {status_of(shop, accepted["id"]) for _ in range(10)} == {"processed"})


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


def integrity(database: Path) -> str:
    from patron import SqliteSource

    connection = SqliteSource(path=database, topic="orders").connect()
    try:
        assert connection.execute("SELECT count(*) FROM orders").fetchone()
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
    finally:
        connection.close()


@pytest.mark.stress
def test_no_order_is_lost_while_processes_are_killed(tmp_path: Path) -> None:
    script = ROOT / "examples" / "quickstart" / "replay.py"
    command = [sys.executable, str(script), "--orders", "1500", "--folder", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    figures = dict(line.split("  ", 1) for line in ran.stdout.splitlines() if "  " in line)
    assert figures["accepted (201)"].strip() == "1500"
    assert figures["lost"].strip() == "0"
