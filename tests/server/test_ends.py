"""How a service ends: by a signal, by a component, by a worker that dies, by an arbiter that dies."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import ServiceProcess

pytestmark = pytest.mark.server

MODULE = """
    import os, time, threading
    from patron import Response

    class Component:
        def __init__(self, name, run):
            self.name, self.run = name, run

    def slow(request):
        time.sleep(float(request.fields.get("seconds", "3")))
        return {"pid": os.getpid()}

    def hang(request):
        threading.Event().wait()

    def fast(request):
        return {"pid": os.getpid()}

    def process(message):
        time.sleep(2)

    def process_forever(message):
        threading.Event().wait()

    def raises():
        def run(stop):
            stop.wait(1.0)
            raise RuntimeError("the component broke")
        return Component("broken", run)

    def returns():
        return Component("short", lambda stop: stop.wait(1.0) and None)

    def late():
        def run(stop):
            stop.wait()
            raise OSError("broke while stopping")
        return Component("late", run)

    def hangs(number):
        def hang_forever(stop):
            threading.Event().wait()
        return Component(f"hangs{number}", hang_forever)

    def hang1(): return hangs(1)
    def hang2(): return hangs(2)
    def hang3(): return hangs(3)
    def hang4(): return hangs(4)
    def hang5(): return hangs(5)
    def hang6(): return hangs(6)
    def hang7(): return hangs(7)
    def hang8(): return hangs(8)

    def sighup():
        with open("sighup.txt", "a") as file:
            file.write(f"{os.getpid()}\\n")
"""
ROUTES = """
    name: shop
    grace: 5
    http:
      threads: 4
      routes:
        - {method: GET, path: /slow, processor: "shop:slow"}
        - {method: GET, path: /hang, processor: "shop:hang"}
        - {method: GET, path: /fast, processor: "shop:fast"}
