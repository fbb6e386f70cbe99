"""A processor may return a `Future`: its result is the answer, its exception the error."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest

from patron.errors import Conflict
from patron.http import RateLimit, Response, RouteCache, get, post
from patron.observe import capture, submit_with_span


def done(result) -> Future:
    future: Future = Future()
    future.set_result(result)
    return future


def failed(error: BaseException) -> Future:
    future: Future = Future()
    future.set_exception(error)
    return future


def same(handler):
    return handler


def test_its_result_is_the_answer(serve, executor):
    client = serve(
        post("/", lambda request: executor.submit(lambda: {"id": 7})),
        get("/none", lambda request: done(None)),
        get("/text", lambda request: done(Response("hi", content_type="text/plain", status=203))),
    )
    assert (client.post("/").status_code, client.post("/").json) == (201, {"id": 7})
    assert client.get("/none").status_code == 204
    assert (client.get("/text").status_code, client.get("/text").text) == (203, "hi")


def test_it_may_be_the_payload_of_a_response_and_be_nested(serve):
    client = serve(
        get("/a", lambda request: Response(done([1]), status=202, headers={"X-A": "1"})),
        get("/b", lambda request: done(done(Response(done(done([1])), status=202, headers={"X-A": "1"})))),
        get("/c", lambda request: Response(done([1]), status=202, headers={"X-A": "1"}), middlewares=[same]),
    )
    for path in "/a", "/b", "/c":
        answer = client.get(path)
        assert (answer.status_code, answer.json, answer.headers["X-A"]) == (202, [1], "1")


def test_what_it_raises_is_answered_like_any_error(serve, caplog):
    client = serve(
        get("/conflict", lambda request: failed(Conflict({"error": "taken"}))),
        get("/boom", lambda request: failed(ValueError("secret"))),
        get("/timeout", lambda request: failed(TimeoutError("its own"))),
        get("/exit", lambda request: failed(SystemExit(3))),
    )
    assert (client.get("/conflict").status_code, client.get("/conflict").json) == (409, {"error": "taken"})
    for path in "/boom", "/timeout", "/exit":
        answer = client.get(path)
        assert (answer.status_code, answer.json) == (500, {"error": "Internal Server Error"})
    assert "secret" in caplog.text


def test_the_deadline_bounds_the_wait_and_what_has_not_begun_is_cancelled(serve):
    never: Future = Future()
    client = serve(
        get("/route", lambda request: never, timeout=0.01),
        get("/client", lambda request: Response(never)),
        get("/middleware", lambda request: never, timeout=0.01, middlewares=[same]),
    )
    assert client.get("/route").status_code == 504
    assert never.cancelled()
    never = Future()
    answer = client.get("/client", headers={"X-Request-Timeout-Ms": "10"})
    assert (answer.status_code, answer.json) == (504, {"error": "the answer did not come in time"})
    never = Future()
    assert client.get("/middleware").status_code == 504


def test_one_that_was_cancelled_is_a_503(serve):
    future: Future = Future()
    future.cancel()
    answer = serve(get("/", lambda request: future)).get("/")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


def test_the_correlation_id_goes_along(serve, executor):
    from patron import correlation

    client = serve(get("/", lambda request: submit_with_span(executor, correlation.current)))
    answer = client.get("/", headers={"X-Correlation-Id": "abc"})
    assert (answer.json, answer.headers["X-Correlation-Id"]) == ("abc", "abc")


def test_the_wait_counts_as_the_time_of_the_request_and_its_error_is_on_the_operation(serve):
    client = serve(get("/", lambda request: failed(ValueError("boom"))))
    with capture() as captured:
        client.get("/")
    operation = captured.operations[-1]
    assert (operation.outcome, str(operation.error)) == ("500", "boom")


def test_middlewares_and_the_cache_see_the_answer_and_not_the_future(serve):
    calls = []

    def stamp(handler):
        def stamped(request):
            response = handler(request)
            response.headers = {"X-Stamp": str(response.payload["a"])}
            return response

        return stamped

    def count(request):
        calls.append(1)
        return done({"n": len(calls)})

    client = serve(
        get("/stamped", lambda request: done({"a": 1}), middlewares=[stamp]),
        get("/cached", count, cache=RouteCache(max=60.0)),
        get("/limited", lambda request: done([1]), limits=[RateLimit(100)]),
    )
    answer = client.get("/stamped")
    assert (answer.json, answer.headers["X-Stamp"]) == ({"a": 1}, "1")
    assert [client.get("/cached").json for _ in range(2)] == [{"n": 1}, {"n": 1}]
    assert client.get("/limited").json == [1]


def test_a_wait_begins_before_the_result_is_there(serve):
    future: Future = Future()
    entered = threading.Event()

    def process(request):
        entered.set()
        return future

    client = serve(get("/", process))
    answers = []
    thread = threading.Thread(target=lambda: answers.append(client.get("/").json))
    thread.start()
    assert entered.wait(5)
    future.set_result("late")
    thread.join(5)
    assert answers == ["late"]


def test_asyncs_future_is_refused_as_before(serve):
    import asyncio

    loop = asyncio.new_event_loop()
    try:
        assert serve(get("/", lambda request: loop.create_future())).get("/").status_code == 500
    finally:
        loop.close()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_head_request_is_answered_from_it_too(serve, method):
    answer = serve(get("/", lambda request: done({"a": 1}))).open("/", method=method)
    assert (answer.status_code, answer.headers["Content-Length"]) == (200, "7")
