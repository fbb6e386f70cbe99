"""The cache as a middleware of routes, and around views and mounted applications."""

from __future__ import annotations

import sys

import flask
import pytest
from cache_world import Reading, operations
from werkzeug.test import Client
from werkzeug.wrappers import Response as Reply

from patron.errors import ConfigError, NotFound
from patron.http import ApiKey, RateLimit, RouteCache, build, cached, cached_app, get, post
from patron.http.limits import limited
from patron.observe import metrics
from patron.resources import use
from patron.testing import until


@pytest.fixture(autouse=True)
def _counts_from_nothing():
    metrics.reset()
    yield
    metrics.reset()


class Counting:
    """A processor or view that answers how often it ran."""

    __name__ = "counting"

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, request=None, **params):
        self.runs += 1
        return {"run": self.runs}


def client(**parts) -> Client:
    app = build(**parts)
    app.start(parts.pop("resources", {}))
    return Reading(app, use_cookies=False)


# Of a route.


def test_as_a_middleware_of_a_route_it_answers_as_the_option_does():
    c = client(routes=[get("/x", Counting(), middlewares=(cached(RouteCache(max=30, min=5)),))])
    first, again = c.get("/x"), c.get("/x", headers={"Cache-Control": "no-cache"})
    assert first.json == again.json == {"run": 1}
    assert again.headers["Warning"].startswith("199 ")
    assert first.headers["ETag"] == again.headers["ETag"]
    missing = c.get("/x?other", headers={"Cache-Control": "only-if-cached"})
    assert (missing.status_code, missing.data) == (504, b"")
    known = c.get("/x", headers={"If-None-Match": first.headers["ETag"]})
    assert (known.status_code, known.data, "Content-Type" in known.headers) == (304, b"", False)
    head = c.head("/x")
    assert (head.data, head.headers["Content-Length"]) == (b"", first.headers["Content-Length"])
    assert operations() == {"miss": 2, "added": 1, "refused": 1, "hit": 3}


def test_what_is_in_front_of_it_runs_for_every_request():
    ran = []

    def seen(handler):
        return lambda request: ran.append(request.path) or handler(request)

    c = client(routes=[get("/x", Counting(), middlewares=(seen, cached(RouteCache(max=30))))])
    assert [c.get("/x").json["run"] for _ in range(3)] == [1, 1, 1]
    assert len(ran) == 3


def test_hooks_of_flask_run_for_hits_too():
    app = build(routes=[get("/x", Counting(), middlewares=(cached(RouteCache(max=30)),))])
    ran = []
    app.flask.before_request(lambda: ran.append(1))
    app.start({})
    assert [Client(app).get("/x").json["run"] for _ in range(2)] == [1, 1]
    assert ran == [1, 1]


def test_one_middleware_on_two_routes_makes_two_caches():
    keep = cached(RouteCache(max=30))
    routes = [get(path, Counting(), middlewares=(keep,)) for path in ("/a", "/b")]
    c = client(routes=routes)
    assert [c.get(path).json["run"] for path in ("/a", "/b", "/a", "/b")] == [1, 1, 1, 1]
    keep.close()
    assert c.get("/a").json == {"run": 2}


def test_each_principal_has_entries_of_its_own():
    keys = ApiKey({"ann": "1", "bob": "2"})
    who = lambda request: {"who": request.principal.name}  # noqa: E731
    c = client(routes=[get("/x", who, authenticator=keys, middlewares=(cached(RouteCache(max=30)),))])
    answers = [c.get("/x", headers={"Authorization": f"Apikey {key}"}) for key in "1212"]
    assert [a.json["who"] for a in answers] == ["ann", "bob", "ann", "bob"]
    assert operations() == {"miss": 2, "added": 2, "hit": 2}


def test_other_methods_pass_through():
    c = client(routes=[post("/x", Counting(), middlewares=(cached(RouteCache(max=30)),))])
    assert [c.post("/x").json["run"] for _ in range(2)] == [1, 2]
    assert operations() == {}


def test_an_error_of_the_processor_is_its_answer():
    def missing(request):
        raise NotFound({"error": "no such thing"})

    c = client(routes=[get("/x", missing, middlewares=(cached(RouteCache(max=30, stale_if_error=9)),))])
    assert [(c.get("/x").status_code, c.get("/x").json) for _ in range(2)] == [
        (404, {"error": "no such thing"})
    ] * 2


