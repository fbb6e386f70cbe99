"""The admin routes beside an application: there, out of its way, and in a blueprint where that is wanted."""

from __future__ import annotations

from typing import Any

import flask
import pytest
from prometheus_client import CollectorRegistry, make_wsgi_app
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from patron import ConfigError, Patron, patron_blueprint
from patron.http import ApiKey, HttpSettings
from patron.observe import capture


def made(**options: Any) -> flask.Flask:
    app = flask.Flask("shop")
    Patron(app, **options)
    return app


PAGES = ["/alive", "/ready", "/metrics", "/debug/components", "/debug/pprof/", "/debug/pprof/threads"]


@pytest.mark.parametrize("path", PAGES)
def test_an_admin_route_answers_without_the_hooks_of_the_application(path: str) -> None:
    app = made()
    app.before_request(lambda: flask.abort(403))
    assert app.test_client().get(path).status_code == 200
    assert app.test_client().get("/other").status_code == 403


@pytest.mark.parametrize("path", PAGES)
def test_an_admin_route_can_stand_elsewhere_or_be_closed(path: str) -> None:
    moved, closed = made(http=HttpSettings(admin_prefix="/-")), made(http=HttpSettings(admin="closed"))
    assert moved.test_client().get(f"/-{path}").status_code == 200
    assert moved.test_client().get(path).status_code == 404
    assert closed.test_client().get(path).status_code == 404


def test_debug_answers_this_machine_only() -> None:
    client = made().test_client()
    elsewhere = {"REMOTE_ADDR": "10.1.1.1"}
    assert client.get("/debug/components", environ_base=elsewhere).status_code == 404
    assert client.get("/ready", environ_base=elsewhere).status_code == 200


def test_readiness_and_liveness_are_those_of_the_checks() -> None:
    def fails() -> bool:
        raise OSError("no disk")

    client = made(ready_checks={"disk": fails}, alive_check=lambda: False).test_client()
    ready, alive = client.get("/ready"), client.get("/alive")
    assert (ready.status_code, alive.status_code) == (503, 503)
    assert ready.json is not None
    assert ready.json["reasons"] == ["check disk raised OSError('no disk')"]


def test_the_metrics_of_both_are_on_one_page() -> None:
    app = made()
    app.add_url_rule("/orders/<number>", "order", lambda number: number)
    client = app.test_client()
    client.get("/orders/1")
    client.get("/ready")
    page = client.get("/metrics").text
    assert 'component_http_handled_total{method="GET",path="/orders/<number>",status_code="200"} 1.0' in page
    assert 'component_http_handled_total{method="GET",path="/ready",status_code="200"} 1.0' in page


# What the application has itself.


@pytest.mark.parametrize("rule", ["/metrics", "/metrics/"])
def test_a_route_of_the_applications_own_stays_and_one_line_says_so(rule: str) -> None:
    app = made()
    app.add_url_rule(rule, "metrics", lambda: "its own")
    client = app.test_client()
    with capture() as captured:
        assert [client.get("/metrics", follow_redirects=True).text for _ in range(2)] == ["its own"] * 2
        assert client.get("/ready").status_code == 200
    warnings = [line for line in captured.lines if line["lvl"] == "warn"]
    assert [(line["path"], line["advice"]) for line in warnings] == [
        ("/metrics", "set admin_prefix to have both")
    ]


def test_a_route_with_a_parameter_stands_behind_the_admin_routes_as_it_does_behind_fixed_ones() -> None:
    app = made()
    app.add_url_rule("/<path:anything>", "spa", lambda anything: "the page")
    client = app.test_client()
    assert client.get("/ready").json == {"status": "ready", "reasons": []}
    assert client.get("/ready-or-not").text == "the page"


def test_metrics_that_are_mounted_as_prometheus_client_shows_it_stay() -> None:
    app = flask.Flask("shop")
    theirs = make_wsgi_app(CollectorRegistry())
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/metrics": theirs})  # type: ignore[method-assign]
    Patron(app)
    assert (
        app.test_client().get("/metrics", buffered=True).text == ""
    )  # the page of a registry with nothing in it


