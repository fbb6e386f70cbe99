"""What every test gets: the check that nothing of it survives, and the servers that some need."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Iterator

import pytest
from brokers.requirements import missing

# The fixtures kafka, rabbitmq, sqs and redis, with own_... and proxy.
pytest_plugins = ["brokers.fixtures"]

# What boto3 asks for before it talks to anybody; moto takes whatever it is.
for name, value in {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "eu-west-1",
}.items():
    os.environ.setdefault(name, value)

#: Threads of libraries that are made once per process and end with it.
_ALLOWED = ("pytest-", "pydevd", "ThreadPoolExecutor-")


@pytest.fixture(autouse=True)
def _no_thread_survives() -> Iterator[None]:
    """A test leaves no thread behind; one that is just ending gets a moment."""
    before = set(threading.enumerate())
    yield
    until = time.monotonic() + 5
    while leaked := _leaked(before):
        if time.monotonic() > until:
            pytest.fail(f"threads survived the test: {[thread.name for thread in leaked]}")
        time.sleep(0.01)


def _leaked(before: set[threading.Thread]) -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t not in before and not t.name.startswith(_ALLOWED)]


def _required(tool: str) -> str:
    """The path of *tool*; without it the test is skipped, or fails when ``PATRON_TEST_REQUIRE`` lists it."""
    return shutil.which(tool) or missing(tool, f"{tool} is not installed")


@pytest.fixture
def promtool() -> str:
    """Prometheus' own checker of metrics (Debian: package prometheus)."""
    return _required("promtool")


@pytest.fixture(autouse=True)
def _no_hook_survives() -> Iterator[None]:
    """What a test hangs into the process, for errors and for fatal lines, goes with it."""
    yield
    if "patron.observe" in sys.modules:
        from patron.observe import log, set_error_reporter

        set_error_reporter(None)
        log.on_fatal(None)


@pytest.fixture(autouse=True)
def _no_operation_survives() -> Iterator[None]:
    """No test leaves an operation, a correlation id or a deadline current for the next one."""
    yield
    left = []
    if "patron.observe" in sys.modules:
        from patron.observe import instrument

        left.append(instrument._current)
    if "patron.correlation" in sys.modules:
        from patron import correlation

        left += [correlation.id_variable, correlation.forwarded_variable]
    if module := sys.modules.get("patron.reliability.deadline"):
        left.append(module.current)
    found = {variable.name: variable.get() for variable in left if variable.get() is not None}
    for variable in left:
        variable.set(None)
    assert not found, f"the test left its context behind: {found}"


@pytest.fixture(autouse=True)
def _driver_leaves_its_own_garbage_here(request: pytest.FixtureRequest) -> Iterator[None]:
    """
    kafka-python forgets the socket of a connection that it gives up while it is being made.

    The collector closes it, and warns of it: here, and not in whatever test runs then.
    """
    yield
    nodeid = request.node.nodeid
    if "kafka" in nodeid and "contract" not in nodeid:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


_BROKERS = {
    "kafka",
    "real_kafka",
    "own_kafka",
    "rabbitmq",
    "own_rabbitmq",
    "secured_kafka",
    "secured_rabbitmq",
    "sqs",
    "exact_sqs",
    "redis",
    "own_redis",
    "proxy",
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that asks for a broker has the mark of those that do."""
    for item in items:
        if _BROKERS.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("broker")
