"""What an adversary tried against the processes, and what happens now."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import ServiceProcess

pytestmark = pytest.mark.server

MODULE = """
    import os, threading, time
    from patron import Response

    def fast(request):
        return {"pid": os.getpid()}

    def echo(request):
        return {"length": len(request.raw.read())}

    def hang(request):
        threading.Event().wait()

    def open_and_hang():
        threading.Event().wait()

    def start_stubborn_thread():
        threading.Thread(target=time.sleep, args=(60,), name="stubborn", daemon=False).start()
"""
CONFIG = """
    name: shop
    grace: 3
    http:
      threads: 4
      routes:
        - {method: GET, path: /fast, processor: "shop:fast"}
        - {method: GET, path: /hang, processor: "shop:hang"}
        - {method: POST, path: /echo, processor: "shop:echo"}
"""
POST = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nTransfer-Encoding: "
HALF_REQUESTS = {
    "a chunk size with many zeros": POST + b"chunked\r\n\r\n" + b"0" * 16 + b"9\r\n\r\n\r\n",
    "another coding": POST + b"gzip, chunked\r\n\r\n9\r\nabc",
    "an endless extension": POST + b"chunked\r\n\r\n5;" + b"a" * 9000,
    "endless trailers": POST + b"chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 12000,
    "a chunk that does not come": POST + b"chunked\r\n\r\n9\r\nabc",
    "a body that does not come": b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc",
    "a body over the limit": b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\nabc",
}


@contextmanager
def connections(port: int, count: int, data: bytes) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            for _ in range(count)
        ]
        for client in clients:
            client.sendall(data)
        yield clients


@pytest.fixture(scope="module")
def shop(shared_service: ServiceProcess) -> ServiceProcess:
    # A thread that read from a slow client would be gone for longer than any request here may take.
    shared_service.write(MODULE, CONFIG.replace("threads: 4", "threads: 4\n      read_timeout: 60"))
    return shared_service.start()


@pytest.mark.parametrize("half", HALF_REQUESTS.values(), ids=HALF_REQUESTS.keys())
def test_half_a_request_holds_no_thread_whatever_its_shape(shop: ServiceProcess, half: bytes) -> None:
    with connections(shop.port, 12, half):
        time.sleep(0.3)
        assert [shop.get("/fast", timeout=20).status for _ in range(5)] == [200] * 5


def test_connections_that_ask_for_nothing_make_room_for_others(service: ServiceProcess) -> None:
    service.write(MODULE, CONFIG.replace("threads: 4", "threads: 4\n      max_connections: 30"))
    service.start()
    with connections(service.port, 60, b""):
        assert [service.get("/fast", timeout=5).status for _ in range(10)] == [200] * 10


def test_an_old_client_gets_no_100(shop: ServiceProcess) -> None:
    head = b"POST /echo HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    with connections(shop.port, 1, head) as [client]:
        time.sleep(0.2)
        client.sendall(b"abc")
        assert b" 201 " in client.recv(4096).split(b"\r\n")[0]


def test_a_reload_may_raise_the_number_of_workers_as_far_as_it_goes(service: ServiceProcess) -> None:
    service.write(MODULE, CONFIG)
    service.start()
    service.write(MODULE, CONFIG + "\n    workers: 14")
    service.signal(signal.SIGHUP)
    service.until(lambda: len(service.workers()) == 14, 30)
    service.until_ready()
    service.signal(signal.SIGTERM)
    assert service.wait() == 0


@pytest.mark.parametrize("after", [0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8])
def test_a_stop_while_the_workers_are_forked_reaches_each_of_them(
    service: ServiceProcess, after: float
) -> None:
    service.write(MODULE, CONFIG + "\n    workers: 6")
    service.start(wait=False)
    service.until(lambda: listens(service))
    time.sleep(after)
    asked = time.monotonic()
    service.signal(signal.SIGTERM)
    assert service.wait() == 0, service.output()
    assert time.monotonic() - asked < 15  # a signal that is lost is noticed by the status, after 8 s


def listens(service: ServiceProcess) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", service.port)) == 0


def test_a_module_that_hangs_at_a_reload_does_not_hold_up_the_stop(service: ServiceProcess) -> None:
    service.write(MODULE, CONFIG)
    service.start()
    service.write(MODULE + "\n    time.sleep(3600)", CONFIG)
    service.signal(signal.SIGHUP)
    time.sleep(1)
    assert service.get("/fast").status == 200
    asked = time.monotonic()
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert time.monotonic() - asked < 5


def test_a_stop_during_a_reload_does_not_wait_for_the_old_workers_first(service: ServiceProcess) -> None:
    service.write(MODULE, CONFIG)
    service.start()
    with connections(service.port, 1, b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n"):
        time.sleep(0.3)
        service.signal(signal.SIGHUP)
        service.until(lambda: len(service.workers()) == 2)
        asked = time.monotonic()
        service.signal(signal.SIGTERM)
        assert service.wait() == 1
        assert time.monotonic() - asked < 5
    assert "GET /hang" in service.output()


def test_work_abandoned_by_a_replaced_worker_is_not_forgotten_in_the_exit_status(
    service: ServiceProcess,
) -> None:
    service.write(MODULE, CONFIG.replace("grace: 3", "grace: 1"))
    service.start()
    with connections(service.port, 1, b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n"):
        time.sleep(0.3)
        service.signal(signal.SIGHUP)
        service.until(lambda: service.lines("work abandoned at the end of the stop budget"))
    service.until_ready()
    service.signal(signal.SIGTERM)
    assert service.wait() == 1


def test_a_resource_that_hangs_while_it_opens_is_named_at_the_stop(service: ServiceProcess) -> None:
    service.write(MODULE, CONFIG + '\n    resources: {db: "shop:open_and_hang"}')
    service.start(wait=False)
    service.until(lambda: listens(service) and service.get("/alive").status == 200)
    service.signal(signal.SIGTERM)
    assert service.wait() == 1
    [line] = service.lines("work abandoned at the end of the stop budget")
    assert "opening resource db" in line["abandoned"][0]
    assert "open_and_hang" in line["abandoned"][0]


def test_a_thread_of_the_users_that_does_not_end_is_status_1(service: ServiceProcess) -> None:
    service.write(MODULE, CONFIG + '\n    on_start: ["shop:start_stubborn_thread"]')
    service.start()
    service.signal(signal.SIGTERM)
    assert service.wait() == 1
    assert "stubborn" in service.output()


def test_a_worker_that_hangs_in_an_import_dies_with_its_arbiter(service: ServiceProcess) -> None:
    service.write("\n    import os, time\n    if os.path.exists('hang'): time.sleep(3600)" + MODULE, CONFIG)
    service.start()
    (service.folder / "hang").touch()
    killed = service.workers()[0]
    os.kill(killed, signal.SIGKILL)
    service.until(lambda: service.workers() and killed not in service.workers())
    time.sleep(0.5)
    service.signal(signal.SIGKILL)
    service.wait()
    (service.folder / "hang").unlink()
    service.start()
    assert service.get("/fast").status == 200


def test_settings_of_the_users_own_are_chained_and_a_broken_reload_of_them_is_refused(
    service: ServiceProcess,
) -> None:
    own = service.folder / "own.py"
    hooks = """