def test_a_session_that_was_looked_at_keeps_the_answer_from_others():
    def who(request):
        return {"who": flask.session.get("who")}

    app = build(routes=[get("/who", who, middlewares=(cached(RouteCache(max=30)),))])
    app.flask.secret_key = "k"
    app.start({})
    ann = app.flask.test_client()
    with ann.session_transaction() as session:
        session["who"] = "ann"
    cookie = {"Cookie": f"session={ann.get_cookie('session').value}"}
    c = Client(app, use_cookies=False)
    assert [
        c.get("/who").json["who"],
        c.get("/who", headers=cookie).json["who"],
        c.get("/who").json["who"],
    ] == [
        None,
        "ann",
        None,
    ]
    assert operations() == {"miss": 3, "not_cacheable:vary": 3}


def test_a_stream_passes_through():
    c = client(
        routes=[get("/x", lambda request: iter([b"a", b"b"]), middlewares=(cached(RouteCache(max=30)),))]
    )
    assert [c.get("/x").data for _ in range(2)] == [b"ab", b"ab"]


def test_its_store_may_be_a_resource():
    from patron.cache import LRUStore

    shelf = LRUStore()
    c = client(routes=[get("/x", Counting(), middlewares=(cached(RouteCache(max=30, store="shelf")),))])
    with use({"shelf": shelf}):
        assert c.get("/x").json == {"run": 1}
    assert len(shelf) == 1


def test_with_max_0_it_is_not_there():
    processor = Counting()
    c = client(routes=[get("/x", processor, middlewares=(cached(RouteCache(max=0)),))])
    assert [c.get("/x").json["run"] for _ in range(2)] == [1, 2]
    assert cached(RouteCache(max=0))(processor) is processor


@pytest.mark.parametrize("make", [cached, cached_app])
def test_settings_that_are_none_are_an_error(make):
    with pytest.raises(ConfigError, match="RouteCache"):
        make(30)


@pytest.mark.parametrize("kind", ["route", "service", "mount", "limited", "limited mount"])
def test_at_the_stop_of_a_service_what_its_middlewares_have_open_is_closed(own_redis, kind):
    settings, limit = RouteCache(max=30, store=own_redis.url), RateLimit(10, store=own_redis.url)
    view = Reply("x")
    parts = {
        "route": {"routes": [get("/x/y", Counting(), middlewares=(cached(settings),))]},
        "service": {"routes": [get("/x/y", Counting())], "middlewares": [cached_app(settings)]},
        "mount": {"mounts": {"/x": cached_app(settings)(view)}},
        "limited": {"routes": [get("/x/y", Counting())], "middlewares": [limited(limit)]},
        "limited mount": {"mounts": {"/x": limited(limit)(view)}},
    }[kind]
    app = build(**parts)
    app.start({})
    assert Reading(app).get("/x/y").status_code == 200
    assert connections(own_redis) == 1
    app.close()
    until(lambda: connections(own_redis) == 0)
    app.close()


def connections(server) -> int:
    listed = server.say("CLIENT", "LIST").decode()
    return sum("cmd=client" not in line for line in listed.splitlines() if "id=" in line)


def test_a_middleware_that_cannot_be_closed_keeps_no_other_from_it():
    closed = []

    class Layer:
        """A class is a middleware, too: what it makes is closed."""

        def __init__(self, application) -> None:
            self._application = application

        def __call__(self, environ, start_response):
            return self._application(environ, start_response)

        def close(self):
            closed.append(self)
            raise RuntimeError("not today")

    app = build(routes=[get("/x", Counting())], middlewares=[Layer, Layer])
    app.start({})
    assert Reading(app).get("/x").status_code == 200
    app.close()
    assert len(closed) == 2


# Around WSGI applications.


def shop() -> tuple[flask.Flask, Counting]:
    app, view = flask.Flask("shop"), Counting()
    app.secret_key = "k"
    app.add_url_rule("/books", "books", view)
    app.add_url_rule("/books/<name>", "book", view)
    app.add_url_rule("/cart", "cart", lambda: {"cart": flask.session.get("cart"), **view()})
    app.add_url_rule("/raw", "raw", lambda: {"who": flask.request.headers.get("Cookie")})
    app.add_url_rule("/stream", "stream", lambda: flask.Response(iter(["a", "b"])))
    app.add_url_rule("/fail", "fail", lambda: (view(), 500 if view.runs > 1 else 200))
    app.add_url_rule("/write", "write", view, methods=["POST", "PUT"])
    return app, view


