"""The admin routes tell how the service is, to those who may know."""

from __future__ import annotations

import threading

import flask
import pytest
from werkzeug.test import Client

from patron.component import Verdict
from patron.http import ApiKey, Cors, HttpSettings, build, get

LOCAL = {"REMOTE_ADDR": "127.0.0.1"}


class Live:
    """The admin side of a service, as a test wants it."""

    def __init__(self, alive=None, ready=None, components=()):
        self.verdicts = {"alive": alive or Verdict(True), "ready": ready or Verdict(True)}
        self._components = components

    def alive(self):
        return self._verdict("alive")

    def ready(self):
        return self._verdict("ready")

    def _verdict(self, name):
        if isinstance(self.verdicts[name], Exception):
            raise self.verdicts[name]
        return self.verdicts[name]

    def components(self):
        return self._components


def client(admin=None, **options):
    settings = HttpSettings(**{key: options.pop(key) for key in ("debug", "admin_prefix") if key in options})
    return Client(build(settings, admin=admin or Live(), **options))


@pytest.mark.parametrize("path", ["alive", "ready"])
def test_health_is_200_or_503_with_reasons(path):
    answer = client().get(f"/{path}")
    assert (answer.status_code, answer.json) == (200, {"status": path, "reasons": []})
    bad = Live(**{path: Verdict(False, ("consumer orders has no assignment",))})
    answer = client(bad).get(f"/{path}")
    assert (answer.status_code, answer.json) == (
        503,
        {"status": f"not {path}", "reasons": ["consumer orders has no assignment"]},
    )
    assert client(bad).head(f"/{path}").status_code == 503
    assert client(bad).head(f"/{path}").data == b""


def test_a_check_that_raises_is_a_no(caplog):
    answer = client(Live(ready=ValueError("secret"))).get("/ready")
    assert answer.status_code == 503
    assert "secret" not in answer.text
    assert len(caplog.records) == 1


def test_health_does_not_depend_on_the_hooks_of_the_views():
    views = flask.Blueprint("views", __name__)
    views.before_app_request(lambda: ("no", 500))
    assert client(blueprints=[views]).get("/alive").status_code == 200


@pytest.mark.parametrize(
    "path", ["/alive", "/ready", "/metrics", "/debug/components", "/debug/pprof/threads"]
)
def test_admin_routes_have_the_usual_methods(path):
    served = client(debug="open")
    assert served.get(path).status_code == 200
    assert (served.head(path).status_code, served.head(path).data) == (200, b"")
    assert served.options(path).headers["Allow"] == "GET, HEAD, OPTIONS"
    answer = served.post(path)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
    assert answer.headers["X-Correlation-Id"]


def test_metrics_are_in_the_text_format_of_prometheus_and_count_by_pattern():
    app = build(routes=[get("/metered/<id>", lambda request: 1)])
    app.start({})
    served = Client(app)
    for path in ("/metered/1", "/metered/2", "/metered-not"):
        served.get(path)
    served.open("/metered/1", method="BREW")
    answer = served.get("/metrics")
    assert answer.content_type == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.text.splitlines()
    assert 'component_http_handled_total{method="GET",path="/metered/<id>",status_code="200"} 2.0' in lines
    assert 'component_http_handled_total{method="other",path="/metered/<id>",status_code="405"} 1.0' in lines
    assert (
        'component_http_handled_seconds_count{method="GET",path="/metered/<id>",status_code="200"} 2.0'
        in lines
    )
    assert "metered-not" not in answer.text
    assert 'path="unmatched",status_code="404"' in answer.text


def test_components_are_described():
    components = [{"name": "orders", "type": "Consumer", "state": "running"}]
    answer = client(Live(components=components), name="shop", version="1.2").get(
        "/debug/components", environ_base=LOCAL
    )
    assert answer.json == {"name": "shop", "version": "1.2", "components": components}


def test_threads_are_shown_with_their_names_and_what_they_do():
    here, go_on = threading.Event(), threading.Event()

    def waiting_for_godot():
        here.set()
        go_on.wait()

    thread = threading.Thread(target=waiting_for_godot, name="vladimir")
    thread.start()
    here.wait()
    try:
        answer = client().get("/debug/pprof/threads", environ_base=LOCAL)
    finally:
        go_on.set()
        thread.join()
    assert answer.content_type == "text/plain; charset=utf-8"
    assert "vladimir" in answer.text
    assert "<locals>.waiting_for_godot\n" in answer.text


@pytest.mark.parametrize("path", ["/debug/pprof", "/debug/pprof/"])
@pytest.mark.parametrize("prefix", ["", "/-"])
def test_there_is_an_index_whose_links_work(path, prefix):
    served = client(admin_prefix=prefix)
    answer = served.get(prefix + path, environ_base=LOCAL)
    assert answer.content_type == "text/html; charset=utf-8"
    assert f'href="{prefix}/debug/pprof/threads"' in answer.text


def test_pages_of_profiles_also_answer_where_patron_for_go_has_them():
    served = client()
    for path in ("goroutine/", "threads/?format=text", "cmdline/"):
        assert served.get(f"/debug/pprof/{path}", environ_base=LOCAL).status_code == 200


# ------------------------------------------------------------------ who may see it


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_debug_answers_peers_on_this_machine(address):
    assert client().get("/debug/components", environ_base={"REMOTE_ADDR": address}).status_code == 200


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "::ffff:10.0.0.1", "fe80::1%eth0", "", "unix", "localhost", None]
)
def test_debug_is_not_there_for_others(address):
    environ = {} if address is None else {"REMOTE_ADDR": address}
    answer = client().get("/debug/components", environ_base=environ)
    assert (answer.status_code, answer.json) == (404, {"error": "Not Found"})


@pytest.mark.parametrize(
    "header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Forwarded-Host", "Via", "CF-Connecting-IP"]
)
def test_debug_is_not_there_for_a_proxy_on_this_machine(header):
    answer = client().get("/debug/components", environ_base=LOCAL, headers={header: "127.0.0.1"})
    assert answer.status_code == 404


def test_debug_is_not_there_for_pages_in_a_browser_on_this_machine_whatever_cors_allows():
    app = build(HttpSettings(cors=Cors(("*",))))
    app.start()
    page = {"Origin": "https://evil.example"}
    answer = Client(app).get("/debug/components", environ_base=LOCAL, headers=page)
    assert (answer.status_code, answer.json) == (404, {"error": "Not Found"})


def test_debug_may_be_opened_closed_or_authenticated():
    other = {"REMOTE_ADDR": "10.0.0.1"}
    key = {"Authorization": "Apikey k"}
    authenticator = ApiKey(["k"])
    assert client(debug="open").get("/debug/components", environ_base=other).status_code == 200
    assert client(debug="closed").get("/debug/components", environ_base=LOCAL).status_code == 404
    guarded = client(debug_authenticator=authenticator)
    assert guarded.get("/debug/components", environ_base=LOCAL).status_code == 401
    assert guarded.get("/debug/components", environ_base=other, headers=key).status_code == 200
    closed = client(debug="closed", debug_authenticator=authenticator)
    assert closed.get("/debug/components", environ_base=other, headers=key).status_code == 404


@pytest.mark.parametrize(
    ("admin", "open_paths"),
    [("open", {"/alive", "/ready", "/metrics"}), ("health", {"/alive", "/ready"}), ("closed", set())],
)
def test_the_admin_routes_may_be_closed(admin, open_paths):
    app = build(HttpSettings(admin=admin))
    app.start({})
    served = Client(app)
    found = {path for path in ("/alive", "/ready", "/metrics") if served.get(path).status_code == 200}
    assert found == open_paths
