"""A Flask application with the plug-in under servers: stock gunicorn, waitress, Flask's own, and Patron's worker."""

from __future__ import annotations

import re
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.server

MODULE = """
    import logging, os, sys, threading
    import flask
    from patron import Patron, current
    from patron.http import HttpSettings
    from patron.observe import LogSettings

    class Ticks:
        name = "ticks"
        running = threading.Event()
        def run(self, stop):
            self.running.set()
            stop.wait()
            print("ticks ended", flush=True)

    def db():
        print(f"db opened in {os.getpid()}, {threading.active_count() > 0}", flush=True)
        yield f"db of {os.getpid()}"
        print(f"db closed in {os.getpid()}", flush=True)

    def create_app(components=(), **options):
        app = flask.Flask("shop")
        plug = Patron(version="1.4.0", components=components, resources={"db": db}, **options)
        plug.init_app(app)

        @app.get("/orders/<int:number>")
        def order(number):
            app.logger.warning("order asked for")
            return {"number": number, "pid": os.getpid(), "db": current("db")}

        @app.get("/fails")
        def fails():
            raise ValueError("my mistake")

        @app.post("/upload")
        def upload():
            return str(len(flask.request.get_data()))

        @app.get("/stream")
        def stream():
            return (f"{n}," for n in range(1000))

        @app.get("/file")
        def file():
            return flask.send_file(__file__)

        @app.get("/ticking")
        def ticking():
            return str(Ticks.running.wait(5))

        return app

    made = {"threads": threading.active_count()}
    app = create_app()
"""
#: The same application with components, and our log.
FULL = MODULE.replace("app = create_app()", "app = create_app([Ticks()], log=LogSettings())")


def start(service: Any, module: str, *command: str, **options: Any) -> Any:
    service.write(module, "name: unused")
    return service.start(sys.executable, "-m", *command, **options)


def gunicorn(service: Any, *options: str) -> list[str]:
    return ["gunicorn", "-b", f"127.0.0.1:{service.port}", "-k", "gthread", "--threads", "4", *options]


def served(service: Any, path: str, **headers: str) -> tuple[int, bytes]:
    answer = service.get(path, **headers)
    return answer.status, answer.body


def total(page: str, series: str) -> float:
    return sum(float(value) for value in re.findall(rf"^{re.escape(series)} (\S+)$", page, re.MULTILINE))


ORDERS = 'component_http_handled_total{method="GET",path="/orders/<int:number>",status_code="200"}'


@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["", "preload"])
def test_two_workers_of_stock_gunicorn_count_together_in_the_directory_of_the_prometheus_client(
    service: Any, tmp_path: Path, preload: list[str]
) -> None:
    shared = tmp_path / "metrics"
    shared.mkdir()
    command = gunicorn(service, "-w", "2", *preload, "shop:app")
    start(service, MODULE, *command, env={"PROMETHEUS_MULTIPROC_DIR": str(shared)})
    asked: list[int] = []

    def both_have_answered() -> bool:
        asked.append(service.json("/orders/1")["pid"])
        return len(set(asked)) == 2

    service.until(both_have_answered)
    answers = [service.json("/orders/1") for _ in range(10)]
    assert all(answer["db"] == f"db of {answer['pid']}" for answer in answers)
    page = service.get("/metrics").body.decode()
    assert total(page, ORDERS) == len(asked) + len(answers)
    assert "one worker process of several" not in service.output()
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    # Opened and closed in the workers, both of them, and nothing before the fork.
    opened = set(re.findall(r"db opened in (\d+)", service.output()))
    assert opened == set(re.findall(r"db closed in (\d+)", service.output())) == {str(pid) for pid in asked}


def test_metrics_of_one_of_two_workers_are_said_to_be_so(service: Any) -> None:
    start(service, MODULE, *gunicorn(service, "-w", "2", "shop:app"))
    service.get("/metrics")
    service.until(lambda: "metrics are those of one worker process of several" in service.output())
    assert "set PROMETHEUS_MULTIPROC_DIR" in service.output()


SERVERS = {
    "gunicorn": lambda service: gunicorn(service, "shop:app"),
    "gunicorn sync": lambda service: ["gunicorn", "-b", f"127.0.0.1:{service.port}", "shop:app"],
    "waitress": lambda service: ["waitress", "--listen", f"127.0.0.1:{service.port}", "shop:app"],
    "flask run": lambda service: ["flask", "--app", "shop", "run", "-p", str(service.port)],
    "patron": lambda service: [
        "gunicorn",
        "-c",
        "python:patron.gunicorn",
        "-b",
        f"127.0.0.1:{service.port}",
        "shop:app",
    ],
}


@pytest.mark.parametrize("server", SERVERS)
def test_an_application_works_under(server: str, service: Any) -> None:
    if server == "waitress":
        pytest.importorskip("waitress")
    start(service, MODULE, *SERVERS[server](service))
    answer = service.get("/orders/7", X_Correlation_Id="mine-1")
    assert (answer.status, answer.getheader("X-Correlation-Id")) == (200, "mine-1")
    assert served(service, "/stream") == (200, "".join(f"{n}," for n in range(1000)).encode())
    assert served(service, "/file") == (200, (service.folder / "shop.py").read_bytes())
    assert served(service, "/nowhere")[0] == 404
    body = b"x" * 3_000_000  # more than Patron takes for its own routes
    assert service.request("POST", "/upload", body).body == b"3000000"
    failed = service.get("/fails")
    assert (failed.status, b"Internal Server Error" in failed.body) == (500, True)
    page = service.get("/metrics").body.decode()
    assert total(page, ORDERS) == 1
    assert total(page, ORDERS.replace("/orders/<int:number>", "/fails").replace("200", "500")) == 1
    assert total(page, ORDERS.replace("/orders/<int:number>", "unmatched").replace("200", "404")) == 1
    service.until(lambda: "ValueError: my mistake" in service.output())
    assert service.output().count("ValueError: my mistake") == 1
    assert served(service, "/debug/components")[0] == 200


