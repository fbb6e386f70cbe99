"""Components and resources of an application with the plug-in, where it is not Patron's worker that serves."""

from __future__ import annotations

import atexit
import sys
import threading
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import flask
import pytest
import requests
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from patron import ConfigError, Patron, current
from patron.component import Stop
from patron.observe import capture
from patron.testing import Running, until


class Ticks:
    name = "ticks"

    def __init__(self) -> None:
        self.running = threading.Event()
        self.ended = threading.Event()

    def run(self, stop: Stop) -> None:
        self.running.set()
        stop.wait()
        self.ended.set()


class World:
    """What was opened, asked and closed, in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def opens(self, name: str) -> Any:
        def factory() -> Iterator[str]:
            self.calls.append(f"open {name}")
            yield f"{name}!"
            self.calls.append(f"close {name}")

        return factory

    def app(self, *names: str, **options: Any) -> flask.Flask:
        app = flask.Flask("shop")
        Patron(app, resources={name: self.opens(name) for name in names}, **options)
        app.add_url_rule("/<name>", "show", lambda name: current(name))
        return app


def test_resources_are_opened_by_the_first_request_and_closed_in_reverse() -> None:
    world = World()
    app = world.app(
        "db",
        "queue",
        on_start=[lambda db: world.calls.append(f"start {db}")],
        on_stop=[lambda queue: world.calls.append(f"stop {queue}")],
    )
    assert world.calls == []
    assert [app.test_client().get(f"/{name}").text for name in ("db", "queue", "db")] == [
        "db!",
        "queue!",
        "db!",
    ]
    assert world.calls == ["open db", "open queue", "start db!"]
    app.extensions["patron"].close()
    app.extensions["patron"].close()
    assert world.calls[3:] == ["stop queue!", "close queue", "close db"]


def test_first_requests_that_come_together_open_them_once() -> None:
    opened: list[int] = []
    asked: list[int] = []

    def factory() -> str:
        opened.append(1)
        until(lambda: len(asked) == 8)
        return "db!"

    app = flask.Flask("shop")
    Patron(app, resources={"db": factory})
    app.add_url_rule("/db", "show", lambda: current("db"))
    inner = app.wsgi_app

    def counted(environ: Any, start_response: Any) -> Any:
        asked.append(1)
        return inner(environ, start_response)

    app.wsgi_app = counted  # type: ignore[method-assign]
    with ThreadPoolExecutor(8, "ThreadPoolExecutor-") as pool:
        texts = [*pool.map(lambda _: app.test_client().get("/db").text, range(8))]
    assert (set(texts), opened) == ({"db!"}, [1])
    app.extensions["patron"].close()


def test_they_are_closed_when_the_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    at_exit: list[Any] = []
    monkeypatch.setattr(atexit, "register", lambda function, *args: at_exit.append(function))
    world = World()
    app = world.app("db")
    app.test_client().get("/db")
    for function in at_exit:
        if getattr(function, "__self__", None) is app.extensions["patron"]:
            function()
    assert world.calls == ["open db", "close db"]


def test_each_application_has_its_own() -> None:
    first, second = World().app("db"), flask.Flask("second")
    Patron(second, resources={"db": lambda: "another"})
    second.add_url_rule("/db", "show", lambda: current("db"))
    for _ in range(2):
        assert [app.test_client().get("/db").text for app in (first, second)] == ["db!", "another"]
    first.extensions["patron"].close()


def test_a_stream_has_them_too() -> None:
    app = World().app("db")
    app.add_url_rule("/stream/", "stream", lambda: (current("db") for _ in range(2)))
    assert app.test_client().get("/stream/").text == "db!db!"
    app.extensions["patron"].close()


def test_one_that_does_not_open_is_a_failed_request_and_is_tried_again() -> None:
    tries: list[int] = []

    def factory() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("no database")
        return "db!"

    world, app = World(), flask.Flask("shop")
    Patron(app, resources={"file": world.opens("file"), "db": factory})
    app.add_url_rule("/db", "show", lambda: current("db"))
    client = app.test_client()
    with pytest.raises(OSError, match="no database"):
        client.get("/db")
    answer = client.get("/ready")
    assert (answer.status_code, answer.json) == (
        503,
        {"status": "not ready", "reasons": ["resources cannot be opened: OSError: no database"]},
    )
    assert client.get("/alive").status_code == 200
    assert client.get("/db").text == "db!"
    assert world.calls == ["open file", "close file"] * 2 + ["open file"]
    app.extensions["patron"].close()


def test_a_check_may_ask_for_a_resource() -> None:
    app = World().app("db", ready_checks={"db": lambda db: db == "other"})
    answer = app.test_client().get("/ready")
    assert (answer.status_code, answer.json) == (
        503,
        {"status": "not ready", "reasons": ["check db failed"]},
    )
    app.extensions["patron"].close()


def test_a_test_replaces_them() -> None:
    world = World()
    app = world.app("db")
    app.extensions["patron"].replace(db="fake")
    assert app.test_client().get("/db").text == "fake"
    app.extensions["patron"].close()
    assert world.calls == []
    with pytest.raises(ConfigError, match=r"\['bd'\] cannot be replaced: the application has db"):
        app.extensions["patron"].replace(bd="fake")


# Components.


def test_an_application_with_components_is_refused_by_a_server_that_does_not_run_them() -> None:
    app = World().app("db", components=[Ticks()])
    with capture(), pytest.raises(ConfigError) as raised:
        app.test_client().get("/db")
    assert "components (ticks) run only under Patron's worker class" in str(raised.value)
    assert "gunicorn -c python:patron.gunicorn module:app" in str(raised.value)


@pytest.mark.parametrize("stranger", ["gunicorn.app.wsgiapp", "waitress.runner", "uwsgi", "mod_wsgi"])
def test_a_server_that_is_known_not_to_run_them_does_not_even_start(
    stranger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, stranger, types.ModuleType(stranger))
    monkeypatch.delitem(sys.modules, "patron.gunicorn", raising=False)
    with pytest.raises(ConfigError, match="run only under Patron's worker class"):
        Patron(flask.Flask("shop"), components=[Ticks()])
    Patron(flask.Flask("shop"))
    monkeypatch.setitem(sys.modules, "patron.gunicorn", types.ModuleType("patron.gunicorn"))
    Patron(flask.Flask("shop"), components=[Ticks()])


def test_the_tests_of_an_application_go_on_without_its_components() -> None:
    component = Ticks()
    app = World().app("db", components=[component])
    app.testing = True
    assert app.test_client().get("/db").text == "db!"
    assert not component.running.is_set()
    app.extensions["patron"].close()


def test_all_of_it_runs_in_a_test_and_stops_in_order() -> None:
    world, component = World(), Ticks()
    app = world.app("db", components=[component], on_stop=[lambda: world.calls.append("stop")])
    with Running(app.extensions["patron"].service) as running:
        until(component.running.is_set)
        answer = requests.get(f"{running.url}/db", headers={"X-Correlation-Id": "r1"}, timeout=5)
        assert (answer.text, answer.headers["X-Correlation-Id"]) == ("db!", "r1")
        shown = requests.get(f"{running.url}/debug/components", timeout=5).json()["components"]
        assert [(each["name"], each["state"]) for each in shown] == [("ticks", "running")]
        assert requests.get(f"{running.url}/ready", timeout=5).status_code == 200
        # What the application asks itself is served by the same.
        assert app.test_client().get("/db").text == "db!"
    assert component.ended.is_set()
    assert world.calls == ["open db", "stop", "close db"]


def test_an_application_mounted_inside_is_its_own() -> None:
    inner = World().app("queue", name="inner")
    around = flask.Flask("around")
    around.wsgi_app = DispatcherMiddleware(around.wsgi_app, {"/inner": inner.wsgi_app})  # type: ignore[method-assign]
    Patron(around)
    with Running(around.extensions["patron"].service) as running:
        assert requests.get(f"{running.url}/inner/queue", timeout=5).text == "queue!"
        shown = requests.get(f"{running.url}/inner/debug/components", timeout=5).json()
        assert shown["name"] == "inner"
    inner.extensions["patron"].close()
