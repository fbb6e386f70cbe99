"""A service in the test's own process: what is opened, in which order, and how it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import requests

from patron import (
    Consumer,
    MemorySource,
    ProcessSettings,
    Request,
    RestartPolicy,
    Route,
    Service,
    Stop,
    current,
)
from patron.errors import ComponentFailed, ConfigError, ServiceError, WorkAbandoned
from patron.testing import Running, until


class Component:
    def __init__(self, name: str, run: Callable[[Stop], None]) -> None:
        self.name = name
        self._run = run

    def run(self, stop: Stop) -> None:
        self._run(stop)


def waiting(name: str) -> Component:
    return Component(name, lambda stop: stop.wait() and None)


def test_every_mistake_in_a_description_is_reported_at_once() -> None:
    def process(request: Request, databse: object) -> None: ...

    with pytest.raises(ConfigError) as caught:
        Service(
            "",
            routes=[Route("GET", "/a/<x>", process), Route("GET", "/a/<y>", process)],
            components=[waiting("a"), waiting("a"), object()],  # type: ignore[list-item]
            resources={"database": 3},  # type: ignore[dict-item]
            restart={"b": RestartPolicy()},
        )
    text = str(caught.value)
    for mistake in (
        "name is required",
        "'a' is taken twice",
        "is no component",
        "resource 'database' is 3",
        "no such component",
        "asks for 'databse'",
        "/a/<",
    ):
        assert mistake in text, text


def test_a_factory_that_hands_on_a_generator_is_run_on_like_a_generator_function() -> None:
    events: list[str] = []

    def database(path: str) -> Iterator[str]:
        yield f"the database in {path}"
        events.append("closed")

    seen: list[str] = []
    service = Service(
        "shop", resources={"db": lambda: database("/tmp/x")}, on_start=[lambda db: seen.append(db)]
    )
    with Running(service):
        assert seen == ["the database in /tmp/x"]
    assert events == ["closed"]


def test_resources_open_before_the_components_and_close_after_them_in_reverse_order() -> None:
    events: list[str] = []

    def database() -> Iterator[str]:
        events.append("open database")
        yield "the database"
        events.append("close database")

    class Cache:
        def __init__(self, database: str) -> None:
            events.append(f"open cache on {database}")

        def close(self) -> None:
            events.append("close cache")

    def run(stop: Stop) -> None:
        events.append(f"component sees {current('database')}")
        stop.wait()
        events.append("component ends")

    service = Service(
        "shop",
        resources={"database": database, "cache": Cache},
        on_start=[lambda database: events.append(f"start hook with {database}")],
        on_stop=[lambda cache: events.append("stop hook")],
        components=[Component("job", run)],
    )
    with Running(service):
        until(lambda: "component sees the database" in events)
    assert events == [
        "open database",
        "open cache on the database",
        "start hook with the database",
        "component sees the database",
        "component ends",
        "stop hook",
        "close cache",
        "close database",
    ]


def test_a_resource_is_replaced_by_the_tests_own_and_left_open() -> None:
    class Fake:
        closed = False

        def close(self) -> None:
            self.closed = True

    def show(request: Request, database: Fake) -> dict[str, str]:
        return {"type": type(database).__name__}

    def no_database() -> None:
        raise AssertionError("the factory must not be called")

    fake = Fake()
    service = Service("shop", routes=[Route("GET", "/", show)], resources={"database": no_database})
    with Running(service, resources={"database": fake}) as running:
        assert requests.get(running.url, timeout=5).json() == {"type": "Fake"}
    assert not fake.closed
    assert service.resources["database"] is no_database


def test_admin_routes_answer_before_the_resources_are_open_and_user_routes_do_not() -> None:
    release = threading.Event()

    def slow() -> str:
        release.wait(10)
        return "db"

    service = Service(
        "shop", routes=[Route("GET", "/x", lambda request, db: {"db": db})], resources={"db": slow}
    )
    running = Running(service)
    opening = threading.Thread(target=running.__enter__)
    opening.start()
    until(lambda: running.listening)
    assert requests.get(f"{running.url}/alive", timeout=5).status_code == 200
    assert requests.get(f"{running.url}/ready", timeout=5).json()["reasons"] == ["starting"]
    answer = requests.get(f"{running.url}/x", timeout=5)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    release.set()
    opening.join()
    assert requests.get(f"{running.url}/x", timeout=5).json() == {"db": "db"}
    running.__exit__(None, None, None)


def test_a_factory_that_raises_ends_the_service_with_its_error() -> None:
    def broken() -> None:
        raise ConnectionError("no database")

    with (
        pytest.raises(ExceptionGroup) as caught,
        Running(Service("shop", resources={"db": broken})) as running,
    ):
        assert running.wait_ended(5)
    [error] = caught.value.exceptions
    assert isinstance(error, ServiceError)
    assert isinstance(error.__cause__, ConnectionError)


def test_the_errors_of_all_components_can_be_picked_apart() -> None:
    def broken(stop: Stop) -> None:
        raise ValueError("first")

    def late(stop: Stop) -> None:
        stop.wait()
        raise OSError("second")

    picked = []
    try:
        with Running(Service("shop", components=[Component("a", broken), Component("b", late)])) as running:
            assert running.wait_ended(5)
    except* ComponentFailed as group:
        picked = sorted((e.component, type(e.__cause__)) for e in group.exceptions)  # type: ignore[union-attr]
    assert picked == [("a", ValueError), ("b", OSError)]


def test_work_that_outlives_the_budget_is_named() -> None:
    release = threading.Event()

    def hang_on_purpose(stop: Stop) -> None:
        release.wait(10)

    service = Service(
        "shop", components=[Component("job", hang_on_purpose)], process=ProcessSettings(grace=0.3)
    )
    began = time.monotonic()
    with pytest.raises(ExceptionGroup) as caught, Running(service):
        pass
    assert time.monotonic() - began < 3
    [error] = caught.value.exceptions
    assert isinstance(error, WorkAbandoned)
    assert "component job" in str(error)
    assert "hang_on_purpose" in str(error)
    release.set()


def test_a_resource_that_cannot_be_closed_is_reported_and_the_others_are_closed() -> None:
    closed = []

    class Resource:
        def __init__(self, name: str) -> None:
            self.name = name

        def close(self) -> None:
            closed.append(self.name)
            if self.name == "second":
                raise OSError("cannot close")

    service = Service(
        "shop", resources={"first": lambda: Resource("first"), "second": lambda: Resource("second")}
    )
    with pytest.raises(ExceptionGroup, match="shop failed"), Running(service):
        pass
    assert closed == ["second", "first"]


def test_a_check_that_fails_makes_the_service_not_ready_and_not_dead() -> None:
    service = Service("shop", ready_checks={"stock": lambda: False}, alive_check=lambda: True)
    with Running(service) as running:
        answer = requests.get(f"{running.url}/ready", timeout=5)
        assert (answer.status_code, answer.json()["reasons"]) == (503, ["check stock failed"])
        assert requests.get(f"{running.url}/alive", timeout=5).status_code == 200


def test_routes_and_consumers_share_memory() -> None:
    seen: list[str] = []
    source = MemorySource(topic="orders")

    def place(request: Request) -> dict[str, str]:
        return {"id": source.publisher().publish("orders", request.raw.read())}

    service = Service(
        "shop",
        routes=[Route("POST", "/orders", place)],
        components=[Consumer("orders", source, lambda message: seen.append(message.decode()["sku"]))],
    )
    with Running(service) as running:
        assert requests.post(f"{running.url}/orders", json={"sku": "A1"}, timeout=5).status_code == 201
        until(lambda: seen == ["A1"])
        [component] = requests.get(f"{running.url}/debug/components", timeout=5).json()["components"]
        assert (component["name"], component["state"]) == ("orders", "running")


def test_two_services_run_side_by_side_in_one_process() -> None:
    def who(request: Request, name: str) -> dict[str, str]:
        return {"name": name}

    services = [
        Service(n, routes=[Route("GET", "/", who)], resources={"name": lambda n=n: n}) for n in ("one", "two")
    ]
    with Running(services[0]) as first, Running(services[1]) as second:
        answers = [requests.get(r.url, timeout=5).json()["name"] for r in (first, second)]
    assert answers == ["one", "two"]
