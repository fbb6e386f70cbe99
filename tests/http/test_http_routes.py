"""Routes are checked when they are built, and requests find them."""

from __future__ import annotations

import gc

import flask
import pytest
from werkzeug.routing import Rule
from werkzeug.test import Client, EnvironBuilder, run_wsgi_app

from patron.errors import ConfigError
from patron.http import ApiKey, HttpSettings, RateLimit, Response, Route, build, delete, get, post
from patron.http.router import Endpoint


def nothing(request):
    """A processor that answers nothing."""


# ------------------------------------------------------------------ building


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Route("FETCH", "/", nothing), "method 'FETCH' is unknown"),
        (lambda: get("orders", nothing), "must begin with /"),
        (lambda: get("/orders/{id}", nothing), "write path parameters as /orders/<id>"),
        (lambda: get("/orders/:id", nothing), "write path parameters as /orders/<id>"),
        (lambda: get("/orders?x", nothing), "no spaces"),
        (lambda: get("/a b", nothing), "no spaces"),
        (lambda: get(None, nothing), "must begin with /"),
        (lambda: get("/", "m:f"), "cannot be called"),
        (lambda: get("/", nothing, limits=RateLimit(10)), r"limits is RateLimit\(.*use a list"),
        (lambda: get("/", nothing, middlewares=nothing), "middlewares is <function nothing.*use a list"),
        (lambda: get("/", nothing, produces="text/csv"), "produces is 'text/csv': use a list"),
        (lambda: get("/", nothing, name=3), "name is 3: use a string"),
        (lambda: get("/", nothing, stream="yes"), "stream is 'yes': use True or False"),
        (lambda: get("/", nothing, timeout=1e300), "timeout is 1e\\+300: use seconds above 0"),
        (lambda: get("/", nothing, middlewares=["m"]), "middleware 'm' cannot be called"),
        (lambda: get("/", nothing, authenticator=object()), "no authenticate"),
        (lambda: get("/", nothing, produces=["csv"]), "no media type"),
    ],
)
def test_a_wrong_route_says_what_is_wrong(make, problem):
    with pytest.raises(ConfigError, match=problem):
        make()


@pytest.mark.parametrize(
    ("routes", "problems"),
    [
        ([get("/x", nothing), get("/x", nothing)], 1),
        ([get("/x/<a>", nothing), get("/x/<b>", nothing)], 1),
        ([get("/x/<a>", nothing), get("/x/<string:b>", nothing), get("/x/<default:c>", nothing)], 2),
        ([get("/x/<int:a>", nothing), get("/x/<a>", nothing)], 0),
        ([get("/x", nothing), post("/x", nothing), delete("/x", nothing)], 0),
        ([Route("HEAD", "/x", nothing), get("/x", nothing)], 1),
        ([get("/metrics", nothing), get("/alive", nothing), get("/debug/components", nothing)], 3),
        ([post("/metrics", nothing)], 1),
        ([get("/x", nothing, name="n"), get("/y", nothing, name="n")], 1),
        ([get("/x/<nonsense:a>", nothing), get("/y/<a", nothing)], 2),
        ([get("/old/x", nothing), get("/older", nothing)], 1),
        ([get("/views/<b>", nothing)], 1),
        (["no route"], 1),
    ],
)
def test_all_clashes_are_refused_together(routes, problems):
    views = flask.Blueprint("views", __name__)
    views.get("/views/<a>")(lambda a: "")

    def make():
        return build(routes=routes, blueprints=[views], mounts={"/old": lambda environ, start_response: []})

    if not problems:
        make()
        return
    with pytest.raises(ConfigError) as caught:
        make()
    assert len(caught.value.problems) == problems, caught.value


@pytest.mark.parametrize("prefix", ["old", "/", "/old/", "/<a>", "/{a}", ""])
def test_a_mount_needs_a_plain_prefix(prefix):
    with pytest.raises(ConfigError, match="mount"):
        build(mounts={prefix: lambda environ, start_response: []})


def test_two_blueprints_of_one_name_are_a_config_error():
    with pytest.raises(ConfigError, match="blueprint 'views'"):
        build(blueprints=[flask.Blueprint("views", __name__), flask.Blueprint("views", __name__)])


def test_routes_are_listed():
    views = flask.Blueprint("views", __name__)
    views.route("/view", methods=["GET", "POST"])(lambda: "")
    app = build(
        routes=[get("/orders/<id>", nothing, authenticator=ApiKey(["k"]))],
        blueprints=[views],
        mounts={"/old": lambda environ, start_response: []},
    )
    listed = {(info.kind, info.method, info.path, info.authenticator) for info in app.routes()}
    assert {
        ("processor", "GET", "/orders/<id>", "ApiKey"),
        ("view", "GET", "/view", None),
        ("view", "POST", "/view", None),
        ("mount", "*", "/old/*", None),
        ("admin", "GET", "/ready", None),
    } <= listed
    assert not [info for info in app.routes() if info.method == "OPTIONS"]


# ------------------------------------------------------------------ finding


def test_an_unknown_path_is_404_and_an_unknown_method_405_with_allow(serve):
    client = serve(get("/x", nothing), post("/x", nothing))
    assert (client.get("/y").status_code, client.get("/y").json) == (404, {"error": "Not Found"})
    answer = client.delete("/x")
    assert (answer.status_code, answer.json) == (405, {"error": "Method Not Allowed"})
    assert {"GET", "HEAD", "POST", "OPTIONS"} == set(answer.headers["Allow"].split(", "))


def test_options_lists_the_methods(serve):
    answer = serve(get("/x", nothing), post("/x", nothing)).options("/x")
    assert answer.status_code == 200
    assert {"GET", "HEAD", "POST", "OPTIONS"} == set(answer.headers["Allow"].split(", "))


