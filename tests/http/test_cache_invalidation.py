"""What changes something hides what was kept before: RFC 9111, section 4.4."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import flask
import pytest
from cache_world import Plain, Reading, balanced, operations

from patron.cache import RedisStore
from patron.http import ApiKey, Response, RouteCache, build, cached, cached_app, delete, get, patch, post, put
from patron.http.caching.marks import Marks
from patron.observe import metrics
from patron.resources import use
from patron.testing import until


@pytest.fixture(autouse=True)
def _counts_from_nothing():
    metrics.reset()
    yield
    metrics.reset()


class Shop:
    """A service with what is kept at ``/books/<id>``, which says how often that was changed."""

    def __init__(
        self, answer: Any = None, *, routes: Any = (), resources: Any = None, parts: Any = None, **cache: Any
    ) -> None:
        self.version = 0
        self.answer = answer or (lambda request: Response(None, 204))
        writing = [made("/books/<id>", self.write) for made in (put, post, patch, delete)]
        settings = RouteCache(30, **cache)
        self.app = build(
            routes=[get("/books/<id>", self.read, cache=settings), *writing, *routes], **parts or {}
        )
        self.app.start(resources or {})
        self.client = Reading(self.app, use_cookies=False)

    def read(self, request: Any) -> Any:
        return {"version": self.version}

    def write(self, request: Any) -> Any:
        self.version += 1
        return self.answer(request)

    def seen(self, path: str = "/books/7", **headers: str) -> int:
        """The version that a client gets."""
        return self.client.get(path, headers=headers).json["version"]


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE"])
@pytest.mark.parametrize(("status", "seen"), [(200, 1), (204, 1), (303, 1), (400, 0), (404, 0), (500, 0)])
def test_what_was_kept_for_the_path_of_a_change_that_succeeds_is_not_served_any_more(method, status, seen):
    shop = Shop(lambda request: Response(None, status))
    assert shop.seen() == 0
    assert shop.client.open("/books/7", method=method).status_code == status
    assert (shop.seen(), shop.seen()) == (seen, seen)
    assert operations()["invalidated"] == seen
    assert balanced(operations())


def test_an_exception_hides_nothing():
    shop = Shop(lambda request: 1 / 0)
    assert (shop.seen(), shop.client.put("/books/7").status_code, shop.seen()) == (0, 500, 0)


def test_every_form_of_what_was_kept_is_hidden_and_other_paths_are_not():
    shop = Shop(vary=("Accept-Language",))
    forms = [
        {},
        {"Host": "other.example"},
        {"Accept": "text/plain, application/json;q=0.5"},
        {"Accept-Language": "de"},
    ]
    paths = ["/books/7", "/books/7?full=1"]
    everything = [(path, form) for path in paths for form in forms]
    assert {shop.seen(path, **form) for path, form in everything} == {0}
    assert shop.seen("/books/8") == 0
    shop.client.put("/books/7?full=1")
    assert {shop.seen(path, **form) for path, form in everything} == {1}
    assert shop.seen("/books/8") == 0


def test_for_every_principal_it_is_hidden():
    keys = ApiKey({"ann": "1", "bob": "2"})
    version = [0]
    app = build(
        routes=[
            get("/x", lambda request: {"version": version[0]}, cache=RouteCache(30), authenticator=keys),
            put("/x", lambda request: None, authenticator=keys),
        ]
    )
    app.start({})
    client, names = Reading(app), [{"Authorization": f"Apikey {key}"} for key in "12"]
    assert [client.get("/x", headers=name).json["version"] for name in names] == [0, 0]
    version[0] = 1
    assert client.put("/x").status_code == 401
    assert [client.get("/x", headers=name).json["version"] for name in names] == [0, 0]
    assert client.put("/x", headers=names[0]).status_code == 204
    assert [client.get("/x", headers=name).json["version"] for name in names] == [1, 1]


def test_what_is_hidden_stands_in_for_no_failure_either():
    shop = Shop(stale_if_error=60)
    shop.seen()
    shop.client.put("/books/7")
    del shop.version
    assert shop.client.get("/books/7").status_code == 500


@pytest.mark.parametrize(
    ("header", "hidden"),
    [
        ({"Location": "/books/8"}, True),
        ({"Location": "../books/8?new=1"}, True),
        ({"Content-Location": "http://localhost/books/8"}, True),
        ({"Location": "/books/%38"}, True),
        ({"Location": "http://elsewhere.example/books/8"}, False),
        ({"Location": "/nothing"}, False),
        ({"Location": ""}, False),
        ({"X-Location": "/books/8"}, False),
    ],
)
def test_what_the_answer_says_it_has_made_is_hidden_too_on_the_same_host(header, hidden):
    shop = Shop(lambda request: Response(None, 201, header))
    assert (shop.seen("/books/7"), shop.seen("/books/8")) == (0, 0)
    assert shop.client.post("/books/7").status_code == 201
    assert (shop.seen("/books/7"), shop.seen("/books/8")) == (1, int(hidden))


def test_the_prefix_that_the_service_is_mounted_at_is_none_of_the_path():
    shop = Shop(lambda request: Response(None, 201, {"Location": "/api/books/8"}))
    mounted = {"SCRIPT_NAME": "/api"}

    def seen(path):
        return shop.client.get(path, environ_overrides=mounted).json["version"]

    assert (seen("/books/7"), seen("/books/8")) == (0, 0)
    shop.client.post("/books/7", environ_overrides=mounted)
    assert (seen("/books/7"), seen("/books/8")) == (1, 1)


def test_a_path_is_compared_as_it_arrives_whatever_letters_it_has():
    shop = Shop(lambda request: Response(None, 201, {"Location": "/books/h%C3%B6her"}))
    assert (shop.seen("/books/größe"), shop.seen("/books/höher")) == (0, 0)
    shop.client.put("/books/größe")
    assert (shop.seen("/books/größe"), shop.seen("/books/höher")) == (1, 1)


def test_a_route_of_another_pattern_and_a_view_of_flasks_change_it_as_well():
    blueprint = flask.Blueprint("views", __name__)
    blueprint.add_url_rule("/books/<int:number>/sold", "sold", lambda number: ("", 204), methods=["POST"])
    blueprint.add_url_rule("/<path:anything>", "any", lambda anything: ("", 204), methods=["PUT", "LOCK"])
    version = [0]
    app = build(
        routes=[get("/books/<int:number>/sold", lambda r: {"version": version[0]}, cache=RouteCache(30))],
        blueprints=[blueprint],
    )
    app.start({})
    client = Reading(app)
    for method in ("POST", "PUT", "LOCK"):
        before = client.get("/books/7/sold").json
        version[0] += 1
        assert client.get("/books/7/sold").json == before
        assert client.open("/books/7/sold", method=method).status_code == 204
        assert client.get("/books/7/sold").json == {"version": version[0]}


def test_safe_methods_and_refused_ones_hide_nothing():
    shop = Shop()
    shop.seen()
    shop.version = 5
    for method in ("HEAD", "OPTIONS", "TRACE", "LOCK"):
        shop.client.open("/books/7", method=method)
    assert shop.seen() == 0
    assert operations()["invalidated"] == 0


def test_a_route_may_leave_it():
    shop = Shop(invalidate=False)
    assert (shop.seen(), shop.client.post("/books/7").status_code, shop.seen()) == (0, 204, 0)
    assert "invalidated" not in operations()


def test_a_run_that_began_before_the_change_is_neither_kept_nor_waited_for():
    shop = Shop()
    begun, go_on = threading.Event(), threading.Event()
    read = shop.read

    def slowly(request):
        found = read(request)
        if not begun.is_set():
            begun.set()
            assert go_on.wait(30)
        return found

    slow = build(
        routes=[
            get("/books/<id>", slowly, cache=RouteCache(30)),
            put("/books/<id>", shop.write),
        ]
    )
    slow.start({})
    client = Reading(slow, use_cookies=False)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.get, "/books/7")
        assert begun.wait(30)
        client.put("/books/7")
        assert client.get("/books/7").json == {"version": 1}
        go_on.set()
        assert first.result().json == {"version": 0}
    assert client.get("/books/7").json == {"version": 1}


def test_a_change_that_is_streamed_hides_it_when_its_answer_begins():
    shop = Shop(lambda request: iter([b"a", b"b"]))
    shop.seen()
    assert shop.client.put("/books/7").data == b"ab"
    assert shop.seen() == 1


def test_the_cache_as_a_middleware_of_a_route_is_told_too():
    version = [0]
    keep = cached(RouteCache(30))
    routes = [
        get("/x", lambda request: {"version": version[0]}, middlewares=(keep,)),
        put("/x", lambda request: None),
    ]
    app = build(routes=routes)
    app.start({})
    client = Reading(app)
    assert client.get("/x").json == {"version": 0}
    version[0] = 1
    assert client.get("/x").json == {"version": 0}
    client.put("/x")
    assert client.get("/x").json == {"version": 1}
    assert operations() == {"miss": 2, "added": 2, "hit": 1, "invalidated": 1}


@pytest.mark.parametrize("mounted", [True, False])
def test_around_an_application_every_change_that_passes_hides_what_is_kept_for_its_path(mounted):
    legacy, version = flask.Flask("legacy"), [0]

    def write(name):
        version[0] += 1
        return flask.redirect(flask.url_for("read", name="other"), 303)

    legacy.add_url_rule("/books/<name>", "read", lambda name: {"version": version[0]})
    legacy.add_url_rule("/books/<name>", "write", write, methods=["PUT", "DELETE"])
    wrapped = cached_app(RouteCache(30), paths=["/books"])(legacy)
    if mounted:
        app = build(mounts={"/legacy": wrapped})
        app.start({})
        client, prefix = Reading(app), "/legacy"
    else:
        client, prefix = Reading(wrapped), ""
    paths = [f"{prefix}/books/{name}" for name in ("a", "other", "b")]
    assert [client.get(path).json["version"] for path in paths] == [0, 0, 0]
    assert client.put(paths[0]).status_code == 303
    assert [client.get(path).json["version"] for path in paths] == [1, 1, 0]
    assert operations()["invalidated"] == 2


def test_a_location_that_is_no_url_names_nothing():
    def writing(environ, start_response):
        start_response("201 Created", [("Location", "http://[/books")])
        return []

    client = Reading(cached_app(RouteCache(30))(writing))
    assert client.put("/books").status_code == 201
    assert operations() == {"invalidated": 1}


@pytest.mark.parametrize("shared", [False, True])
def test_around_a_service_a_change_by_a_route_of_another_pattern_counts_and_admin_routes_do_not(
    redis, shared
):
    store = RedisStore(redis.url, f"around{id(redis)}", timeout=10, connect_timeout=10)
    with use({"s": store}):
        _around_a_service("s" if shared else "memory")
    store.close()


def _around_a_service(store: str) -> None:
    version = [0]
    app = build(
        routes=[
            get("/books/<id>", lambda request: {"version": version[0]}),
            put("/<kind>/<id>", lambda request: None),
        ],
        middlewares=[cached_app(RouteCache(30, store=store))],
    )
    app.start({})
    client = Reading(app)
    client.get("/books/7")
    version[0] = 1
    assert client.get("/books/7").json == {"version": 0}
    client.put("/books/7")
    assert client.get("/books/7").json == {"version": 1}
    before = operations()["invalidated"]
    client.post("/debug/log/level", json={"level": "info"})
    assert operations()["invalidated"] == before


def test_a_store_of_somebodys_own_is_as_one_in_memory():
    shop = Shop(store="s", resources={"s": Plain()})
    assert (shop.seen(), shop.client.put("/books/7").status_code, shop.seen()) == (0, 204, 1)


# In Redis.


def test_in_redis_it_is_hidden_for_all_processes_and_what_began_before_is_too(redis):
    prefix = f"inv{id(redis)}"
    one, other = (
        Shop(store="s", resources={"s": RedisStore(redis.url, prefix, timeout=10, connect_timeout=10)})
        for _ in range(2)
    )
    assert (one.seen(), other.seen()) == (0, 0)
    other.version = 1
    assert other.seen() == 0
    one.client.put("/books/7")
    assert (other.seen(), one.seen()) == (1, 1)
    assert operations()["hit"] == 3
    assert balanced(operations())


def test_in_redis_a_run_that_began_before_the_change_in_another_process_is_neither_kept_nor_waited_for(redis):
    resources = {"s": RedisStore(redis.url, f"run{id(redis)}", timeout=10, connect_timeout=10)}
    other = Shop(store="s", resources=resources)
    begun, go_on, version = threading.Event(), threading.Event(), [0]

    def slowly(request):
        found = {"version": version[0]}
        if not begun.is_set():
            begun.set()
            assert go_on.wait(30)
        return found

    app = build(
        routes=[get("/books/<id>", slowly, cache=RouteCache(30, store="s")), put("/books/<id>", other.write)]
    )
    app.start(resources)
    client = Reading(app, use_cookies=False)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.get, "/books/7")
        assert begun.wait(30)
        version[0] = 1
        other.client.put("/books/7")
        assert client.get("/books/7").json == {"version": 1}
        go_on.set()
        assert first.result().json == {"version": 0}
    assert client.get("/books/7").json == {"version": 1}
    assert other.seen() == 1


def test_a_hit_in_redis_asks_it_once_and_for_the_mark_only_where_something_can_change(own_redis):
    shop = Shop(store=own_redis.url)
    until(lambda: shop.client.get("/books/7").headers.get("Age") is not None and _keys(own_redis) >= 1)
    before = _asked(own_redis)
    shop.seen()
    assert _asked(own_redis) - before == {"mget": 1}
    shop.app.close()
    app = build(routes=[get("/books/<id>", lambda request: {}, cache=RouteCache(30, store=own_redis.url))])
    app.start({})
    client = Reading(app)
    client.get("/books/7")
    before = _asked(own_redis)
    client.get("/books/7")
    assert _asked(own_redis) - before == {"get": 1}
    app.close()


def _keys(server: Any) -> int:
    return int(server.say("DBSIZE")[1:])


def _asked(server: Any) -> Counter[str]:
    """How often each command was given."""
    lines = server.say("INFO", "commandstats").decode().splitlines()
    return Counter(
        {
            line.split(":")[0].removeprefix("cmdstat_"): int(line.split("calls=")[1].split(",")[0])
            for line in lines
            if line.startswith(("cmdstat_get:", "cmdstat_mget:"))
        }
    )


def test_when_redis_cannot_keep_the_mark_the_change_succeeds_and_this_process_serves_nothing_old(own_redis):
    shop = Shop(store=own_redis.url)
    until(lambda: (shop.seen(), _keys(own_redis))[1] >= 1)
    own_redis.say("CONFIG", "SET", "maxmemory", "1")  # full: it reads, and writes nothing
    assert shop.seen() == 0
    assert shop.client.put("/books/7").status_code == 204
    assert shop.seen() == 1
    assert {"invalidated", "error:mark"} <= operations().keys()
    shop.app.close()


def test_when_redis_is_away_a_change_succeeds(own_redis):
    shop = Shop(store=own_redis.url)
    own_redis.kill()
    assert shop.client.put("/books/7").status_code == 204
    assert shop.seen() == 1
    shop.app.close()


# The marks.


def test_marks_are_forgotten_when_what_was_kept_before_is_over_and_are_bounded():
    now = [0.0]
    marks = Marks(100, lambda: now[0])
    assert (marks.any, marks.of("/a")) == (False, "")
    marks.change("/a")
    first = marks.of("/a")
    marks.change("/a")
    assert marks.of("/a") != first
    now[0] = 99.0
    marks.change("/b")
    assert marks.of("/a")
    now[0] = 100.0
    marks.change("/c")
    assert (marks.of("/a"), bool(marks.of("/b"))) == ("", True)


def test_of_too_many_marks_everything_kept_before_is_hidden():
    marks = Marks(100, lambda: 0.0)
    for number in range(9_999):
        marks._marks[str(number)] = "x", 0.0
    marks.change("/a")
    was, other = marks.of("/a"), marks.of("/never")
    marks.change("/b")
    assert len(marks._marks) == 1
    assert marks.of("/a") not in (was, "")
    assert marks.of("/never") != other
