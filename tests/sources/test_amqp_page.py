"""What docs/amqp.md shows does what it says, on a real broker."""

from __future__ import annotations

import re
import types
from pathlib import Path

import pytest
from brokers.rabbitmq_server import RabbitMQServer

from patron.consumer.consumer import Consumer
from patron.sources.amqp import AmqpSource
from patron.testing.driving import driven
from patron.testing.until import until

pytestmark = pytest.mark.broker

PAGE = Path(__file__).parent.parent.parent / "docs" / "amqp.md"


def test_the_code_of_the_page_publishes_processes_and_looks(rabbitmq: RabbitMQServer, monkeypatch, capsys):
    monkeypatch.setenv("AMQP_URL", rabbitmq.url)
    page = types.ModuleType("page")
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        exec(compile(block, "amqp.md", "exec", dont_inherit=True), page.__dict__)
    source = AmqpSource(
        "depot.labels",
        rabbitmq.url,
        create=True,
        exchange="depot.parcels",
        exchange_kind="topic",
        bindings=["parcel.#"],
    )
    with driven(Consumer("page", source, page.print_label, dead_letters="depot.page.dlq")):
        until(lambda: _ready(source))
        page.announce({"id": "p1", "country": "NO"})
        page.announce_many([{"id": "p2"}, {"label": "none"}])
        until(lambda: page.look("depot.page.dlq"), 10)
        said: list[str] = []
        until(lambda: said.append(capsys.readouterr().out) or "label p2 None" in "".join(said))
    assert page.look("depot.page.dlq") == [(b'{"label":"none"}', "KeyError: 'id'")]
    page.events.close()
    connection = source._connect()
    for queue in ("depot.labels", "depot.page.dlq"):
        connection.channel().call("queue_delete", queue=queue)
    connection.channel().call("exchange_delete", exchange="depot.parcels")
    connection.close()


def _ready(source: AmqpSource) -> bool:
    source.prepare([])
    return True
