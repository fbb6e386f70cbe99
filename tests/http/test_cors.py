"""Pages of other origins: what a browser is told, before a request and with its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flask
import pytest
from werkzeug.test import Client

from patron.errors import ConfigError
from patron.http import ApiKey, Compression, Cors, HttpSettings, Response, cors, get, put

SHOP = "https://shop.example"
ALLOW = "Access-Control-Allow-Origin"


@pytest.fixture
def shared(serve: Callable[..., Client]) -> Callable[..., Client]:
    """A client of a service that other origins' pages may call; as settings, or as a middleware."""

    def shared(*routes: Any, **options: Any) -> Client:
        return serve(*routes, settings=HttpSettings(cors=Cors(**{"origins": (SHOP,), **options})))

    return shared


def preflight(
    client: Client, path: str = "/", origin: str = SHOP, method: str = "PUT", **headers: str
) -> Any:
    """What a browser asks before *method*."""
    asked = {"Origin": origin, "Access-Control-Request-Method": method, **headers}
    return client.options(path, headers=asked)


@pytest.mark.parametrize("as_middleware", [False, True])
def test_a_refused_page_is_told_once_that_answers_vary(shared, serve, as_middleware: bool) -> None:
    client = serve(get("/", lambda _: 1), middlewares=[cors([SHOP])]) if as_middleware else shared()
    answer = preflight(client, origin="https://other.example")
    assert answer.status_code == 403
    assert answer.headers.getlist("Vary") == ["Origin"]


def test_a_page_of_an_origin_that_is_named_may_read_the_answer(shared) -> None:
    answer = shared(get("/", lambda _: 1)).get("/", headers={"Origin": SHOP})
    assert (answer.json, answer.headers[ALLOW]) == (1, SHOP)
    assert "Origin" in answer.headers["Vary"]
    assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    [
        "https://shop.example.evil",
        "https://evil-shop.example",
        "https://shop.example:444",
        "http://shop.example",
        "https://SHOP.example",
        "https://shop.example/",
        f"{SHOP}, https://evil.example",
        f"https://evil.example, {SHOP}",
        "null",
        "*",
        "",
        "https://shop.example\u0660".encode().decode("latin-1"),
    ],
)
def test_origins_are_compared_exactly_and_others_are_told_nothing(shared, origin: str) -> None:
    client = shared(get("/", lambda _: 1))
    answer = client.get("/", headers={"Origin": origin})
    assert answer.json == 1  # it is the browser that keeps it from the page
    assert ALLOW not in answer.headers
    assert "Origin" in answer.headers["Vary"]  # or a cache would keep it from the pages that may
    assert preflight(client, origin=origin).status_code == 403


def test_a_request_of_no_page_is_answered_as_ever_but_varies(shared) -> None:
    answer = shared(get("/", lambda _: 1)).get("/")
    assert ALLOW not in answer.headers
    assert answer.headers["Vary"] == "Accept, Origin"


def test_a_star_says_the_same_to_everybody(shared) -> None:
    client = shared(get("/", lambda _: 1), origins=("*",))
    for origin in (SHOP, "null", None):
        answer = client.get("/", headers={"Origin": origin} if origin else {})
        assert answer.headers[ALLOW] == "*"
        assert "Origin" not in answer.headers["Vary"]
    assert preflight(client, origin="https://any.example").headers[ALLOW] == "*"


def test_what_browsers_ask_beforehand_is_answered_without_running_the_route(shared) -> None:
    ran: list[Any] = []
    answer = preflight(shared(put("/", ran.append), max_age=86400.0, headers=("X-Shop",)))
    assert (answer.status_code, answer.data, ran) == (204, b"", [])
    told = {name: value for name, value in answer.headers.items() if name.startswith("Access-Control")}
    assert told == {
        ALLOW: SHOP,
        "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, PATCH, DELETE",
        "Access-Control-Allow-Headers": "X-Shop",
        "Access-Control-Max-Age": "86400",
    }
    assert answer.headers["Vary"] == "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
    assert "Content-Type" not in answer.headers


def test_another_options_request_goes_to_the_route(shared) -> None:
    client = shared(get("/", lambda _: 1))
    assert "GET" in client.options("/", headers={"Origin": SHOP}).headers["Allow"]
    assert "GET" in client.options("/", headers={"Access-Control-Request-Method": "GET"}).headers["Allow"]


def test_a_star_among_the_headers_allows_what_is_asked_for_and_nothing_that_is_none(shared) -> None:
    asked = {"Access-Control-Request-Headers": 'X-One,x-two , "quoted", X Three, X-Four:'}
    answer = preflight(shared(headers=("*",)), **asked)
    assert answer.headers["Access-Control-Allow-Headers"] == "X-One, x-two"
    assert "Access-Control-Allow-Headers" not in preflight(shared(headers=("*",))).headers


def test_credentials_and_exposed_headers_are_told_to_who_may(shared) -> None:
    client = shared(get("/", lambda _: 1), credentials=True, expose=("X-Total", "X-Correlation-Id"))
    answer = client.get("/", headers={"Origin": SHOP})
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert answer.headers["Access-Control-Expose-Headers"] == "X-Total, X-Correlation-Id"
    assert preflight(client).headers["Access-Control-Allow-Credentials"] == "true"
    other = client.get("/", headers={"Origin": "https://evil.example"})
    assert not [name for name, _ in other.headers if name.startswith("Access-Control")]


