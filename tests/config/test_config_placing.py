"""Every mistake is told at once, at the key or the value that it is about."""

from __future__ import annotations

import pytest


@pytest.fixture
def shop(world):
    world.module("shop", "def show(request): ...\ndef process(message): ...\n")
    return world


def test_a_mistake_is_placed_at_the_key_that_its_message_names(shop):
    text = "name: a\nhttp:\n  routes:\n    - {method: GET, path: /, processor: 'shop:show', cache: {store: 'x://'}}\n"
    missing, store = shop.problems(text)
    assert missing == "config.yaml:4:61: http.routes[0].cache.max: is missing: it needs a number"
    assert store.startswith("config.yaml:4:69: http.routes[0].cache.store: x://: use redis://")


def test_a_mistake_is_placed_at_the_value_that_its_message_quotes(shop):
    file = "name: a\nhttp: {access_log: {level: info, statuses: [404, %s]}}\n"
    assert shop.problem(file.replace("404, %s", "'404', 9xx")) == (
        "config.yaml:2:52: http.access_log.statuses[1]: '9xx' is no status: write 404, 5xx or 400-499"
    )


def test_a_mistake_is_placed_at_the_quoted_key_of_a_mapping(shop):
    assert shop.problem("name: a\nhttp: {access_log: {levels: {5xx: error, 9xx: error}}}\n").startswith(
        "config.yaml:2:42: http.access_log.levels.9xx: '9xx' is no status"
    )


def test_a_quoted_value_that_stands_there_twice_is_no_place(shop):
    assert shop.problem("name: a\nhttp: {access_log: {statuses: [9xx], levels: {9xx: error}}}\n").startswith(
        "config.yaml:2:20: http.access_log: '9xx' is no status"
    )


def test_a_wrong_processor_hides_no_other_mistake_of_its_route(shop):
    file = """
        name: a
        http:
          routes:
            - {method: FETCH, path: nope, processor: "shop:shwo", max_body: -1, produces: [text]}
        """
    assert shop.problems(file) == [
        "config.yaml:5:16: http.routes[0].method: 'FETCH' is unknown: use GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
        "config.yaml:5:29: http.routes[0].path: 'nope' must begin with /",
        "config.yaml:5:46: http.routes[0].processor: 'shop:shwo': module 'shop' has no attribute 'shwo' "
        "(did you mean 'show'?)",
        "config.yaml:5:69: http.routes[0].max_body: is -1: use a whole number of bytes from 0 to 1099511627776",
        "config.yaml:5:84: http.routes[0].produces[0]: 'text' is no media type: write type/subtype",
    ]


def test_what_stands_in_for_a_wrong_value_is_no_mistake_of_the_file(shop):
    file = "name: a\nhttp: {routes: [{method: GET, processor: 'shop:show', timeout: -1}]}\n"
    assert shop.problems(file) == [
        "config.yaml:2:17: http.routes[0].path: is missing: it needs text",
        "config.yaml:2:64: http.routes[0].timeout: is -1.0: use seconds above 0, and at most 604800",
    ]


def test_a_wrong_key_of_a_source_hides_no_other(shop):
    file = """
        name: a
        consumers:
          - {name: c, source: {type: kafka, topic: 3, group: "", driver: kafka-python}, processor: "shop:process"}
        """
    assert shop.problems(file) == [
        "config.yaml:4:44: consumers[0].source.topic: expected text or a list, got the number 3",
        "config.yaml:4:54: consumers[0].source.group: is empty: name the consumer group",
    ]


def test_a_factory_of_the_users_own_gets_nothing_that_stands_in(shop):
    shop.module(
        "queues",
        """
        from patron import MemorySource

        def source(topic: str, size: int = 1):
            raise AssertionError(topic)
        """,
    )
    file = """
        name: a
        consumers: [{name: c, source: {type: "queues:source", topic: 3}, processor: "shop:process"}]
        """
    assert shop.problem(file) == (
        'config.yaml:3:62: consumers[0].source.topic: expected text, got the number 3: put it in quotes ("3")'
    )


def test_a_word_that_was_written_as_a_number_is_told_to_stand_in_quotes(shop):
    assert shop.problem("name: a\nhttp: {tls: {certificate: c.pem, minimum: 1.3}}\n") == (
        "config.yaml:2:43: http.tls.minimum: expected one of '1.2', '1.3', got the number 1.3: "
        'put it in quotes ("1.3")'
    )
    assert shop.problem("name: a\nhttp: {tls: {certificate: c.pem, minimum: 1.1}}\n").endswith(
        "the number 1.1"
    )
