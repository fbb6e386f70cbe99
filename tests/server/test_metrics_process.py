"""Metrics and readiness are those of the whole service, whichever worker is asked."""

from __future__ import annotations

import re
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from conftest import ServiceProcess

pytestmark = pytest.mark.server

MODULE = """
    import os
    from patron.errors import ConnectionLost
    from patron import SqliteSource

    def fast(request):
        return {"pid": os.getpid()}

    def process(message):
        pass

    class BrokenInOneWorker(SqliteSource):
        '''A source that loses its broker for good in the first worker that opens it.'''

        def open(self):
            flag = os.open("broken", os.O_CREAT | os.O_RDWR)
            try:
                os.lockf(flag, os.F_TLOCK, 0)
            except OSError:
                os.close(flag)
                return super().open()
            raise ConnectionLost("the broker is gone")

    def consumer():
        from patron import Consumer
        from patron.consumer import ConsumerSettings
        source = BrokenInOneWorker(path="shop.db", topic="orders")
        return Consumer("orders", source, process, readiness="required")
"""
CONFIG = """
    name: shop
    workers: 4
    http:
      threads: 2
      access_log: {enabled: false}
      routes:
        - {method: GET, path: /fast/<id>, processor: "shop:fast"}
"""


def counted(page: bytes) -> float:
    families = text_string_to_metric_families(page.decode())
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == "component_http_handled_total" and sample.labels["path"] == "/fast/<id>"
    )


def test_every_request_is_counted_exactly_once_over_four_workers(service: ServiceProcess) -> None:
    service.write(MODULE, CONFIG)
    service.start()
    scrapes = []
    with ThreadPoolExecutor(8) as pool:
        load = [pool.submit(service.get, f"/fast/{n}") for n in range(1200)]
        scrapes.extend(counted(service.get("/metrics").body) for _ in range(50))  # type: ignore[attr-defined]
        answers = [future.result() for future in load]
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) > 1  # type: ignore[attr-defined]
    assert scrapes == sorted(scrapes)
    for _ in range(20):
        assert counted(service.get("/metrics").body) == 1200  # type: ignore[attr-defined]


def test_counters_survive_the_death_of_a_worker(service: ServiceProcess) -> None:
    import os

    service.write(MODULE, CONFIG.replace("workers: 4", "workers: 2"))
    service.start()
    for _ in range(40):
        service.get("/fast/1")
    victim = service.workers()[0]
    os.kill(victim, signal.SIGKILL)
    service.until(lambda: len(service.workers()) == 2 and victim not in service.workers())
    service.until_ready()
    for _ in range(10):
        service.get("/fast/1")
    assert counted(service.get("/metrics").body) == 50  # type: ignore[attr-defined]


def test_promtool_finds_nothing_wrong_with_the_metrics(service: ServiceProcess, promtool: str) -> None:
    service.write(MODULE, CONFIG)
    service.start()
    for path in ("/fast/1", "/nowhere", "/ready"):
        service.get(path)
    page = service.get("/metrics").body  # type: ignore[attr-defined]
    assert re.search(rb"component_http_handled_total\{.*\} 1\.0", page)
    checked = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_a_required_consumer_that_is_dead_in_one_worker_makes_every_worker_not_ready(
    service: ServiceProcess,
) -> None:
    service.write(MODULE, CONFIG + '\n    components: ["shop:consumer"]')
    service.start(wait=False)
    service.until(lambda: answers(service) == {503}, what="503 wherever it is asked")
    reasons = service.json("/ready")["reasons"]
    assert any("orders: " in reason for reason in reasons), reasons
    assert "orders: orders" not in str(reasons), "the name is said once"


def answers(service: ServiceProcess) -> set[int]:
    try:
        return {service.get("/ready").status for _ in range(30)}
    except OSError:
        return set()


def test_components_of_every_worker_are_shown(service: ServiceProcess) -> None:
    consumer = '{name: mail, source: {type: sqlite, path: m.db, topic: mail}, processor: "shop:process"}'
    service.write(MODULE, f"{CONFIG}\n    consumers:\n      - {consumer}")
    service.start()

    def pids() -> set[int]:
        return {c["worker"] for c in service.json("/debug/components")["components"] if c["name"] == "mail"}

    service.until(lambda: pids() == set(service.workers()))