def test_patterns_match_an_origin_as_a_whole(shared) -> None:
    client = shared(get("/", lambda _: 1), origins=(), patterns=(r"https://[a-z0-9-]+\.shop\.example",))

    def allowed(origin: str) -> bool:
        return ALLOW in client.get("/", headers={"Origin": origin}).headers

    assert allowed("https://pr-12.shop.example")
    assert not allowed("https://pr-12.shop.example.evil.example")
    assert not allowed("https://evil.example/https://x.shop.example")
    assert not allowed("https://x.shopxexample")


#: (method, path, headers, status); the last ones are refused before middlewares are asked.
ERRORS: list[tuple[str, str, dict[str, str], int]] = [
    ("GET", "/nothing", {}, 404),
    ("PUT", "/fails", {}, 405),
    ("GET", "/fails", {}, 500),
    ("GET", "/keyed", {}, 401),
    ("GET", "/fails", {"Accept": "image/png"}, 406),
    ("GET", "/stream", {}, 500),
    ("GET", "/mounted", {}, 500),
    ("GET", "/%01", {}, 400),
    ("GET", "/ready", {}, 200),
    ("POST", "/fails", {"Content-Type": "text/plain"}, 413),
    ("GET", "/fails", {"Host": "no host"}, 400),
]


@pytest.mark.parametrize(
    ("as_middleware", "method", "path", "headers", "status"),
    [*((False, *error) for error in ERRORS), *((True, *error) for error in ERRORS[:-2])],
)
def test_pages_can_read_errors_too_whoever_made_them(
    serve, as_middleware: bool, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    def fails(*args: Any) -> Any:
        raise LookupError

    def stream(request: Any) -> Any:
        raise LookupError
        yield b""

    routes = [
        get("/fails", fails),
        get("/stream", stream),
        get("/keyed", fails, authenticator=ApiKey({"a": "k"})),
    ]
    client = serve(
        *routes,
        mounts={"/mounted": fails},
        settings=HttpSettings(cors=None if as_middleware else Cors((SHOP,))),
        middlewares=[cors([SHOP])] if as_middleware else [],
    )
    body = bytes(2_000_000) if status == 413 else b""
    answer = client.open(path, method=method, data=body, headers={"Origin": SHOP, **headers})
    assert answer.status_code == status
    assert answer.headers.getlist(ALLOW) == [SHOP]
    assert "Origin" in ", ".join(answer.headers.getlist("Vary"))


def test_a_refused_accept_encoding_can_be_read_too(serve) -> None:
    client = serve(settings=HttpSettings(cors=Cors((SHOP,)), compression=Compression()))
    answer = client.get("/", headers={"Origin": SHOP, "Accept-Encoding": "*;q=0"})
    assert (answer.status_code, answer.headers[ALLOW]) == (406, SHOP)


def test_what_an_application_says_itself_stays(shared, serve) -> None:
    def own(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [(ALLOW, "https://own.example"), ("Vary", "Cookie")])
        return [b""]

    client = serve(mounts={"/own": own}, settings=HttpSettings(cors=Cors((SHOP,))))
    answer = client.get("/own", headers={"Origin": SHOP})
    assert answer.headers.getlist(ALLOW) == ["https://own.example"]
    assert answer.headers.getlist("Vary") == ["Cookie, Origin"]


def test_vary_of_the_route_is_kept(shared) -> None:
    client = shared(get("/", lambda _: Response(b"x", headers={"Vary": ["Cookie", "Origin"]})))
    assert client.get("/", headers={"Origin": SHOP}).headers.getlist("Vary") == ["Cookie", "Origin"]


def test_flask_views_are_called_by_other_pages_too(serve) -> None:
    pages = flask.Blueprint("pages", __name__)
    pages.add_url_rule("/hello", view_func=lambda: "hello")
    client = serve(blueprints=[pages], settings=HttpSettings(cors=Cors((SHOP,))))
    assert client.get("/hello", headers={"Origin": SHOP}).headers[ALLOW] == SHOP


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"origins": ()}, "origins are missing"),
        ({"origins": ("https://shop.example/",)}, "write https://shop.example"),
        ({"origins": ("https://shop.example/path",)}, "write https://shop.example"),
        ({"origins": ("HTTPS://Shop.Example",)}, "write https://shop.example"),
        ({"origins": ("https://shop.example:443",)}, "write https://shop.example"),
        ({"origins": ("shop.example",)}, "is no origin"),
        ({"origins": ("https://",)}, "is no origin"),
        ({"origins": ("https://shop.example:99999",)}, "is no origin"),
        ({"origins": ("https://*.shop.example",)}, "is no origin"),
        ({"origins": ("*",), "credentials": True}, "credentials do not go with"),
        ({"origins": ("null",), "credentials": True}, "credentials do not go with"),
        ({"patterns": (".*",), "credentials": True}, "matches any page"),
        ({"patterns": ("https?://.*",), "credentials": True}, "matches any page"),
        ({"patterns": ("(",)}, "no regular expression"),
        ({"methods": ("GET POST",)}, "is no name"),
        ({"headers": ("X-Größe",)}, "is no name"),
        ({"max_age": -1}, "seconds from 0"),
    ],
)
def test_wrong_settings_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Cors(**{"origins": (SHOP,), **options})


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        cors(["shop", "*"], credentials=True, max_age=-1, methods=("?",), patterns=("(",))
    assert len(caught.value.problems) == 5


def test_one_origin_is_a_list_of_one(serve) -> None:
    client = serve(get("/", lambda _: 1), middlewares=[cors(SHOP)])
    assert client.get("/", headers={"Origin": SHOP}).headers[ALLOW] == SHOP


def test_ports_that_are_not_the_usual_ones_and_other_schemes_are_origins() -> None:
    Cors(("http://localhost:5173", "http://[::1]:8080", "capacitor://localhost", "http://shop.example:443"))
