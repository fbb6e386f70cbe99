"""What stands around a processor, in which order, and what each route may set for itself."""

from __future__ import annotations

import json

import flask
import pytest
from werkzeug.routing import BaseConverter, ValidationError
from werkzeug.test import Client, EnvironBuilder, run_wsgi_app

from patron.cache import LRUStore
from patron.errors import ConfigError
from patron.http import ApiKey, HttpSettings, Principal, RateLimit, Route, RouteCache, build, get, post, put
from patron.http.intake import Intake
from patron.observe import capture

KEYS = ApiKey({"ann": "a-key", "bob": "b-key"})


class Asking:
    """An authenticator that lets everybody in and remembers that it was asked."""

    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    def authenticate(self, request):
        self.seen.append("authenticator")
        name = request.headers.get("X-Name")
        return Principal(name) if name else None


def noting(seen: list[str], what: str):
    def middleware(handler):
        def noted(request):
            seen.append(what)
            return handler(request)

        return noted

    return middleware


# ------------------------------------------------------------------ the order


@pytest.mark.parametrize("cache", [None, RouteCache(max=60.0)], ids=["plain", "cached"])
def test_the_chain_is_limits_authenticator_limits_middlewares_cache_processor(serve, cache):
    seen: list[str] = []
    client = serve(
        get(
            "/",
            lambda request: seen.append("processor") or {"a": 1},
            middlewares=[noting(seen, "first"), noting(seen, "second")],
            authenticator=Asking(seen),
            limits=[RateLimit(1, 3600, burst=2, by="principal"), RateLimit(1, 3600, burst=4)],
            cache=cache,
        )
    )

    def steps(name: str) -> tuple[int, list[str]]:
        seen.clear()
        return client.get("/", headers={"X-Name": name}).status_code, list(seen)

    whole = ["authenticator", "first", "second", "processor"]
    again = whole[:3] if cache else whole
    assert steps("ann") == (200, whole)
    assert steps("ann") == (200, again)
    assert steps("ann") == (
        429,
        ["authenticator"],
    )  # over the limit of the principal, behind the authenticator
    assert steps("") == (401, ["authenticator"])
    assert steps("ann") == (429, [])  # over the limit of the address, in front of it


@pytest.mark.parametrize("cache", [None, RouteCache(max=60.0)], ids=["plain", "cached"])
def test_a_request_over_a_limit_is_a_429_that_says_when_to_come_back(serve, cache):
    client = serve(get("/", lambda request: {"a": 1}, limits=[RateLimit(1, 60, burst=1)], cache=cache))
    assert client.get("/").status_code == 200
    answer = client.get("/")
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert answer.headers["X-Correlation-Id"]


def test_routes_of_one_path_have_limits_of_their_own(serve):
    one = [RateLimit(1, 3600, burst=1)]
    client = serve(get("/", lambda request: 1, limits=one), post("/", lambda request: 1, limits=one))
    assert [client.get("/").status_code, client.post("/").status_code] == [200, 201]
    assert [client.get("/").status_code, client.post("/").status_code] == [429, 429]


def test_each_worker_has_its_share_of_a_limit_in_memory():
    def allowed(workers: int) -> int:
        app = build(
            routes=[get("/", lambda request: 1, limits=[RateLimit(8, 3600, burst=8)])], workers=workers
        )
        app.start()
        client = Client(app)
        try:
            return [client.get("/").status_code for _ in range(10)].count(200)
        finally:
            app.close()

    assert (allowed(1), allowed(4)) == (8, 2)


def test_flasks_own_test_client_runs_the_chain_without_a_cache(serve):
    app = build(routes=[get("/", lambda request: {"a": 1}, authenticator=KEYS, cache=RouteCache(max=60.0))])
    app.start()
    client = app.flask.test_client()
    assert client.get("/").status_code == 401
    assert client.get("/", headers={"Authorization": "Apikey a-key"}).json == {"a": 1}


# ------------------------------------------------------------------ beside a cached route


def test_another_route_of_a_cached_path_is_not_answered_from_the_cache(serve):
    client = serve(
        get("/x/<int:id>", lambda request: {"get": request.params["id"]}, cache=RouteCache(max=60.0)),
        put("/x/<int:id>", lambda request: {"put": request.params["id"]}),
    )
    assert [client.get("/x/1").json, client.put("/x/1").json, client.get("/x/1").json] == [
        {"get": 1},
        {"put": 1},
        {"get": 1},
    ]


