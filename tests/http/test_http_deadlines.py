"""A request has as much time as its client will wait, and no more than its route allows."""

from __future__ import annotations

import contextvars
import threading
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder, run_wsgi_app

from patron.errors import ConfigError, DeadlineExceeded
from patron.http import HttpSettings, Response, build, get, post
from patron.http.deadlines import deadline_of
from patron.observe import submit_with_span
from patron.reliability import deadline, remaining
from patron.reliability.deadline import headers

HEADER = "X-Request-Timeout-Ms"


def left(request):
    return remaining()


def asked(milliseconds: object) -> dict[str, str]:
    return {HEADER: str(milliseconds)}


# ------------------------------------------------------------------ how much time there is


def test_a_request_without_the_header_has_no_deadline_unless_its_route_sets_one(serve):
    client = serve(get("/", left), get("/short", left, timeout=3.0))
    assert client.get("/").status_code == 204
    assert 2.0 < client.get("/short").json <= 3.0


def test_the_header_says_how_many_milliseconds_the_client_waits(serve):
    client = serve(get("/", left))
    assert 4.0 < client.get("/", headers=asked(5000)).json <= 5.0


@pytest.mark.parametrize(("timeout", "milliseconds", "most"), [(3.0, 60_000, 3.0), (60.0, 3_000, 3.0)])
def test_the_shorter_of_both_counts(serve, timeout, milliseconds, most):
    client = serve(get("/", left, timeout=timeout))
    assert most - 1.0 < client.get("/", headers=asked(milliseconds)).json <= most


def test_the_routes_own_time_takes_the_place_of_the_services(serve):
    client = serve(get("/", left), get("/long", left, timeout=60.0), settings=HttpSettings(timeout=3.0))
    assert client.get("/").json <= 3.0
    assert client.get("/long").json > 50.0


def test_mounted_applications_and_views_have_the_services_time(serve):
    def mounted(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(remaining()).encode()]

    client = serve(mounts={"/old": mounted}, settings=HttpSettings(timeout=3.0))
    assert 2.0 < float(client.get("/old/x").text) <= 3.0


def test_a_streamed_answer_has_it_too_until_its_end(serve):
    def stream(request):
        return Response(str(remaining()).encode() for _ in range(1))

    client = serve(get("/", stream, timeout=3.0))
    assert 2.0 < float(client.get("/").text) <= 3.0


def test_work_that_is_handed_to_another_thread_has_the_same_deadline(serve, executor):
    client = serve(get("/", lambda request: submit_with_span(executor, remaining), timeout=3.0))
    assert 2.0 < client.get("/").json <= 3.0


def test_a_middleware_that_rewrites_the_path_gets_the_time_and_the_body_of_the_route_that_it_leads_to(serve):
    def unversioned(app):
        def rewriting(environ, start_response):
            environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix("/v1")
            return app(environ, start_response)

        return rewriting

    client = serve(
        get("/left", left, timeout=3.0),
        post("/body", lambda request: len(request.body()), max_body=10),
        middlewares=[unversioned],
    )
    assert 2.0 < client.get("/v1/left").json <= 3.0
    assert client.post("/v1/body", data=b"x" * 11).status_code == 413
    assert client.post("/v1/body", data=b"x" * 10).json == 10


# ------------------------------------------------------------------ when it is over


def test_a_request_whose_time_is_over_is_a_504_and_nothing_of_it_runs(serve):
    ran = []

    def middleware(app):
        return lambda environ, start_response: ran.append("middleware") or app(environ, start_response)

    client = serve(get("/", lambda request: ran.append("processor")), middlewares=[middleware])
    answer = client.get("/", headers=asked(0))
    assert (answer.status_code, answer.json) == (504, {"error": "the deadline of the request has passed"})
    assert answer.headers["X-Correlation-Id"]
    assert ran == []


def test_the_time_counts_from_the_arrival_that_the_server_noted():
    app = build(routes=[get("/", left, timeout=3.0)])
    app.start()
    environ = {**EnvironBuilder().get_environ(), "patron.arrived": time.monotonic() - 2.0}
    body, status, _ = run_wsgi_app(app, environ, buffered=True)
    assert (status, float(b"".join(body)) <= 1.0) == ("200 OK", True)
    environ["patron.arrived"] -= 2.0
    assert run_wsgi_app(app, environ, buffered=True)[1] == "504 Gateway Timeout"


