"""Every lookup and every miss is counted once, whatever happens at the same time."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import flask
from cache_world import balanced, world
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patron.errors import CacheError
from patron.http import Response

CONTROLS = [
    "",
    "",
    "max-age=3",
    "no-cache",
    "no-store",
    "only-if-cached",
    "min-fresh=20",
    "max-stale",
    "max-age=x",
]
OUTCOMES = ["ok", "ok", "ok", "404", "500", "raise", "exit", "private", "stream", "nested"]


class Unruly:
    """A store in which things go wrong now and then."""

    def __init__(self, inner, chance) -> None:
        self._inner, self._chance = inner, chance

    def __getattr__(self, name):
        if self._chance() < 0.15:
            raise CacheError("now and then")
        return getattr(self._inner, name)

    def get(self, key):
        found = self.__getattr__("get")(key)
        return b"damaged" if found is not None and self._chance() < 0.1 else found


def processor(w, outcome):
    def process(request):
        time.sleep(0.001)  # long enough for another one to come
        kind = outcome()
        if kind == "nested":
            return {"inner": w.get("/it/b", Cache_Control="only-if-cached").status_code}
        if kind == "raise":
            raise RuntimeError
        if kind == "exit":
            raise SystemExit(1)
        if kind == "stream":
            return iter([b"a"])
        headers = {"Cache-Control": "private"} if kind == "private" else {}
        return Response({"kind": kind}, int(kind) if kind.isdigit() else 200, headers)

    return process


def changing():
    """What changes ``/it/<name>``, beside the cached route."""
    blueprint = flask.Blueprint("changing", __name__)
    blueprint.add_url_rule("/it/<name>", "change", lambda name: "", methods=["PUT"])
    return {"blueprints": [blueprint]}


def lookups(counts) -> int:
    return sum(
        n for name, n in counts.items() if name.partition(":")[0] in ("hit", "miss", "replaced", "bypass")
    )


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(CONTROLS),
            st.sampled_from(OUTCOMES),
            st.floats(0, 40),
            st.sampled_from(["GET", "GET", "HEAD", "PUT"]),
            st.sampled_from(["", "key"]),
        ),
        max_size=15,
    ),
    st.randoms(use_true_random=False),
)
def test_one_after_the_other_whatever_goes_wrong(steps, rng):
    with world(max=30, min=5, stale_if_error=20, app=changing()) as w:
        w.store = Unruly(w.store, rng.random)
        nested = asked = 0
        for control, kind, pause, method, key in steps:
            w.processor = processor(w, lambda kind=kind: kind)
            before = w.runs
            asked += method != "PUT"
            w.request(method, Cache_Control=control, **({"Authorization": key} if key else {}))
            nested += kind == "nested" and w.runs > before
            w.clock.now += pause
        counts = w.counts()
        assert balanced(counts)
        assert lookups(counts) == asked + nested
        assert counts.get("invalidated", 0) == len(steps) - asked


def test_under_concurrency_whatever_goes_wrong():
    rng = random.Random(7)
    with world(max=0.05, min=0.01, stale_if_error=0.05, wait=5, app=changing()) as w:
        w.store = Unruly(w.store, rng.random)
        nested = []

        def outcome():
            kind = rng.choice(OUTCOMES)
            if kind == "nested":
                nested.append(1)
            return kind

        w.processor = processor(w, outcome)
        start = threading.Barrier(12)

        def client(seed):
            mine = random.Random(seed)
            start.wait(30)
            for _ in range(80):
                w.clock.now += 0.001
                headers = {"Cache_Control": mine.choice(CONTROLS)}
                if mine.random() < 0.05:
                    headers["Authorization"] = "x"
                if mine.random() < 0.2:
                    headers["Cookie"] = "a=b"
                if mine.random() < 0.05:
                    headers["X_Request_Timeout_Ms"] = "1"
                w.request(
                    mine.choice(["GET"] * 6 + ["HEAD"] * 3 + ["PUT"]), f"/it/{mine.choice('aab')}", **headers
                )

        with ThreadPoolExecutor(12) as pool:
            for done in [pool.submit(client, seed) for seed in range(12)]:
                done.result(60)
        counts = w.counts()
        assert balanced(counts)
        # Those whose time was over before they reached the cache made no lookup.
        assert lookups(counts) <= 12 * 80 + len(nested)
        seen = {name.partition(":")[0] for name in counts}
        assert seen >= {"invalidated", "hit", "miss", "replaced", "bypass", "added", "refused", "failed"}
        assert w.app._fronts[0]._cache._flights._flights == {}