def test_a_mounted_application_can_be_cached():
    app, view = shop()
    c = client(mounts={"/shop": cached_app(RouteCache(max=30))(app)})
    answers = [c.get("/shop/books?b=1&a=2"), c.get("/shop/books?a=2&b=1")]
    assert [a.json["run"] for a in answers] == [1, 1]
    assert answers[1].headers["Age"] == "0"
    assert c.head("/shop/books?a=2&b=1").headers["Content-Length"] == answers[0].headers["Content-Length"]
    assert c.get("/shop/books?a=2&b=1", headers={"If-None-Match": "*"}).status_code == 304
    assert [c.get("/shop/nothing").status_code for _ in range(2)] == [404, 404]
    assert [c.post("/shop/write").json["run"], c.put("/shop/write").json["run"]] == [2, 3]
    assert view.runs == 3
    assert b'operation="hit",reason="",route="/shop/*"' in c.get("/metrics").data


def test_flasks_session_is_given_to_nobody_else():
    app, _ = shop()
    c = client(mounts={"/shop": cached_app(RouteCache(max=30))(app)})
    assert [c.get("/shop/cart").json["run"] for _ in range(2)] == [1, 2]
    assert [c.get("/shop/raw", headers={"Cookie": who}).json["who"] for who in ("ann", "bob")] == [
        "ann",
        "bob",
    ]
    assert c.get("/shop/raw").json == {"who": None}


def test_credentials_keep_a_request_from_the_store():
    app, _ = shop()
    c = client(mounts={"/shop": cached_app(RouteCache(max=30))(app)})
    assert [c.get("/shop/books", headers={"Authorization": "x"}).json["run"] for _ in range(2)] == [1, 2]


def test_views_of_a_service_are_cached_by_path_and_the_admin_routes_never():
    blueprint, view = flask.Blueprint("shop", __name__), Counting()
    for path in ("/books", "/books/<name>", "/bookshelf"):
        blueprint.add_url_rule(path, path, view)
    middleware = cached_app(RouteCache(max=30), paths=["/books", "/alive"])
    c = client(blueprints=[blueprint], middlewares=[middleware])
    paths = ["/books", "/books", "/books/a", "/books/a", "/bookshelf", "/bookshelf"]
    assert [c.get(path).json["run"] for path in paths] == [1, 1, 2, 2, 3, 4]
    assert "Age" not in c.get("/alive").headers
    page = c.get("/metrics").data
    assert b'operation="hit",reason="",route="/books/<name>"' in page
    counted = [line for line in page.splitlines() if line.startswith(b"http_cache_handler_operations_total{")]
    assert counted
    assert not [line for line in counted if b'route="/alive"' in line]


def test_around_everything_it_leaves_the_admin_routes_alone():
    c = client(routes=[get("/x", Counting())], middlewares=[cached_app(RouteCache(max=30))])
    assert [c.get("/x").json["run"] for _ in range(2)] == [1, 1]
    before = c.get("/metrics").data
    assert c.get("/metrics").data != before


def test_it_needs_nothing_of_patron_around_it():
    app, _ = shop()
    c = Client(cached_app(RouteCache(max=30), paths="/books", route="shop")(app))
    assert [c.get("/books").json["run"] for _ in range(2)] == [1, 1]
    assert [c.get("/raw").status_code, c.get("/stream").data] == [200, b"ab"]
    assert operations() == {"miss": 1, "added": 1, "hit": 1}


def test_a_stream_passes_through_and_is_closed():
    closed = []

    class Body:
        def __iter__(self):
            return iter([b"a", b"b"])

        def close(self):
            closed.append(True)

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Body()

    c = Client(cached_app(RouteCache(max=30))(app))
    assert c.get("/x", buffered=True).data == b"ab"
    assert c.head("/x").data == b""
    assert closed == [True, True]


@pytest.mark.parametrize("length", [True, False])
def test_old_ways_to_answer_are_understood(length):
    def app(environ, start_response):
        """Calls start_response late, and writes."""

        def answer():
            write = start_response("200 OK", [("Content-Length", "2")] if length else [])
            write(b"a")
            yield b""
            yield b"b"

        return answer()

    c = Client(cached_app(RouteCache(max=30))(app))
    assert [c.get("/x", buffered=True).data for _ in range(2)] == [b"ab", b"ab"]
    assert operations() == (
        {"miss": 1, "added": 1, "hit": 1} if length else {"miss": 2, "not_cacheable:streamed": 2}
    )


