"""A consumer reads what the user's own code makes: a class, a function, or a source that is there."""

from __future__ import annotations

import json

import pytest

from patron.config import explain
from patron.config.schema import schema
from patron.sources.memory import MemorySource

CODE = """
from __future__ import annotations
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from patron.sources.memory import MemorySource
if TYPE_CHECKING:
    from somewhere import Strange

def process(message): ...

def queue(kind: Literal["memory", "other"], topic: str = "orders", lease: float = 30.0, *, password: str = ""):
    if kind == "other":
        raise RuntimeError("no broker of that kind")
    return MemorySource(topic, lease=lease)

@dataclass(frozen=True)
class Mine(MemorySource):
    loft: int = 1

ready = MemorySource("ready")
three = 3
def nothing(): return 3
def free(topic, more: Strange = None): return MemorySource(topic)
def greedy(**settings): return MemorySource("greedy")
async def later(): ...
"""


@pytest.fixture
def shop(world):
    world.module("queues", CODE)
    return world


def text(source: str) -> str:
    return f"name: a\nconsumers:\n- name: c\n  processor: queues:process\n  source: {source}\n"


@pytest.mark.parametrize(
    ("source", "made"),
    [
        ("{type: queues:queue, kind: memory}", MemorySource("orders")),
        ("{type: queues:queue, kind: memory, topic: bills, lease: 1m}", MemorySource("bills", lease=60.0)),
        ("{type: queues:ready}", MemorySource("ready")),
        ("{type: queues:free, topic: t, more: {a: 1}}", MemorySource("t")),
    ],
    ids=["function", "function with settings", "source", "without annotations"],
)
def test_a_source_is_made_by_the_users_own_code(shop, source, made):
    (consumer,) = shop.load(text(source)).service.components
    assert consumer.source == made


def test_the_class_of_a_source_needs_no_entry_point(shop):
    (consumer,) = shop.load(text("{type: queues:Mine, topic: t, loft: 3}")).service.components
    assert (consumer.source.topic, consumer.source.loft) == ("t", 3)


def test_its_settings_may_come_from_the_environment_and_its_secrets_are_hidden(shop):
    source = "{type: queues:queue, kind: '${SOURCE:-memory}', topic: '${TOPIC:-t}', password: hunter2}"
    configuration = shop.load(text(source), {"TOPIC": "bills"})
    assert configuration.service.components[0].source.topic == "bills"
    shown = {row["key"]: row["value"] for row in explain.rows(configuration.entries)}
    assert shown["consumers[0].source.password"] == "********"
    assert shown["consumers[0].source.lease"] == "30.0"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{type: queues:queue, knid: memory}", "source.knid: there is no such key (did you mean 'kind'?)"),
        ("{type: queues:queue}", "source.kind: is missing: it needs one of 'memory', 'other'"),
        (
            "{type: queues:queue, kind: memory, lease: soon}",
            "source.lease: expected a number, got the text 'soon'",
        ),
        ("{type: queues:queue, kind: memory, topic: ''}", "source.topic: is empty"),
        ("{type: queues:queue, kind: other}", "queues:queue failed: RuntimeError: no broker of that kind"),
        ("{type: queues:Mine, topic: ''}", "source.topic: is empty"),
        ("{type: queues:nothing}", "queues:nothing makes 3, which is no source"),
        ("{type: queues:three}", "'queues:three' is 3, which is no source and makes none"),
        ("{type: queues:greedy}", "'queues:greedy' takes **settings: each of its parameters needs a name"),
        ("{type: queues:later}", "'queues:later' is"),
        ("{type: queues:quee}", "has no attribute 'quee' (did you mean 'queue'?)"),
        ("{type: quees:queue}", "there is no module 'quees' (did you mean 'queues'?)"),
    ],
)
def test_what_is_wrong_with_it_is_said_at_its_place(shop, source, said):
    assert said in " ".join(shop.problems(text(source)))


def test_an_editor_knows_that_a_type_may_be_of_the_user():
    consumer = schema()["properties"]["consumers"]["items"]["properties"]["source"]
    own = consumer["oneOf"][-1]
    assert own["required"] == ["type"]
    assert "additionalProperties" not in own
    assert "pattern" in json.dumps(own["properties"]["type"])