from patron.gunicorn import *
workers = 2
def when_ready(server): open("hooks.txt", "a").write("when_ready\\n")
def post_fork(server, worker): open("hooks.txt", "a").write("post_fork\\n")
def child_exit(server, worker): open("hooks.txt", "a").write("child_exit\\n")
def on_exit(server): open("hooks.txt", "a").write("on_exit\\n")
"""
    own.write_text(hooks)
    service.write(MODULE, CONFIG)
    service.start_gunicorn(config="own.py")
    service.until(lambda: len(service.workers()) == 2)
    service.until_ready()
    own.write_text(hooks + "\nthis is no Python")
    service.signal(signal.SIGHUP)
    service.until(lambda: "the old settings stay" in service.output())
    assert service.get("/fast").status == 200
    own.write_text(hooks)
    old = set(service.workers())
    service.signal(signal.SIGHUP)
    service.until(lambda: len(service.workers()) == 2 and not old & set(service.workers()))
    service.until_ready()
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    called = (service.folder / "hooks.txt").read_text().split()
    assert (called.count("when_ready"), called.count("on_exit")) == (1, 1)
    assert called.count("post_fork") == called.count("child_exit") == 4


def test_a_mistake_that_a_component_meets_at_its_start_is_a_line_and_no_traceback(
    service: ServiceProcess,
) -> None:
    (service.folder / "shop.db").write_text("this is no database, but somebody's text\n" * 100)
    consumer = '{name: orders, source: {type: sqlite, path: shop.db, topic: orders}, processor: "shop:fast"}'
    service.write(MODULE, f"{CONFIG}\n    consumers:\n      - {consumer}")
    service.start(wait=False)
    assert service.wait() == 1
    assert "Traceback" not in service.output()
    [line] = service.lines("service failed")
    assert "shop.db" in json.dumps(line["errors"])
    assert (service.folder / "shop.db").read_text().startswith("this is no database")


class Load:
    """Clients that ask again and again, each time on a connection of its own, until they are refused for good."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._over = threading.Event()
        self.answered = self.refused = 0
        self.broken: list[str] = []

    @contextmanager
    def by(self, clients: int) -> Iterator[Load]:
        threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _ask(self) -> None:
        while not self._over.is_set():
            connection = HTTPConnection("127.0.0.1", self._port, timeout=60)
            try:
                connection.connect()
            except OSError:
                self.refused += 1
                self._over.wait(0.02)
                continue
            try:
                connection.request("GET", "/fast")
                assert connection.getresponse().read()
                self.answered += 1
            except Exception as error:
                self.broken.append(repr(error))
            finally:
                connection.close()


