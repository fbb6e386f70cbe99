"""Small versions of ``losses.py``: nothing is lost, repeated without a cause, or out of order, whoever is killed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from brokers.loss_run import Run, running
from brokers.losses import crash, group, slow, stop
from brokers.processes import Unavailable
from brokers.requirements import missing

pytestmark = [pytest.mark.broker, pytest.mark.stress]

REQUIREMENT = {
    "kafka": "kafka",
    "confluent": "kafka",
    "amqp": "rabbitmq",
    "shared": "rabbitmq",
    "sqs": "sqs",
    "sqlite": "sqlite",
}

#: The kills of each source are part of every run; these take some minutes more.
long = pytest.mark.skipif(
    not os.environ.get("PATRON_TEST_LONG"), reason="takes minutes: PATRON_TEST_LONG=1 runs it"
)


@pytest.fixture
def run(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Run]:
    name = request.param
    try:
        world = running(name, tmp_path)
        entered = world.__enter__()
    except Unavailable as reason:
        missing(REQUIREMENT[name], str(reason))
    try:
        yield entered
    finally:
        world.__exit__(None, None, None)


def on(*names: str) -> Callable[[Callable], Callable]:
    return pytest.mark.parametrize("run", names, indirect=True)


@on("kafka", "amqp", "sqs")
def test_kills_of_the_service_and_the_broker_lose_nothing_and_keep_the_order(run: Run) -> None:
    # A killed process is noticed after six seconds on Kafka, and its messages come again after five on SQS.
    services = 2 if run.subject.name == "amqp" else 1
    crash(run, 96 if run.subject.name == "sqs" else 3000, services=services, brokers=1)
    assert not run.failures


@long
@on("confluent", "shared", "sqlite")
def test_kills_lose_nothing_of_the_other_drivers_and_queues(run: Run) -> None:
    crash(run, 6000, services=2, brokers=2)
    assert not run.failures


@long
@on("kafka", "confluent")
def test_processes_join_and_leave_a_group_without_loss_or_reordering(run: Run) -> None:
    group(run, pause=3.0, rate=1500)
    assert not run.failures


@long
@on("kafka", "amqp", "sqs")
def test_a_processor_slower_than_the_patience_of_the_broker_works_once(run: Run) -> None:
    slow(run, scale=0.05)
    assert not run.failures


@long
@on("kafka", "confluent", "amqp", "sqs")
def test_a_stop_under_load_leaves_nothing_unfinished_and_nothing_to_repeat(run: Run) -> None:
    stop(run, 120 if run.subject.name == "sqs" else 2400, stops=1)
    assert not run.failures
