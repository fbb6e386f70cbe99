"""A route in the file may have a cache, limits, a time-out and a body of its own."""

from __future__ import annotations

import pytest
from werkzeug.test import Client

from patron.http import RateLimit, RouteCache, build

FILE = """
    name: shop
    workers: 2
    http:
      timeout: 10s
      routes:
        - method: GET
          path: /products
          processor: shop:listing
          cache: {max: 30s, min: 2s}
          limits: [{rate: 10, per: 1s, by: address}, {rate: 0.5, per: 1m, by: route, burst: 3}]
          timeout: 2s
          max_body: 0
        - {method: POST, path: /files, processor: shop:upload, stream: true, max_body: 1000000}
    """
CODE = """
    def listing(request):
        return [1]
    def upload(request):
        return len(request.body())
    """


def test_the_options_of_a_route_are_read(world):
    world.module("shop", CODE)
    service = world.load(FILE).service
    listing, upload = service.routes
    assert listing.cache == RouteCache(max=30.0, min=2.0)
    assert listing.limits == (RateLimit(10, 1.0), RateLimit(0.5, 60.0, burst=3, by="route"))
    assert (listing.timeout, listing.max_body, listing.stream, service.http.timeout) == (2.0, 0, False, 10.0)
    assert (upload.cache, upload.limits, upload.timeout) == (None, (), None)
    assert (upload.max_body, upload.stream) == (1_000_000, True)


def test_the_service_that_the_file_describes_keeps_answers_and_closes_its_stores(world):
    world.module("shop", CODE)
    service = world.load(FILE).service
    app = build(service.http, routes=service.routes, workers=1)
    app.start()
    try:
        answers = [Client(app).get("/products") for _ in range(2)]
        assert [answer.json for answer in answers] == [[1], [1]]
        assert "Age" in answers[1].headers
    finally:
        app.close()


@pytest.mark.parametrize(
    ("option", "path", "problem"),
    [
        ("cache: 30s", "cache", "expected a mapping"),
        ("cache: {max: soon}", "cache.max", "expected a number"),
        ("cache: {max: 30s, mim: 2s}", "cache.mim", "there is no such key (did you mean 'min'?)"),
        ("cache: {min: 2s}", "cache.max", "is missing"),
        ("limits: {rate: 10}", "limits", "expected a list"),
        ("limits: [{rate: 10s}]", "limits.0.rate", "expected a number, got the text '10s'"),
        ("limits: [{rate: 10, by: moon}]", "limits.0.by", "expected one of 'address'"),
        ("timeout: 2 s", "timeout", "expected a number"),
        ("max_body: 1k", "max_body", "expected a whole number"),
        ("stream: perhaps", "stream", "expected true or false"),
        (
            "cache: {max: 30s, store: kv}",
            "cache.store",
            "store 'kv' is no resource of the service (there are: none)",
        ),
        ("limits: [{rate: 1, store: kv}]", "limits.0.store", "store 'kv' is no resource of the service"),
        ("limits: [{rate: 1, per: 0}]", "limits.0.per", "is 0.0: use a number above 0"),
    ],
)
def test_a_mistake_in_an_option_is_named_with_its_place(world, option, path, problem):
    world.module("shop", CODE)
    file = f"name: a\nhttp:\n  routes:\n    - {{method: GET, path: /, processor: 'shop:listing', {option}}}\n"
    found = world.problem(file)
    assert f"http.routes.0.{path}: {problem}" in found.replace("[0]", ".0")


def test_a_time_of_nothing_is_refused(world):
    world.module("shop", CODE)
    file = "name: a\nhttp:\n  routes:\n    - {method: GET, path: /, processor: 'shop:listing', timeout: 0}\n"
    assert "config.yaml:4:66: http.routes[0].timeout: is 0.0: use seconds above 0" in world.problem(file)


def test_a_cache_with_another_method_is_a_mistake_of_the_file(world):
    world.module("shop", CODE)
    file = "name: a\nhttp:\n  routes:\n    - {method: PUT, path: /, processor: 'shop:listing', cache: {max: 1s}}\n"
    assert "a cache goes with GET only, not with PUT" in world.problem(file)


def test_a_store_may_be_a_resource_that_the_file_has(world):
    world.module("shop", CODE)
    service = world.load(
        """
        name: a
        http:
          routes: [{method: GET, path: /, processor: "shop:listing", cache: {max: 30s, store: kept}}]
        resources: {kept: "patron.cache:LRUStore"}
        """
    ).service
    assert service.routes[0].stores == ("kept",)


def test_what_a_label_repeats_is_said_once_and_at_the_key(world):
    proxies = world.problem("name: a\nhttp: {trusted_proxies: [proxy.local]}\n")
    assert "2:25: http.trusted_proxies: 'proxy.local' does not appear" in proxies
    assert "2:14: http.cors: origins are missing" in world.problem("name: a\nhttp: {cors: {}}\n")