@pytest.mark.parametrize(("several", "lines"), [(True, 1), (False, 0)])
def test_metrics_of_one_process_of_several_are_said_to_be_so(several: bool, lines: int) -> None:
    client = made().test_client()
    with capture() as captured:
        for _ in range(2):
            client.get("/metrics", environ_overrides={"wsgi.multiprocess": several})
    said = [line for line in captured.lines if line["msg"].startswith("metrics are those of one")]
    assert len(said) == lines


def test_what_the_plug_in_serves_is_listed() -> None:
    app = made()
    app.add_url_rule("/orders", "orders", lambda: "", methods=["GET", "POST"])
    app.add_url_rule("/ready", "own", lambda: "")
    service = app.extensions["patron"].service
    listed = {(info.method, info.path, info.kind) for info in service.build_http(None).routes()}
    assert {("GET", "/orders", "view"), ("POST", "/orders", "view"), ("GET", "/alive", "admin")} <= listed
    assert ("GET", "/ready", "admin") not in listed


# The blueprint.


def with_blueprint(register: dict[str, Any] | None = None, **options: Any) -> flask.Flask:
    app = flask.Flask("shop")
    app.register_blueprint(patron_blueprint(**options), **(register or {}))
    return app


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize(
    ("register", "options", "prefix"),
    [
        ({}, {}, ""),
        ({}, {"url_prefix": "/ops"}, "/ops"),
        ({"url_prefix": "/later"}, {"url_prefix": "/ops"}, "/later"),
        ({"url_prefix": "/"}, {}, ""),
    ],
)
def test_the_blueprint_has_the_admin_routes_below_its_prefix(
    path: str, register: dict[str, Any], options: dict[str, Any], prefix: str
) -> None:
    assert with_blueprint(register, **options).test_client().get(prefix + path).status_code == 200


def test_the_blueprint_is_part_of_the_application_and_observes_nothing() -> None:
    app = with_blueprint()
    app.before_request(lambda: flask.abort(403) if flask.request.path == "/metrics" else None)
    with capture() as captured:
        assert app.test_client().get("/metrics").status_code == 403
        answer = app.test_client().get("/ready")
    assert (answer.json, "X-Correlation-Id" in answer.headers) == ({"status": "ready", "reasons": []}, False)
    assert captured.operations == []
    with app.test_request_context():
        assert flask.url_for("patron.ready") == "/ready"


def test_the_blueprint_asks_its_checks() -> None:
    client = with_blueprint(ready_checks={"db": lambda: False}).test_client()
    assert (client.get("/ready").status_code, client.get("/alive").status_code) == (503, 200)


def test_the_debug_pages_of_the_blueprint_are_guarded() -> None:
    elsewhere = {"environ_base": {"REMOTE_ADDR": "10.1.1.1"}}
    plain = with_blueprint().test_client()
    assert plain.get("/debug/components", **elsewhere).status_code == 404
    keyed = with_blueprint(debug_authenticator=ApiKey({"ops": "key"})).test_client()
    refused = keyed.get("/debug/components", **elsewhere)
    assert (refused.status_code, "WWW-Authenticate" in refused.headers) == (401, True)
    assert keyed.get("/debug/components", headers={"Authorization": "Apikey key"}).status_code == 200


def test_the_blueprint_leaves_other_methods_to_flask() -> None:
    client = with_blueprint().test_client()
    assert client.post("/ready").status_code == 405
    assert (client.head("/ready").status_code, client.head("/ready").data) == (200, b"")


# Mistakes.


def test_every_mistake_is_told_at_once_with_and_without_an_application() -> None:
    wrong: dict[str, Any] = {"components": [object()], "resources": {"db": 3}, "name": ""}
    for plug in (lambda: Patron(**wrong), lambda: Patron(flask.Flask("shop"), **wrong)):
        with pytest.raises(ConfigError) as raised:
            plug()
        assert len(raised.value.problems) == 3


def test_an_application_is_plugged_in_once_and_is_flasks() -> None:
    plug, app = Patron(), flask.Flask("shop")
    plug.init_app(app)
    with pytest.raises(ConfigError, match="has the plug-in already"):
        plug.init_app(app)
    with pytest.raises(ConfigError, match="is no Flask application"):
        plug.init_app(app.wsgi_app)  # type: ignore[arg-type]
