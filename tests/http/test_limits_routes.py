"""Rate limits of routes and of WSGI applications: who is counted, what is answered, and what an outage means."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import flask
import pytest
from brokers.redis_server import Redis, RedisServer
from werkzeug.test import Client
from werkzeug.wrappers import Response

from patron.cache import LRUStore, RedisStore
from patron.errors import ConfigError
from patron.http import ApiKey, HttpSettings, RateLimit, build, get, post
from patron.http.limits import limited, limiter
from patron.http.metrics import LIMIT_ERRORS, LIMITED
from patron.observe import metrics

ONE = RateLimit(1, per=3600, burst=1)


def answer(request: Any) -> str:
    return "ok"


def statuses(client: Any, *addresses: str, path: str = "/", **options: Any) -> list[int]:
    return [
        client.get(path, environ_overrides={"REMOTE_ADDR": address}, **options).status_code
        for address in addresses
    ]


def test_what_is_too_much_is_a_429_with_whole_seconds_to_wait(serve) -> None:
    client = serve(get("/", answer, limits=[RateLimit(10, per=60, burst=1)]))
    assert client.get("/").status_code == 200
    refused = client.get("/")
    assert (refused.status_code, refused.json) == (429, {"error": "Too Many Requests"})
    assert refused.headers["Retry-After"] == "6"


def test_the_seconds_to_wait_are_rounded_up(serve) -> None:
    client = serve(get("/", answer, limits=[RateLimit(1000, per=1, burst=1)]))
    while (refused := client.get("/")).status_code != 429:
        pass
    assert refused.headers["Retry-After"] == "1"


def test_addresses_are_counted_each_for_itself_and_ipv6_by_network(serve) -> None:
    client = serve(get("/", answer, limits=[ONE]))
    assert statuses(client, "192.0.2.1", "192.0.2.2", "192.0.2.1") == [200, 200, 429]
    assert statuses(client, "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1") == [200, 429, 200]
    assert statuses(client, "::ffff:192.0.2.9", "::ffff:192.0.2.8", "192.0.2.8") == [200, 200, 429]


def test_behind_our_proxies_the_client_is_counted(serve) -> None:
    client = serve(get("/", answer, limits=[ONE]), settings=HttpSettings(trusted_proxies=["192.0.2.1"]))

    def ask(forwarded: str) -> int:
        return statuses(client, "192.0.2.1", headers={"X-Forwarded-For": forwarded})[0]

    assert ask("203.0.113.1") == 200
    assert ask("203.0.113.2") == 200
    assert ask("203.0.113.2, 203.0.113.1") == 429


def test_a_route_as_a_whole_has_one_bucket_and_methods_and_routes_have_their_own(serve) -> None:
    whole = RateLimit(1, per=3600, burst=2, by="route")
    client = serve(
        get("/", answer, limits=[whole]), post("/", answer, limits=[whole]), get("/b", answer, limits=[whole])
    )
    assert statuses(client, "192.0.2.1", "192.0.2.2", "192.0.2.3") == [200, 200, 429]
    assert client.post("/").status_code == 201
    assert statuses(client, "192.0.2.1", path="/b") == [200]


def test_principals_are_counted_wherever_they_ask_from(serve) -> None:
    keys = ApiKey({"ann": "a", "bob": "b"})
    client = serve(
        get("/", answer, authenticator=keys, limits=[RateLimit(1, per=3600, burst=1, by="principal")])
    )

    def ask(key: str, address: str) -> int:
        return statuses(client, address, headers={"Authorization": f"Apikey {key}"})[0]

    assert [ask("a", "192.0.2.1"), ask("b", "192.0.2.1"), ask("a", "192.0.2.2")] == [200, 200, 429]
    assert [ask("wrong", "192.0.2.1"), ask("wrong", "192.0.2.1")] == [401, 401]


def test_head_counts_with_get(serve) -> None:
    client = serve(get("/", answer, limits=[ONE]))
    assert (client.head("/").status_code, client.get("/").status_code) == (200, 429)


def test_of_several_limits_each_holds(serve) -> None:
    client = serve(
        get(
            "/", answer, limits=[RateLimit(1, per=3600, burst=3, by="route"), RateLimit(1, per=3600, burst=2)]
        )
    )
    assert statuses(client, "192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2") == [200, 200, 429, 429]


def test_workers_divide_a_limit_in_memory_and_each_has_one_at_least(serve) -> None:
    client = serve(get("/", answer, limits=[RateLimit(1, per=3600, burst=9)]), workers=4)
    assert statuses(client, *["192.0.2.1"] * 3) == [200, 200, 429]
    wait = int(client.get("/", environ_overrides={"REMOTE_ADDR": "192.0.2.1"}).headers["Retry-After"])
    assert 4 * 3600 - 5 < wait <= 4 * 3600
    alone = serve(get("/", answer, limits=[RateLimit(1, per=3600, burst=2)]), workers=4)
    assert statuses(alone, *["192.0.2.1"] * 2) == [200, 429]


def test_refusals_are_counted_by_route_and_kind(serve) -> None:
    client = serve(get("/things/<id>", answer, limits=[RateLimit(1, per=3600, burst=1, by="route")]))
    for _ in range(3):
        client.get("/things/7")
    page = metrics.exposition()[0].decode()
    assert 'component_http_limited_total{by="route",path="/things/<id>"} 2.0' in page
    assert {LIMITED, LIMIT_ERRORS} & set(metrics.all_definitions())


# ------------------------------------------------------------------ stores


def in_redis(url: str, **options: Any) -> RateLimit:
    return RateLimit(1, per=3600, burst=2, store=url, **options)


def test_in_redis_all_workers_share_a_limit(serve, redis: RedisServer) -> None:
    name = f"test-{uuid.uuid4().hex[:12]}"
    store = f"{redis.url}?socket_timeout=10"
    routes = [make("/", answer, limits=[in_redis(store)]) for make in (get, post)]
    clients = [serve(*routes, name=name, workers=2) for _ in range(2)]
    assert [client.get("/").status_code for client in (*clients, *clients)] == [200, 200, 429, 429]
    assert [client.post("/").status_code for client in (*clients, *clients)] == [201, 201, 429, 429]
    other = serve(get("/", answer, limits=[in_redis(store)]), name=f"{name}-other")
    assert other.get("/").status_code == 200
    for client in (*clients, other):
        client.application.close()
    RedisStore(redis.url, name, timeout=10).purge()


def test_the_same_limit_around_applications_of_two_services_is_two(serve, redis: RedisServer) -> None:
    for name in (f"test-{uuid.uuid4().hex[:12]}" for _ in range(2)):
        limit = limited(in_redis(f"{redis.url}?socket_timeout=10"), route="/mount")
        client = serve(mounts={"/mount": limit(Response("as ever"))}, name=name)
        assert statuses(client, *["192.0.2.1"] * 3, path="/mount/a") == [200, 200, 429]
        limit.close()
        RedisStore(redis.url, name, timeout=10).purge()


def test_a_resource_can_hold_the_limits_and_is_not_closed(serve, redis: RedisServer) -> None:
    shared = RedisStore(redis.url, f"test-{uuid.uuid4().hex[:12]}", timeout=10)
    client = serve(get("/", answer, limits=[in_redis("shared")]), resources={"shared": shared})
    assert [client.get("/").status_code for _ in range(3)] == [200, 200, 429]
    client.application.close()
    shared.purge()
    shared.close()


def test_a_resource_that_cannot_hold_limits_is_refused_at_the_start() -> None:
    app = build(routes=[get("/", answer, limits=[in_redis("answers")])])
    wanted = r"'answers' is a LRUStore, which .* store \"memory\" .* URL .* patron\.cache\.RedisStore"
    with pytest.raises(ConfigError, match=wanted):
        app.start({"answers": LRUStore()})


def test_two_services_in_one_resource_count_apart(redis: RedisServer) -> None:
    shared = RedisStore(redis.url, f"limits-{uuid.uuid4().hex}", timeout=10, connect_timeout=10)
    for name in ("one", "two"):
        app = build(routes=[get("/", answer, limits=[in_redis("shared")])], name=name)
        app.start({"shared": shared})
        assert statuses(Client(app), "192.0.2.1", "192.0.2.1", "192.0.2.1") == [200, 200, 429]
    shared.purge()
    shared.close()


def test_while_redis_is_away_requests_are_let_in_and_that_is_counted_and_logged_seldom(
    serve, own_redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    client = serve(get("/away", answer, limits=[in_redis(f"{own_redis.url}?socket_timeout=10")]))
    assert client.get("/away").status_code == 200
    own_redis.kill()
    assert [client.get("/away").status_code for _ in range(50)] == [200] * 50
    page = metrics.exposition()[0].decode()
    assert 'component_http_limit_errors_total{by="address",path="/away"} 50.0' in page
    assert caplog.text.count("rate limit cannot be checked") == 1
    client.application.close()


def test_a_limit_that_must_hold_refuses_while_redis_is_away(serve) -> None:
    client = serve(get("/", answer, limits=[in_redis("redis://:hunter2@127.0.0.1:1/0", outage="refuse")]))
    refused = client.get("/")
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert b"hunter2" not in refused.data
    client.application.close()


# ------------------------------------------------------------------ WSGI applications and views


def test_a_mounted_application_can_be_limited(serve) -> None:
    def legacy(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"legacy"]

    limit = limited(ONE, route="/legacy")
    client = serve(get("/", answer), mounts={"/legacy": limit(legacy)})
    assert [client.get("/legacy/a").status_code, client.get("/legacy/b").status_code] == [200, 429]
    assert client.get("/").status_code == 200
    limit.close()
    assert client.get("/legacy/a").status_code == 200


def test_the_views_of_a_blueprint_can_be_limited(serve) -> None:
    blueprint = flask.Blueprint("old", __name__)
    limit = limited(ONE, route="old")
    blueprint.before_request(lambda: limit.check(flask.request.environ))
    blueprint.add_url_rule("/old", view_func=lambda: "ok", endpoint="old")
    client = serve(blueprints=[blueprint])
    refused = [client.get("/old"), client.get("/old")][1]
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "3600")


def test_under_any_wsgi_server_it_answers_by_itself() -> None:
    bare = limited(ONE)(flask.Flask("bare").wsgi_app)
    client = Client(bare)
    assert [client.get("/").status_code, client.get("/").status_code] == [404, 429]
    assert client.get("/").json == {"error": "Too Many Requests"}


def test_a_wsgi_application_knows_no_principals() -> None:
    with pytest.raises(ConfigError, match="limit by address or route here"):
        limited(RateLimit(1, by="principal"))


# ------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"rate": 0}, "rate is 0: use a number above 0"),
        ({"rate": float("nan")}, "rate is nan"),
        ({"rate": True}, "rate is True"),
        ({"rate": 1e-310}, "rate is 1e-310 in 1 s: use from 1e-9 to 1e9 requests in a second"),
        ({"rate": 1e300, "per": 1e-9}, "use from 1e-9 to 1e9 requests in a second"),
        ({"rate": 1, "per": -1}, "per is -1: use a number above 0"),
        ({"rate": 1, "per": float("inf")}, "per is inf"),
        ({"rate": 1, "burst": 0}, "burst is 0: use a whole number above 0"),
        ({"rate": 1, "burst": 1.5}, "burst is 1.5"),
        ({"rate": 1, "by": "host"}, "by is 'host': use address, principal, route"),
        ({"rate": 1, "outage": "no"}, "outage is 'no': use allow, refuse"),
        ({"rate": 1, "store": "memcached://x"}, "use redis://, rediss://, unix://"),
    ],
)
def test_a_wrong_limit_is_refused_with_what_to_write(wrong: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        RateLimit(**wrong)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        RateLimit(0, per=0, burst=0, by="x", store="")  # type: ignore[arg-type]
    assert len(caught.value.problems) == 5


@pytest.mark.parametrize(("rate", "tokens"), [(10, 10), (2.9, 2), (0.2, 1)])
def test_without_a_burst_it_is_the_rate(rate: float, tokens: int) -> None:
    assert RateLimit(rate).tokens == tokens


def test_a_password_in_the_store_is_not_shown() -> None:
    limit = RateLimit(1, store="redis://:hunter2@127.0.0.1:1/0")
    made = limiter(limit, route="/")
    assert "hunter2" not in f"{limit!r} {limit} {made!r}"
    made.close()


def test_every_metric_stands_on_its_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "limits.md").read_text()
    assert [each.name for each in (LIMITED, LIMIT_ERRORS) if f"| `{each.name}` |" not in page] == []


class Odd(RedisStore):
    """A Redis that answers to scripts with something else."""

    def run(self, *_: Any) -> Any:
        return self.says


@pytest.mark.parametrize("says", [None, b"OK", [b"a"]], ids=repr)
def test_a_store_that_answers_with_no_number_has_failed(serve, says: Any) -> None:
    store = Odd("redis://localhost:1")
    store.says = says
    client = serve(get("/", answer, limits=[RateLimit(1, store="odd")]), resources={"odd": store})
    assert statuses(client, "192.0.2.1", "192.0.2.1") == [200, 200]