def test_a_method_that_a_cached_path_does_not_have_is_a_405_and_options_lists_them(serve):
    client = serve(get("/x", lambda request: {"a": 1}, cache=RouteCache(max=60.0)))
    client.get("/x")
    answer = client.put("/x", json={"a": 2})
    assert (answer.status_code, answer.json) == (405, {"error": "Method Not Allowed"})
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
    options = client.options("/x")
    assert (options.status_code, set(options.headers["Allow"].split(", "))) == (
        200,
        {"GET", "HEAD", "OPTIONS"},
    )


def test_a_cached_path_with_a_slash_too_few_is_redirected_like_any(serve):
    client = serve(get("/x/", lambda request: {"a": 1}, cache=RouteCache(max=60.0)))
    for _ in range(2):
        answer = client.get("/x?b=1")
        assert (answer.status_code, answer.headers["Location"]) == (308, "/x/?b=1")


def test_hits_are_counted_under_the_pattern_like_any_request(serve):
    client = serve(get("/x/<id>", lambda request: {"a": 1}, cache=RouteCache(max=60.0)))
    with capture() as captured:
        client.get("/x/1")
        client.get("/x/1")
        client.put("/x/1")
    assert [(o.target, o.outcome) for o in captured.operations] == [
        ("/x/<id>", "200"),
        ("/x/<id>", "200"),
        ("/x/<id>", "405"),
    ]


# ------------------------------------------------------------------ paths that were asked for lately


def test_what_a_hook_does_to_the_arguments_stays_in_its_request(serve):
    pages = flask.Blueprint("pages", __name__)

    @pages.url_value_preprocessor
    def take(endpoint, values):
        flask.g.language = values.pop("language")

    @pages.get("/<language>/page")
    def page():
        return flask.g.language

    client = serve(blueprints=[pages])
    assert [client.get("/en/page").text for _ in range(3)] == ["en"] * 3


def test_however_many_paths_are_asked_for_each_leads_to_its_own(serve):
    client = serve(get("/<int:a>/<b>", lambda request: dict(request.params)))
    for number in (*range(1100), *range(50)):
        assert client.get(f"/{number}/x").json == {"a": number, "b": "x"}
    assert client.get("/é/x").status_code == 404
    assert client.get("/1/é").json == {"a": 1, "b": "é"}


def test_a_converter_of_the_users_is_asked_every_time():
    known = {"ann"}

    class Known(BaseConverter):
        def to_python(self, value):
            if value not in known:
                raise ValidationError
            return value

    pages = flask.Blueprint("pages", __name__)
    pages.record(lambda state: state.app.url_map.converters.update(known=Known))
    pages.record(lambda state: state.app.add_url_rule("/<known:name>", "known", lambda name: name))
    app = build(blueprints=[pages])
    app.start()
    client = Client(app)
    assert client.get("/ann").text == "ann"
    known.clear()
    assert client.get("/ann").status_code == 404


# ------------------------------------------------------------------ bodies


def test_a_route_may_take_more_or_less_than_the_service(serve):
    def size(request):
        return len(request.body())

    client = serve(
        post("/usual", size),
        post("/more", size, max_body=1000),
        post("/none", size, max_body=0),
        settings=HttpSettings(max_body=100),
    )
    assert client.post("/usual", data=b"x" * 100).json == 100
    assert client.post("/usual", data=b"x" * 101).status_code == 413
    assert client.post("/more", data=b"x" * 1000).json == 1000
    assert client.post("/more", data=b"x" * 1001).status_code == 413
    assert client.post("/none", data=b"x").status_code == 413
    assert client.post("/none").json == 0


@pytest.mark.parametrize("length", [2 * 1024**3, 10**30], ids=["2 GB", "10^30"])
def test_a_body_of_two_gigabytes_is_refused_by_its_length_alone(serve, length):
    class Untouched:
        def read(self, size=-1):
            raise AssertionError("it was read")

    app = build(routes=[post("/", lambda request: request.body())])
    app.start()
    environ = EnvironBuilder("/", method="POST").get_environ()
    environ |= {"CONTENT_LENGTH": str(length), "wsgi.input": Untouched()}
    body, status, _ = run_wsgi_app(app, environ, buffered=True)
    assert status.startswith("413 ")  # its phrase is another one since Python 3.13
    assert json.loads(b"".join(body))["error"].endswith("bytes: at most 1048576 are accepted")