def test_the_worker_of_patron_runs_all_of_it_and_stops_in_order(service: Any) -> None:
    start(service, FULL, *SERVERS["patron"](service))
    assert service.get("/ticking").body == b"True"
    (started,) = service.lines("service started")
    assert (started["port"], started["routes"]) == (service.port, 7)  # six views and Flask's own folder
    order = service.json("/orders/7")
    assert order["db"] == f"db of {order['pid']}"
    (component,) = service.json("/debug/components")["components"]
    assert (component["name"], component["state"], component["worker"]) == ("ticks", "running", order["pid"])
    (said,) = service.lines("order asked for")
    assert (said["srv"], said["ver"], "correlationID" in said) == ("shop", "1.4.0", True)
    (request,) = [line for line in service.lines("request") if line["path"] == "/orders/7"]
    assert (request["route"], request["correlationID"]) == ("/orders/<int:number>", said["correlationID"])
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert re.findall(r"^(ticks ended|db closed)", service.output(), re.MULTILINE) == [
        "ticks ended",
        "db closed",
    ]


HALF = {
    "length": b"Content-Length: 9\r\n\r\nabc",
    "chunks": b"Transfer-Encoding: chunked\r\n\r\n9\r\nabc",
}


def test_a_body_that_does_not_arrive_is_the_clients_mistake_to_flask_too(service: Any) -> None:
    """Its error handlers and ``got_request_exception`` see one of werkzeug's errors, not a 500."""
    module = MODULE.replace("app = create_app()", "app = create_app(http=HttpSettings(read_timeout=0.5))")
    start(service, module, *SERVERS["patron"](service))
    head = b"POST /upload HTTP/1.1\r\nHost: x\r\n"
    for half in HALF.values():
        assert _answer(service, head + half, leaves=False).startswith(b"HTTP/1.1 408 ")
        assert _answer(service, head + half, leaves=True).startswith(b"HTTP/1.1 400 ")
    broken = _answer(service, head + HALF["chunks"].replace(b"\n9", b"\nz"), leaves=False)
    assert broken.startswith(b"HTTP/1.1 400 ")
    assert "Traceback" not in service.output()


def _answer(service: Any, request: bytes, *, leaves: bool) -> bytes:
    with socket.create_connection(("127.0.0.1", service.port), timeout=5) as client:
        client.sendall(request)
        if leaves:
            client.shutdown(socket.SHUT_WR)
        return client.recv(65536)


BREAKING = """
    inner = app.wsgi_app

    def breaking(environ, start_response):
        if environ["PATH_INFO"] == "/exits":
            raise SystemExit(3)
        if environ["PATH_INFO"] == "/missing":
            start_response("200 OK", [("Content-Length", "5")])
            raise FileNotFoundError("no such template")
        return inner(environ, start_response)

    app.wsgi_app = breaking
"""


def test_what_leaves_the_application_is_a_500_under_the_worker_of_patron(service: Any) -> None:
    start(service, FULL + BREAKING, *SERVERS["patron"](service))
    for path in ("/exits", "/missing"):
        answer = service.get(path)
        assert (answer.status, answer.body) == (500, b"Internal Server Error\n")
        assert answer.getheader("Connection") == "close"
        assert service.request("HEAD", path).status == 500
    assert [line["error"] for line in service.lines("request failed")][::2] == [
        "SystemExit: 3",
        "FileNotFoundError: no such template",
    ]


def test_two_workers_of_patron_count_together(service: Any) -> None:
    start(service, FULL, *SERVERS["patron"](service)[:-1], "-w", "2", "shop:app")
    for _ in range(10):
        service.json("/orders/1")
    assert total(service.get("/metrics").body.decode(), ORDERS) == 10
    assert len(service.json("/debug/components")["components"]) == 2


@pytest.mark.parametrize("command", ["run", "PATRON_CONFIG"])
def test_the_other_ways_to_start_a_service_take_the_application_too(command: str, service: Any) -> None:
    if command == "run":
        start(service, FULL, "patron", "run", "shop:app")
    else:
        service.write(FULL, "name: unused")
        service.start_gunicorn(env={"PATRON_CONFIG": "shop:app"})
    assert service.get("/ticking").body == b"True"


def test_a_factory_may_stand_on_the_command_line(service: Any) -> None:
    start(service, FULL, *SERVERS["patron"](service)[:-1], "shop:create_app([])")
    assert service.json("/orders/7")["number"] == 7


def test_components_under_stock_gunicorn_do_not_start_and_say_how_they_would(service: Any) -> None:
    start(service, FULL, *gunicorn(service, "shop:app"), wait=False)
    assert service.wait() != 0
    assert "ConfigError: components (ticks) run only under Patron's worker class" in service.output()
    assert "gunicorn -c python:patron.gunicorn module:app" in service.output()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("made", "'shop:made' is {'threads': 1}, which is no patron.Service"),
        ("flask.Flask('x')", "patron: \"shop:flask.Flask('x')\" cannot be loaded"),
        ("plain()", "no Flask application with patron.Patron"),
    ],
)
def test_an_application_without_the_plug_in_is_refused_by_the_worker_of_patron(
    name: str, said: str, service: Any
) -> None:
    module = (
        MODULE
        + "    plain = lambda: flask.Flask('plain')\n    made = type('Made', (dict,), {'__call__': 1})(made)\n"
    )
    start(service, module, *SERVERS["patron"](service)[:-1], f"shop:{name}", wait=False)
    assert service.wait() == 2
    assert said in service.output()