def test_a_missing_slash_is_redirected_on_the_host_that_was_asked(serve):
    answer = serve(get("/x/", nothing)).get("/x?a=b", base_url="http://shop.example")
    assert (answer.status_code, answer.headers["Location"]) == (308, "/x/?a=b")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/x/\xff", 400),
        ("/x/\xc3", 400),
        ("/x/\x00", 400),
        ("/x/a\nb", 400),
        ("/x/a\rb", 400),
        ("/x/\x1b[31m", 400),
        ("/x/\x7f", 400),
        ("/x/\xc2\x85", 400),
        ("/x/\xc3\xa9", 200),
        ("/x/ ", 200),
        ("/x/%", 200),
        ("/y/%ff", 404),
        ("", 404),
    ],
    ids=repr,
)
def test_odd_paths_get_a_clear_answer_and_are_logged_as_one_safe_line(caplog, path, status):
    caplog.set_level("DEBUG", "patron")
    app = build(routes=[get("/x/<id>", lambda request: Response(request.path.encode()))])
    app.start({})
    _, line, _ = run_wsgi_app(app, {**EnvironBuilder().get_environ(), "PATH_INFO": path})
    assert int(line[:3]) == status
    (record,) = [record for record in caplog.records if record.getMessage().startswith("request")]
    assert record.fields["path"].isprintable()


def test_a_path_without_parameters_is_found_again_and_again(serve):
    client = serve(
        get("/x", lambda request: [request.route, dict(request.params)]),
        get("/y/<z>", lambda request: request.params["z"]),
    )
    for _ in range(3):
        assert client.get("/x").json == ["/x", {}]
        assert client.get("/y/x").json == "x"
        assert client.post("/x").status_code == 405


# ------------------------------------------------------------------ mounts, middlewares


def echo(environ, start_response):
    """A WSGI application that says where it thinks it is."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['SCRIPT_NAME']}|{environ['PATH_INFO']}".encode()]


def test_a_mounted_application_sees_its_prefix_as_script_name():
    app = build(routes=[get("/older", lambda request: "route")], mounts={"/old": echo, "/old/inner": echo})
    app.start({})
    client = Client(app)
    assert client.get("/old").text == "/old|"
    assert client.get("/old/a/b").text == "/old|/a/b"
    assert client.get("/old/inner/c").text == "/old/inner|/c"
    assert client.get("/older").json == "route"


def test_wsgi_middlewares_are_nested_in_their_order_and_see_404s():
    def named(name):
        def wrap(app):
            def middleware(environ, start_response):
                def start(status, headers, exc_info=None):
                    return start_response(status, [*headers, ("X-Order", name)], exc_info)

                return app(environ, start)

            return middleware

        return wrap

    app = build(routes=[get("/", nothing)], middlewares=[named("outer"), named("inner")])
    app.start({})
    for path in ("/", "/nowhere"):
        assert Client(app).get(path).headers.getlist("X-Order") == ["inner", "outer"]


def test_what_a_middleware_makes_of_path_and_method_is_what_is_served(serve):
    def rewriting(app):
        def middleware(environ, start_response):
            environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix("/v1")
            environ["REQUEST_METHOD"] = environ.get("HTTP_X_METHOD", environ["REQUEST_METHOD"])
            return app(environ, start_response)

        return middleware

    client = serve(delete("/x/<id>", lambda request: request.params["id"]), middlewares=[rewriting])
    assert client.post("/v1/x/7", headers={"X-Method": "DELETE"}).json == "7"


def test_route_middlewares_see_a_response_and_the_first_one_is_outermost(serve):
    calls = []

    def named(name):
        def wrap(handler):
            def middleware(request):
                calls.append(name)
                response = handler(request)
                response.headers = {**(response.headers or {}), f"X-{name}": str(response.payload)}
                return response

            return middleware

        return wrap

    def short(handler):
        return lambda request: Response("short", 202)

    client = serve(
        get("/", lambda request: {"a": 1}, middlewares=[named("One"), named("Two")]),
        get("/short", lambda request: calls.append("processor"), middlewares=[named("One"), short]),
    )
    answer = client.get("/")
    assert (calls, answer.json, answer.headers["X-One"]) == (["One", "Two"], {"a": 1}, "{'a': 1}")
    assert client.get("/short").status_code == 202
    assert "processor" not in calls


def test_a_request_within_a_request_is_a_request_of_its_own(serve):
    client = serve(
        get("/outer", lambda request: client.get("/inner").json), get("/inner", lambda request: "inner")
    )
    assert client.get("/outer").json == "inner"


def test_admin_routes_may_move_away_for_the_service_to_use_their_paths():
    app = build(HttpSettings(admin_prefix="/-"), routes=[get("/metrics", lambda request: "own")])
    app.start({})
    assert Client(app).get("/metrics").json == "own"
    assert Client(app).get("/-/ready").status_code == 200


def test_methods_that_clients_make_up_are_not_remembered():
    """A rule of werkzeug's own takes every method."""
    every = flask.Blueprint("every", __name__)
    every.record(lambda state: state.app.url_map.add(Rule("/any", endpoint="any")))
    every.record(lambda state: state.app.endpoint("any")(lambda: "any"))
    application = build(blueprints=[every])
    application.start()
    client = Client(application)
    for number in range(50):
        assert client.open("/any", method=f"M{number}").text == "any"
    gc.collect()
    kept = [o for o in gc.get_objects() if isinstance(o, Endpoint) and o.pattern == "/any"]
    assert len(kept) == 1