def test_a_cookie_of_64_kilobytes_harms_nobody(serve):
    client = serve(
        get("/", lambda request: len(flask.request.cookies.get("a", ""))),
        get("/cached", lambda request: {"a": 1}, cache=RouteCache(max=60.0)),
    )
    client = Client(client.application, use_cookies=False)  # it would send its own
    cookie = {"HTTP_COOKIE": "a=" + "x" * 65_536}
    assert client.get("/", environ_overrides=cookie).json == 65_536
    assert [client.get("/cached", environ_overrides=cookie).status_code for _ in range(2)] == [200, 200]


def test_the_server_is_told_what_each_request_may_bring():
    routes = [
        post("/usual", print),
        post("/files/<path:name>", print, max_body=7, stream=True),
        get("/files/<path:name>", print),
        post("/large", print, max_body=7, stream=True),
    ]
    ask = build(HttpSettings(max_body=5), routes=routes).intake
    usual, large = Intake(5, False), Intake(7, True)
    assert ask("POST", "/usual") == usual
    assert ask("POST", "/files/a%20b/c?x=/usual") == large
    assert ask("POST", "/%66iles/a") == large
    assert ask("POST", "/large?x=1") == ask("POST", "/large#y") == large
    assert ask("POST", "http://example.org/files/a?x=1#y") == large
    assert ask("GET", "/files/a") == usual
    assert ask("PUT", "/files/a") == usual
    for target in ("", "*", "//", "/%", "/%ff", "/\xff", "http://", "files/a", "/nowhere", "é" * 9, "\u20ac"):
        assert ask("POST", target) == usual


def test_where_no_route_asks_for_it_nothing_is_looked_up():
    app = build(routes=[post("/", print)])
    assert app.intake("POST", "/") is app.intake("GET", "/nowhere")


# ------------------------------------------------------------------ what is refused, and what is listed


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"cache": 30}, "cache is 30: use a RouteCache"),
        ({"cache": RouteCache(max=1.0), "method": "POST"}, "a cache goes with GET only, not with POST"),
        ({"cache": RouteCache(max=1.0), "method": "HEAD"}, "a cache goes with GET only, not with HEAD"),
        ({"cache": RouteCache(max=1.0), "stream": True}, "a cached route has no body to stream"),
        ({"limits": [10]}, "limit 10 is no RateLimit"),
        ({"limits": [RateLimit(1, by="principal")]}, "a limit by principal needs an authenticator"),
        ({"max_body": -1}, "max_body is -1: use a whole number of bytes"),
        ({"max_body": True}, "max_body is True"),
        ({"max_body": 1.5}, "max_body is 1.5"),
    ],
    ids=str,
)
def test_options_that_do_not_go_together_are_refused(options, problem):
    with pytest.raises(ConfigError) as caught:
        Route(**{"method": "GET", "path": "/", "processor": print, **options})
    assert problem in str(caught.value)


def test_the_list_of_routes_tells_of_cache_and_limits():
    limit = RateLimit(10, per=1.0)
    app = build(
        routes=[get("/a", print, cache=RouteCache(max=30.0, min=2.0), limits=[limit]), get("/b", print)]
    )
    listed = {info.path: (info.cache, info.limits) for info in app.routes() if info.kind == "processor"}
    assert listed == {"/a": ("2 to 30 s", str(limit)), "/b": (None, None)}


def test_stores_are_closed_when_the_service_ends_and_when_it_cannot_start(monkeypatch):
    closed = []
    monkeypatch.setattr(LRUStore, "close", lambda self: closed.append(self))
    app = build(routes=[get("/a", lambda request: 1, cache=RouteCache(max=30.0))])
    app.start()
    app.close()
    app.close()
    assert len(closed) == 1

    def wants(request, db):
        return db

    app = build(routes=[get("/a", lambda request: 1, cache=RouteCache(max=30.0)), get("/b", wants)])
    with pytest.raises(ConfigError, match="db"):
        app.start()
    assert len(closed) == 2