def test_requests_in_flight_survive_every_stop_and_reload_under_load(service: ServiceProcess) -> None:
    """Each request is answered, or refused before it was accepted."""
    service.write(MODULE, CONFIG.replace("grace: 3", "grace: 60") + "\n    workers: 2")
    service.start()
    with Load(service.port).by(8) as load:
        for _ in range(2):
            old, before = set(service.workers()), load.answered
            service.until(lambda before=before: load.answered > before + 50, 60, "under load")
            service.signal(signal.SIGHUP)
            service.until(
                lambda old=old: len(service.workers()) == 2 and not old & set(service.workers()), 60
            )
        before = load.answered
        service.until(lambda: load.answered > before + 50, 60, "answered by the last workers")
        assert load.broken == []
        service.signal(signal.SIGTERM)
        assert service.wait(60) == 0, service.output()
        refused = load.refused
        service.until(lambda: load.refused > refused + 8, 60, "refused at the end")
    # The kernel knows no way to close a listener that resets nobody: who comes in the last microsecond is.
    assert len(load.broken) <= 1, load.broken


FILLING = """

    KEPT = []

    def fill(request):
        try:
            while True:
                KEPT.append(os.dup(2))
        except OSError as error:
            return {"errno": error.errno}
"""


def test_a_worker_without_any_descriptor_left_stops_in_time(service: ServiceProcess) -> None:
    routes = '\n        - {method: GET, path: /fill, processor: "shop:fill"}'
    service.write(MODULE + FILLING, CONFIG.rstrip() + routes)
    service.start()
    assert b"24" in service.get("/fill").body  # type: ignore[attr-defined]
    with connections(service.port, 3, b""):  # the kernel has them; the worker cannot take them
        asked = time.monotonic()
        service.signal(signal.SIGTERM)
        service.wait()
        assert time.monotonic() - asked < 6, service.output()
    assert len(service.lines("profile cannot be answered")) <= 1  # not one for each half second


def test_a_worker_that_was_full_goes_on_while_it_drains(service: ServiceProcess) -> None:
    full = CONFIG.replace("grace: 3", "grace: 30\n    drain: 20")
    service.write(MODULE, full.replace("threads: 4", "threads: 4\n      max_connections: 6"))
    service.start()
    with connections(service.port, 6, HALF_REQUESTS["a body that does not come"]) as clients:
        time.sleep(0.5)
        service.signal(signal.SIGTERM)
        time.sleep(0.3)
        for client in clients[3:]:
            client.close()
        assert service.get("/fast", timeout=5).status == 200
