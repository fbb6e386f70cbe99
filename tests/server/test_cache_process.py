"""Cached routes of real services: many connections at once, several workers, and a Redis that goes away."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from brokers.redis_server import Redis
    from conftest import ServiceProcess

pytestmark = pytest.mark.server

MODULE = """
    import os
    import time
    from pathlib import Path

    def slow(request):
        Path(f"run-{time.monotonic_ns()}").touch()
        time.sleep(1)
        return {"pid": os.getpid()}

    def quick(request):
        return {"pid": os.getpid(), "made": time.monotonic()}
"""
CONFIG = """
    name: shop
    workers: {workers}
    http:
      threads: {threads}
      max_connections: 1200
      access_log: {{enabled: false}}
      routes:
        - {{method: GET, path: /slow, processor: "shop:slow", cache: {{max: 60}}}}
        - {{method: GET, path: /quick/<id>, processor: "shop:quick", cache: {{max: {max}, store: "{store}"}}}}
"""


def started(service: ServiceProcess, **settings: object) -> ServiceProcess:
    defaults = {"workers": 1, "threads": 16, "max": 30, "store": "memory"}
    service.write(MODULE, CONFIG.format(**(defaults | settings)))
    return service.start()


def operations(service: ServiceProcess) -> Counter[str]:
    page = service.get("/metrics").body.decode()  # type: ignore[attr-defined]
    found = re.findall(
        r'^http_cache_handler_operations_total\{operation="(\w+)".*\} (\d+)', page, re.MULTILINE
    )
    counts: Counter[str] = Counter()
    for operation, count in found:
        counts[operation] += int(count)
    return counts


def test_of_1000_connections_that_miss_at_once_one_runs_the_processor(service: ServiceProcess) -> None:
    started(service)
    connections = [socket.create_connection(("127.0.0.1", service.port), 30) for _ in range(1000)]
    try:
        for connection in connections:
            connection.sendall(b"GET /slow HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
        answers = [read(connection) for connection in connections]
    finally:
        for connection in connections:
            connection.close()
    assert {answer.split(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 200 OK"}
    assert len({answer.rpartition(b"\r\n\r\n")[2] for answer in answers}) == 1
    assert len(list(service.folder.glob("run-*"))) == 1
    counts = operations(service)
    assert counts["added"] == 1
    assert counts["miss"] == counts["added"] + counts["coalesced"]
    assert counts["miss"] + counts["hit"] == 1000
    assert counts["coalesced"] > 0


def read(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def test_workers_share_what_is_in_redis(service: ServiceProcess, own_redis: Redis) -> None:
    started(service, workers=2, store=own_redis.url)
    first = service.get("/quick/a")
    for _ in range(20):
        assert service.get("/quick/a").body == first.body  # type: ignore[attr-defined]
    assert operations(service) == {"miss": 1, "added": 1, "hit": 20}


def test_a_redis_that_stops_in_the_middle_of_a_load_fails_no_request(
    service: ServiceProcess, own_redis: Redis
) -> None:
    started(service, workers=2, store=own_redis.url, max=0.2)
    load = Load(service)
    with load:
        service.until(lambda: load.done > 200)
        own_redis.kill()
        before = load.done
        service.until(lambda: load.done > before + 400)
        own_redis.start()
        service.until(lambda: hits_again(service))
    assert load.statuses.keys() == {200}
    assert load.slowest < 5
    counts = operations(service)
    assert counts["error"] > 0
    ends = sum(counts[name] for name in ("added", "not_cacheable", "coalesced", "refused", "failed"))
    assert counts["miss"] + counts["replaced"] == ends


def hits_again(service: ServiceProcess) -> bool:
    """Whether an answer is the one of the request before."""
    one, other = (service.get("/quick/again").body for _ in range(2))  # type: ignore[attr-defined]
    return one == other


class Load:
    """Requests of four clients, as fast as they can, each on a connection of its own."""

    def __init__(self, service: ServiceProcess) -> None:
        self._service = service
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(4)
        self.statuses: Counter[int] = Counter()
        self.slowest = 0.0

    @property
    def done(self) -> int:
        return sum(self.statuses.values())

    def __enter__(self) -> Load:
        self._clients = [self._pool.submit(self._run, name) for name in "aabc"]
        return self

    def _run(self, name: str) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            status = self._service.get(f"/quick/{name}").status
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.statuses[status] += 1

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._pool.shutdown()
        for client in self._clients:
            client.result()