def test_an_application_that_fails_in_the_middle_of_a_stream_cannot_take_its_head_back():
    def app(environ, start_response):
        start_response("200 OK", [])

        def body():
            yield b"a"
            try:
                raise RuntimeError("in the middle")
            except RuntimeError:
                start_response("500 Oops", [], sys.exc_info())
            yield b"never"

        return body()

    c = Client(cached_app(RouteCache(max=30))(app))
    with pytest.raises(RuntimeError, match="in the middle"):
        c.get("/x", buffered=True)


def test_an_application_may_take_its_head_back_before():
    def app(environ, start_response):
        start_response("200 OK", [("X-First", "1")])
        try:
            raise RuntimeError
        except RuntimeError:
            start_response("404 Not Found", [], sys.exc_info())
        return [b"no"]

    answer = Client(cached_app(RouteCache(max=30))(app)).get("/x")
    assert (answer.status_code, answer.data, "X-First" in answer.headers) == (404, b"no", False)


def test_a_body_of_another_length_than_its_head_says_is_not_kept():
    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "5")])
        return [b"ab"]

    c = Client(cached_app(RouteCache(max=30))(app))
    assert [c.get("/x").data for _ in range(2)] == [b"ab", b"ab"]
    assert operations() == {"miss": 2, "not_cacheable:length": 2}


@pytest.mark.parametrize(
    "broken",
    [
        lambda environ, start_response: [b"no head"],
        lambda environ, start_response: (start_response("200", []) and []) or ["text"],
        lambda environ, start_response: start_response("two hundred", []) and [],
        lambda environ, start_response: start_response("200 OK", [("A", "b\nc")]) and [],
        lambda environ, start_response: 1 / 0,
    ],
)
def test_an_application_that_breaks_the_rules_is_a_failure_for_one_request(broken):
    c = client(mounts={"/x": cached_app(RouteCache(max=30))(broken)})
    assert [c.get("/x/y").status_code for _ in range(2)] == [500, 500]
    assert operations() == {"miss": 2, "failed:error": 2}


def test_a_failure_of_the_application_is_hidden_by_what_it_answered_before(monkeypatch):
    from cache_world import Clock

    from patron.http.caching import engine

    clock = Clock()
    monkeypatch.setattr(engine, "wall_clock", clock)
    app, view = shop()
    c = client(mounts={"/shop": cached_app(RouteCache(max=30, stale_if_error=60))(app)})
    assert c.get("/shop/fail").json == {"run": 1}
    clock.now += 31
    answer = c.get("/shop/fail")
    assert (answer.status_code, answer.json, answer.headers["Warning"][:4]) == (200, {"run": 1}, "110 ")
    assert view.runs == 2


def test_a_cache_around_a_cached_route_counts_the_age_on():
    c = client(
        routes=[get("/x", Counting(), cache=RouteCache(max=30))], middlewares=[cached_app(RouteCache(max=10))]
    )
    assert [c.get("/x").json["run"] for _ in range(3)] == [1, 1, 1]


def test_headers_of_one_connection_or_one_request_are_not_kept():
    def app(environ, start_response):
        headers = [("Connection", "X-Hop"), ("X-Hop", "1"), ("X-Correlation-Id", "c1"), ("X-Stays", "1")]
        start_response("200 OK", [*headers, ("Content-Length", "2")])
        return [b"ab"]

    c = Client(cached_app(RouteCache(max=30))(app))
    for _ in range(2):
        names = {name.lower() for name, _ in c.get("/x").headers}
        assert names == {"x-stays", "content-length", "age", "etag", "cache-control"}


def test_a_zero_byte_moves_nothing_from_one_part_of_the_key_to_the_next():
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [repr((environ["SCRIPT_NAME"], environ["PATH_INFO"])).encode()]

    c = Client(cached_app(RouteCache(max=30))(app))
    places = [("/a\0", "/b"), ("/a", "\0/b")]
    for script, path in places * 2:
        answer = c.get("/", environ_overrides={"SCRIPT_NAME": script, "PATH_INFO": path})
        assert answer.text == repr((script, path))
    assert operations()["hit"] == 2


def test_a_path_that_does_not_begin_with_a_slash_is_an_error():
    with pytest.raises(ConfigError, match="books"):
        cached_app(RouteCache(max=1), paths=["books"])
