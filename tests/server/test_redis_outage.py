"""Redis hangs, dies and comes back in the middle of a load: no request fails for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection

import pytest
from brokers.redis_server import Redis

pytestmark = pytest.mark.server

SHOP = """
import os
from patron.http import RateLimit, RouteCache, get

STORE = os.environ["STORE"]
limit = RateLimit(10_000, per=3600, burst=1_000_000, store=STORE)


def product(request):
    return {"id": request.params["id"]}


routes = [
    get("/products/<id>", product, cache=RouteCache(max=60, store=STORE), limits=[limit]),
    get("/orders/<id>", product, limits=[limit]),
]
"""

CONFIG = """
name: shop
workers: 2
http:
  access_log: {enabled: false}
  routes: ["shop:routes"]
"""


class Load:
    """Threads that ask one after another, on connections that stay open, until they are told to stop."""

    def __init__(self, port: int, clients: int = 4) -> None:
        self.port = port
        self.statuses: dict[int, int] = {}
        self.errors: list[str] = []
        self.hits = 0
        self.slowest: dict[str, float] = {}
        self.phase = "before"
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(clients)]
        for thread in self._threads:
            thread.start()

    @property
    def answered(self) -> int:
        return sum(self.statuses.values())

    def _work(self, number: int) -> None:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        turn = 0
        while not self._end.is_set():
            turn += 1
            path = f"/orders/{turn}" if turn % 4 == 0 else f"/products/{turn % 7}"
            try:
                self._ask(connection, path)
            except Exception as error:
                self.errors.append(f"{self.phase}: {path}: {error!r}")
                connection.close()
        connection.close()

    def _ask(self, connection: HTTPConnection, path: str) -> None:
        phase, begun = self.phase, time.monotonic()
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        took = time.monotonic() - begun
        self.slowest[phase] = max(self.slowest.get(phase, 0.0), took)
        self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
        self.hits += answer.getheader("Age") not in (None, "0")

    def stop(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()


def more(load: Load, requests: int) -> Callable[[], bool]:
    """Whether so many more were answered since now, in some tries to reach Redis at least."""
    goal, earliest = load.answered + requests, time.monotonic() + 0.7
    return lambda: load.answered >= goal and time.monotonic() > earliest


def test_no_request_fails_while_redis_hangs_is_killed_and_comes_back(service, own_redis: Redis) -> None:
    service.write(SHOP, CONFIG)
    service.start(env={"STORE": own_redis.url})
    service.until(
        lambda: (
            service.get("/products/1").status == 200
            and _has(own_redis, b"shop:cache")
            and _has(own_redis, b"shop:limit")
        ),
        what="in use",
    )
    load = Load(service.port)
    counts = {}
    try:
        for phase, change in (
            ("before", None),
            ("frozen", own_redis.freeze),
            ("thawed", own_redis.thaw),
            ("killed", own_redis.kill),
            ("started", own_redis.start),
        ):
            if change is not None:
                load.phase = phase
                change()
            begun, had = time.monotonic(), load.answered
            service.until(more(load, 150), what=f"answered while redis is {phase}")
            counts[phase] = (load.answered - had) / (time.monotonic() - begun)
        # What is asked from now on is kept again, and so is what is counted.
        service.until(
            lambda: _has(own_redis, b"shop:cache") and _has(own_redis, b"shop:limit"), what="in use again"
        )
    finally:
        load.stop()
        own_redis.thaw()
    slowest = {phase: f"{seconds * 1000:.0f} ms" for phase, seconds in load.slowest.items()}
    print(
        f"\nanswered: {load.statuses}; slowest: {slowest}; requests/s: { {p: round(c) for p, c in counts.items()} }"
    )
    assert load.errors == []
    assert set(load.statuses) == {200}
    assert service.lines("redis failed")
    assert len(service.lines("request failed")) == 0


def _has(server: Redis, prefix: bytes) -> bool:
    return prefix in server.say("KEYS", f"{prefix.decode()}*")
