"""A small world for the tests of the route cache: one cached route, a clock that stands still, and counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from werkzeug.test import Client

from patron.cache import LRUStore
from patron.http import Request, RouteCache, build, get
from patron.http.caching import engine
from patron.observe import metrics


class Clock:
    """Seconds that pass only when they are told to."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Reading(Client):
    """A client that reads answers to their end and closes them, as a server does."""

    def open(self, *args: Any, buffered: bool = True, **kwargs: Any) -> Any:
        return super().open(*args, buffered=buffered, **kwargs)


class World:
    """
    A service with the route ``/it/<name>``, whose *processor* a test may replace at any time.

    The default one answers how often it ran.
    """

    def __init__(self, clock: Clock, settings: RouteCache, options: Mapping[str, Any], app: Any) -> None:
        self.clock = clock
        self.runs = 0
        self.processor: Any = lambda request: {"run": self.runs}
        self.store: Any = LRUStore(clock=clock)
        route = get("/it/<name>", self._process, cache=settings, **options)
        self.app = build(routes=[route], name="world", **app)
        self.app.start({"shelf": Indirect(self)})
        self.client = Reading(self.app, use_cookies=False)
        self._before = operations()

    def _process(self, request: Request) -> Any:
        self.runs += 1
        return self.processor(request)

    def get(self, path: str = "/it/a", **headers: str) -> Any:
        """GET with these headers; ``_`` in a name is ``-``."""
        return self.request("GET", path, **headers)

    def request(self, method: str, path: str = "/it/a", **headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.open(path, method=method, headers=named)

    def counts(self) -> dict[str, int]:
        """What the cache counted in this world: ``operation`` or ``operation:reason`` → how often."""
        return dict(operations() - self._before)


class Indirect:
    """The store that the world has at the moment, so that a test can replace it."""

    def __init__(self, world: World) -> None:
        self._world = world

    def get(self, key: str) -> bytes | None:
        return self._world.store.get(key)

    def set(self, key: str, value: bytes, ttl: float) -> None:
        self._world.store.set(key, value, ttl)

    def delete(self, key: str) -> None:
        self._world.store.delete(key)

    def purge(self) -> None:
        self._world.store.purge()

    def close(self) -> None:
        self._world.store.close()


class Plain:
    """A store that gives back plain bytes, as one outside of the process does, and forgets nothing by itself."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.ttls: list[float] = []

    def get(self, key: str) -> bytes | None:
        return self.kept.get(key)

    def set(self, key: str, value: bytes, ttl: float) -> None:
        self.kept[key] = b"" + bytes(value)[:]
        self.ttls.append(ttl)

    def delete(self, key: str) -> None:
        self.kept.pop(key, None)

    def purge(self) -> None:
        self.kept.clear()

    def close(self) -> None:
        pass


def operations() -> Counter[str]:
    """Everything that was counted so far, over all routes."""
    import prometheus_client

    found: Counter[str] = Counter()
    for family in prometheus_client.REGISTRY.collect():
        for sample in family.samples:
            if sample.name == "http_cache_handler_operations_total":
                reason = sample.labels["reason"]
                found[sample.labels["operation"] + (f":{reason}" if reason else "")] += int(sample.value)
    return found


@contextmanager
def world(
    max: float = 30.0,
    *,
    options: Mapping[str, Any] | None = None,
    app: Mapping[str, Any] | None = None,
    **more: Any,
) -> Iterator[World]:
    """A world whose cache has these settings, and whose route has these *options*."""
    clock = Clock()
    before, engine.wall_clock = engine.wall_clock, clock
    made = None
    try:
        made = World(clock, RouteCache(max=max, **{"store": "shelf", **more}), options or {}, app or {})
        yield made
    finally:
        engine.wall_clock = before
        if made is not None:
            made.app.close()
        metrics.reset()


def balanced(counts: Mapping[str, int]) -> bool:
    """Whether every miss and every replaced entry ended in exactly one way."""

    def total(*names: str) -> int:
        return sum(count for name, count in counts.items() if name.partition(":")[0] in names)

    ends = total("added", "not_cacheable", "coalesced", "refused", "failed")
    return total("miss", "replaced") == ends