def test_what_a_client_or_a_loop_raises_when_it_is_over_is_a_504(serve):
    def late(request):
        raise DeadlineExceeded("the deadline passed before the message was sent")

    assert serve(get("/", late)).get("/").status_code == 504


def test_a_processor_that_ends_too_late_has_its_answer_sent(serve):
    def slow(request):
        while remaining():
            threading.Event().wait(0.001)
        return {"created": 1}

    assert serve(post("/", slow, timeout=0.01)).post("/").status_code == 201


def test_admin_routes_have_no_deadline(serve):
    client = serve(settings=HttpSettings(timeout=1e-9))
    assert client.get("/alive", headers=asked(0)).status_code == 200
    assert client.get("/nowhere").status_code == 504


def test_a_request_leaves_no_deadline_to_the_next_one_of_its_thread(serve):
    client = serve(get("/", left), get("/short", left, timeout=3.0))
    client.get("/short")
    client.get("/short", headers=asked(0))
    assert remaining() is None
    assert client.get("/").status_code == 204


def test_one_that_another_thread_ends_leaves_none_either():
    app = build(
        routes=[get("/", lambda request: Response(iter([b"a", b"b"])), timeout=3.0), get("/left", left)]
    )
    app.start()

    def begin_and_ask():
        body = app(EnvironBuilder().get_environ(), lambda *head: None)
        thread = threading.Thread(target=body.close)
        thread.start()
        thread.join()
        return run_wsgi_app(app, EnvironBuilder("/left").get_environ(), buffered=True)[1], remaining()

    assert contextvars.copy_context().run(begin_and_ask) == ("204 No Content", None)


# ------------------------------------------------------------------ what the header may say


@pytest.mark.parametrize(
    "text",
    ["", " ", "-1", "+1", "1.5", "1e3", "soon", "100, 200", "٣", "0x10", "1_000", "100ms", "\x00"],
    ids=ascii,
)
def test_what_is_no_whole_number_of_milliseconds_is_ignored(text):
    assert deadline_of({"HTTP_X_REQUEST_TIMEOUT_MS": text}, None, 100.0) is None
    found = deadline_of({"HTTP_X_REQUEST_TIMEOUT_MS": text}, 2.0, 100.0)
    assert found is not None
    assert found.at == 102.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1", 0.001),
        (" 250 ", 0.25),
        ("0000000000250", 0.25),
        ("0", 0.0),
        ("99999999", 99999.999),
        ("100000000", 99999.999),
        (str(10**30), 99999.999),
        ("9" * 5000, 99999.999),
    ],
    ids=lambda value: str(value)[:15],
)
def test_a_number_counts_up_to_eight_digits(text, seconds):
    found = deadline_of({"HTTP_X_REQUEST_TIMEOUT_MS": text}, None, 100.0)
    assert found is not None
    assert found.at == pytest.approx(100.0 + seconds)


@given(st.text(), st.none() | st.floats(0.001, 1e6))
@example("9" * 10_000, None)
def test_whatever_the_header_says_the_routes_limit_holds(text, limit):
    found = deadline_of({"HTTP_X_REQUEST_TIMEOUT_MS": text}, limit, 0.0)
    assert (found is None and limit is None) or 0 <= found.at <= (limit or 100_000)


# ------------------------------------------------------------------ outward


def test_headers_tell_a_callee_what_is_left():
    assert headers() == {}
    with deadline(2.0):
        assert 1000 < int(headers()[HEADER]) <= 2000
    with deadline(0.0):
        assert headers() == {HEADER: "0"}


def test_a_chain_of_services_shares_one_deadline(serve):
    second = serve(get("/", left))
    first = serve(get("/", lambda request: second.get("/", headers=headers()).json))
    assert 4.0 < first.get("/", headers=asked(5000)).json <= 5.0


@pytest.mark.parametrize("timeout", [0, -1.0, float("inf"), float("nan"), True, "1s"], ids=repr)
def test_a_time_that_cannot_be_is_refused(timeout):
    with pytest.raises(ConfigError, match=r"route GET /: timeout is .*: use seconds above 0"):
        get("/", left, timeout=timeout)
    with pytest.raises(ConfigError, match=r"http: timeout is .*: use seconds above 0"):
        HttpSettings(timeout=timeout)