"""


def both_ways(start: Callable[[ServiceProcess], object]) -> object:
    return pytest.param(start, id="gunicorn" if "gunicorn" in start.__name__ else "patron-run")


def by_patron_run(service: ServiceProcess) -> None:
    service.start()


def by_gunicorn_command(service: ServiceProcess) -> None:
    service.start_gunicorn()


WAYS = pytest.mark.parametrize("start", [both_ways(by_patron_run), both_ways(by_gunicorn_command)])
Start = Callable[["ServiceProcess"], object]


@WAYS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_request_in_flight_is_answered_and_the_exit_status_is_0(
    service: ServiceProcess, start: Start, number: int
) -> None:
    service.write(MODULE, ROUTES)
    start(service)
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(service.get, "/slow?seconds=3")
        time.sleep(0.5)
        service.signal(number)
        assert answer.result().status == 200
    assert service.wait() == 0


def test_ready_says_no_and_the_service_goes_on_for_the_drain_time(service: ServiceProcess) -> None:
    service.write(MODULE, ROUTES.replace("grace: 5", "grace: 18\n    drain: 4"))
    service.start()
    service.signal(signal.SIGTERM)
    service.until(lambda: service.get("/ready").status == 503, 3.5)
    assert service.get("/fast").status == 200
    assert service.wait() == 0


@WAYS
def test_a_processor_that_hangs_ends_in_status_1_within_the_budget_and_is_named(
    service: ServiceProcess, start: Start
) -> None:
    service.write(MODULE, ROUTES.replace("grace: 5", "grace: 2"))
    start(service)
    with socket.create_connection(("127.0.0.1", service.port)) as client:
        client.sendall(b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.3)
        asked = time.monotonic()
        service.signal(signal.SIGTERM)
        assert service.wait(60) == 1
        assert time.monotonic() - asked < 30  # and not for ever
    [line] = service.lines("work abandoned at the end of the stop budget")
    assert "GET /hang" in line["abandoned"][0]
    assert "hang" in line["abandoned"][0].split(" at ")[1]


def test_eight_hanging_components_take_the_same_one_budget(service: ServiceProcess) -> None:
    service.write(
        MODULE,
        ROUTES.replace("grace: 5", "grace: 2")
        + "".join(f"\n    {x}" for x in ["components:"] + [f'  - "shop:hang{n}"' for n in range(1, 9)]),
    )
    service.start()
    asked = time.monotonic()
    service.signal(signal.SIGTERM)
    assert service.wait(60) == 1
    assert time.monotonic() - asked < 12  # eight budgets would be 16
    [line] = service.lines("work abandoned at the end of the stop budget")
    assert line["count"] == 8
    assert all(f"component hangs{n}" in " ".join(line["abandoned"]) for n in range(1, 9))


def test_a_second_interrupt_means_now(service: ServiceProcess) -> None:
    service.write(MODULE, ROUTES.replace("grace: 5", "grace: 30"))
    service.start()
    with socket.create_connection(("127.0.0.1", service.port)) as client:
        client.sendall(b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.3)
        service.signal(signal.SIGINT)
        time.sleep(0.5)
        service.signal(signal.SIGINT)
        asked = time.monotonic()
        assert service.wait() == 1
        assert time.monotonic() - asked < 20  # the budget is 30
    assert "GET /hang" in service.lines("work abandoned at the end of the stop budget")[0]["abandoned"][0]


@WAYS
@pytest.mark.parametrize("workers", ["1", "3"])
def test_a_component_that_raises_ends_the_service_with_status_1(
    service: ServiceProcess, start: Start, workers: str
) -> None:
    service.write(MODULE, ROUTES + "\n    workers: " + workers + '\n    components: ["shop:raises"]')
    start(service)
    assert service.wait() == 1
    assert "the component broke" in service.output()
    assert "respawn" not in service.output()


@WAYS
def test_a_component_that_returns_ends_the_service_with_status_0(
    service: ServiceProcess, start: Start
) -> None:
    service.write(MODULE, ROUTES + '\n    components: ["shop:returns"]')
    start(service)
    assert service.wait() == 0
    assert service.lines("component ended, the service stops")[0]["component"] == "short"


def test_the_errors_of_every_component_are_shown(service: ServiceProcess) -> None:
    service.write(MODULE, ROUTES + '\n    components: ["shop:raises", "shop:late"]')
    service.start()
    assert service.wait() == 1
    assert "the component broke" in service.output()
    assert "broke while stopping" in service.output()
    assert "ExceptionGroup" in service.output()


@WAYS
def test_a_worker_killed_is_replaced_and_the_service_goes_on(service: ServiceProcess, start: Start) -> None:
    service.write(MODULE, ROUTES + "\n    workers: 2")
    start(service)
    before = service.workers()
    os.kill(before[0], signal.SIGKILL)
    service.until(lambda: len(service.workers()) == 2 and before[0] not in service.workers())
    service.until_ready()
    assert service.get("/fast").status == 200
    service.signal(signal.SIGTERM)
    assert service.wait() == 0


def test_five_deaths_within_a_minute_end_the_run_with_status_1(service: ServiceProcess) -> None:
    service.write(MODULE, ROUTES + "\n    workers: 2")
    service.start()
    killed = set[int]()
    deadline = time.monotonic() + 40
    while service.process is not None and service.process.poll() is None and time.monotonic() < deadline:
        for pid in set(service.workers()) - killed if service.process.poll() is None else ():
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    assert service.wait() == 1
    assert "5 workers died within 60 s" in service.output()


@WAYS
def test_a_restart_finds_its_port_free_after_the_arbiter_was_killed_while_a_request_hangs(
    service: ServiceProcess, start: Start
) -> None:
    service.write(MODULE, ROUTES)
    start(service)
    old = service.workers()
    with socket.create_connection(("127.0.0.1", service.port)) as client:
        client.sendall(b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.3)
        service.signal(signal.SIGKILL)
        service.wait()
        time.sleep(0.3)
        assert all(alive(pid) for pid in old)
        start(service)
        assert service.get("/fast").status == 200
        service.until(lambda: not any(alive(pid) for pid in old), 8, "rid of the orphans")
    service.signal(signal.SIGTERM)
    assert service.wait() == 0


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@WAYS
def test_the_hangup_hook_runs_once_in_each_worker_and_the_service_goes_on(
    service: ServiceProcess, start: Start
) -> None:
    service.write(MODULE, ROUTES + '\n    workers: 2\n    on_sighup: "shop:sighup"')
    start(service)
    workers = service.workers()
    service.signal(signal.SIGHUP)
    written = service.folder / "sighup.txt"
    service.until(lambda: written.exists() and len(written.read_text().split()) == 2)
    assert sorted(int(pid) for pid in written.read_text().split()) == sorted(workers)
    assert service.workers() == workers
    assert service.get("/fast").status == 200


@WAYS
def test_without_a_hook_a_hangup_reloads_the_configuration_and_everything_still_holds(
    service: ServiceProcess, start: Start
) -> None:
    service.write(MODULE, ROUTES)
    start(service)
    old = service.workers()
    service.write(
        MODULE, ROUTES + '\n        - {method: GET, path: /new, processor: "shop:fast"}\n    workers: 2'
    )
    service.signal(signal.SIGHUP)
    service.until(lambda: len(service.workers()) == 2 and not set(old) & set(service.workers()))
    service.until_ready()
    assert service.get("/new").status == 200
    killed = service.workers()[0]
    os.kill(killed, signal.SIGKILL)
    service.until(lambda: len(service.workers()) == 2 and killed not in service.workers())
    service.until_ready()
    service.signal(signal.SIGTERM)
    assert service.wait() == 0


def test_a_broken_configuration_refuses_the_reload_and_the_old_one_goes_on(service: ServiceProcess) -> None:
    service.write(MODULE, ROUTES)
    service.start()
    workers = service.workers()
    service.write(MODULE, ROUTES.replace("shop:fast", "shop:gone"))
    service.signal(signal.SIGHUP)
    service.until(lambda: "Reload refused" in service.output())
    assert service.workers() == workers
    assert service.get("/fast").status == 200


def test_a_port_in_use_is_one_line_and_status_1_at_once(service: ServiceProcess) -> None:
    service.write(MODULE, ROUTES)
    with socket.create_server(("0.0.0.0", service.port)):
        for start in (service.start, service.start_gunicorn):
            service.log.write_bytes(b"")
            start(wait=False)
            assert service.wait(60) == 1
            said = [line for line in service.output().splitlines() if line.strip()]
            assert len(said) == 1, said
            assert f":{service.port}" in said[0]


@WAYS
def test_a_fatal_log_line_ends_the_service_with_status_1(service: ServiceProcess, start: Start) -> None:
    module = (
        MODULE
        + """
    def fatal(request):
        from patron.observe import log
        log.fatal("the licence has run out")
    """
    )
    service.write(module, ROUTES + '\n        - {method: GET, path: /fatal, processor: "shop:fatal"}')
    start(service)
    assert service.get("/fatal").status == 500
    assert service.wait() == 1
    assert service.lines("the licence has run out")[0]["lvl"] == "fatal"


def test_every_line_of_a_run_is_json_also_those_of_the_server(service: ServiceProcess) -> None:
    service.write(MODULE, ROUTES)
    service.start()
    os.kill(service.workers()[0], signal.SIGKILL)
    service.until(lambda: "Perhaps out of memory" in service.output())
    service.until_ready()
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert all(json.loads(line)["srv"] == "shop" for line in service.output().splitlines())


def test_a_worker_says_which_error_kept_a_resource_from_opening(service: ServiceProcess) -> None:
    module = MODULE + '\n    def database():\n        raise ConnectionError("no database at db:5432")\n'
    service.write(module, ROUTES + '\n    resources: {db: "shop:database"}')
    service.start(wait=False)
    assert service.wait() == 1
    assert "no database at db:5432" in service.output()


def test_nothing_of_a_run_is_left_behind(service: ServiceProcess) -> None:
    service.write(MODULE, ROUTES + f"\n    run_directory: {service.folder}/run")
    service.start()
    assert list((service.folder / "run").iterdir())
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert list((service.folder / "run").iterdir()) == []


def test_messages_in_process_are_finished_before_the_exit(service: ServiceProcess) -> None:
    service.write(
        MODULE,
        ROUTES
        + """
    consumers:
      - {name: orders, source: {type: sqlite, path: shop.db, topic: orders}, processor: "shop:process"}
    """,
    )
    publish(service, 1)
    service.start()
    time.sleep(0.7)
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert waiting(service) == 0


def test_a_message_that_hangs_is_named_and_comes_again(service: ServiceProcess) -> None:
    service.write(
        MODULE,
        ROUTES.replace("grace: 5", "grace: 2")
        + """
    consumers:
      - {name: orders, source: {type: sqlite, path: shop.db, topic: orders}, processor: "shop:process_forever"}
    """,
    )
    publish(service, 1)
    service.start()
    time.sleep(0.7)
    asked = time.monotonic()
    service.signal(signal.SIGTERM)
    assert service.wait(60) == 1
    assert time.monotonic() - asked < 30  # and not for ever
    [line] = service.lines("work abandoned at the end of the stop budget")
    assert "orders" in line["abandoned"][0]
    assert "process_forever" in line["abandoned"][0]
    assert waiting(service) == 1


def publish(service: ServiceProcess, count: int) -> None:
    from patron import SqliteSource

    publisher = SqliteSource(path=service.folder / "shop.db", topic="orders").publisher()
    for number in range(count):
        publisher.publish("orders", b"{}", key=str(number))
    publisher.close()


def waiting(service: ServiceProcess) -> int:
    from patron import SqliteSource

    subscription = SqliteSource(path=service.folder / "shop.db", topic="orders").open()
    try:
        return len(subscription.poll(100, 0.3))
    finally:
        subscription.close()


def test_slow_clients_cost_no_thread(service: ServiceProcess) -> None:
    """Twenty clients that dribble their headers or bodies against four threads: others are answered at once."""
    service.write(MODULE, ROUTES)
    service.start()
    stop = threading.Event()
    dribblers = [threading.Thread(target=dribble, args=(service.port, n, stop)) for n in range(20)]
    for thread in dribblers:
        thread.start()
    time.sleep(0.5)
    try:
        waits = []
        for _ in range(50):
            began = time.monotonic()
            assert service.get("/fast").status == 200
            waits.append(time.monotonic() - began)
        assert sorted(waits)[45] < 5  # a thread that waits for a dribbler waits for 10 s and more
    finally:
        stop.set()
        for thread in dribblers:
            thread.join()


def dribble(port: int, number: int, stop: threading.Event) -> None:
    head = (
        b"POST /fast HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
        if number % 2
        else b"GET /fast HTTP/1.1\r\nX: "
    )
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(head)
        while not stop.wait(0.05):
            try:
                client.sendall(b"a")
            except OSError:
                return


def test_a_request_that_does_not_arrive_in_time_is_answered_408(service: ServiceProcess) -> None:
    service.write(MODULE, ROUTES.replace("threads: 4", "threads: 4\n      read_timeout: 0.5"))
    service.start()
    with socket.create_connection(("127.0.0.1", service.port), timeout=5) as client:
        client.sendall(b"GET /fast HTTP/1.1\r\nHo")
        assert client.recv(4096).startswith(b"HTTP/1.1 408 ")
