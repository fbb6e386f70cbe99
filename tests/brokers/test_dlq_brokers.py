"""``patron dlq`` on the real brokers: what is listed stays, what is replayed goes back, what is purged is gone."""

from __future__ import annotations

import gc
import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from patron.cli.program import run
from patron.config import build
from patron.consumer import Consumer, Message, Source

pytestmark = pytest.mark.broker

KINDS = ("kafka", "amqp", "sqs")
AWAY = {
    "kafka": {"brokers": "127.0.0.1:1", "connect_timeout": 0.5},
    "amqp": {"url": "amqp://guest:hunter2@127.0.0.1:1/", "connect_timeout": 0.5},
    "sqs": {"endpoint_url": "http://127.0.0.1:1"},
}


def settings(kind: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    """Where the broker is, and what is read there."""
    topic = f"dlq-{uuid4().hex[:8]}"
    if kind == "kafka":
        return {
            "topic": topic,
            "group": topic,
            "brokers": request.getfixturevalue("kafka").url,
            "partitions": 2,
        }
    if kind == "amqp":
        return {"queue": topic, "url": request.getfixturevalue("rabbitmq").url}
    return {"queue": topic, "endpoint_url": request.getfixturevalue("sqs").url, "wait": 1.0}


class Shop:
    """A service whose one consumer, ``orders``, reads from the broker."""

    def __init__(self, kind: str, given: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        Path("wares.py").write_text("def process(message): ...\n")
        names = {"kafka": "KafkaSource", "amqp": "AmqpSource", "sqs": "SqsSource"}
        source = {"type": f"patron.sources.{kind}:{names[kind]}", "create": True, **given}
        self.letters = f"{given.get('topic') or given['queue']}.dlq"
        consumer = {
            "name": "orders",
            "source": source,
            "processor": "wares:process",
            "dead_letters": self.letters,
        }
        Path("config.yaml").write_text(json.dumps({"name": "shop", "consumers": [consumer]}))

    @property
    def source(self) -> Source:
        (consumer,) = build("config.yaml").components
        assert isinstance(consumer, Consumer)
        return consumer.source

    def die(self, *bodies: bytes) -> None:
        """Have dead letters as the engine makes them."""
        topic = self.source.target
        self.source.prepare([self.letters])  # type: ignore[attr-defined]
        with closing(self.source.publisher()) as publisher:
            for number, body in enumerate(bodies):
                headers = {
                    "Content-Type": "application/json",
                    "X-Correlation-Id": f"c-{number}",
                    "x-patron-topic": topic,
                    "x-patron-reason": f"RuntimeError: reason {number}",
                    "x-patron-attempts": "3",
                    "x-patron-id": f"m-{number}",
                    "x-patron-first-failure": "2026-03-02T09:14:01.120Z",
                }
                publisher.publish(self.letters, body, key=f"k{number}", headers=headers)

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        status = run(["dlq", *arguments])
        return status, *self._capsys.readouterr()

    def listed(self, *options: str) -> list[dict[str, Any]]:
        status, out, err = self("list", "config.yaml", "orders", "--json", "--wait", "1", *options)
        assert (status, err) == (0, "")
        return sorted(map(json.loads, out.splitlines()), key=lambda row: row["original_id"])

    def waiting(self, count: int) -> Sequence[Message]:
        """The first *count* messages that the consumer would get."""
        with closing(self.source.open()) as subscription:
            found: list[Message] = []
            for _ in range(100):
                found += [m for m in subscription.poll(10, 0.5) if isinstance(m, Message)]
                if len(found) >= count:
                    subscription.ack(found)
                    break
        return found


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "wares", raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")


@pytest.fixture
def shop(request: pytest.FixtureRequest, world: None, capsys: pytest.CaptureFixture[str]) -> Shop:
    return Shop(request.param, settings(request.param, request), capsys)


on_each = pytest.mark.parametrize("shop", KINDS, indirect=True)


@on_each
def test_listing_and_showing_leave_the_letters_where_they_are(shop: Shop) -> None:
    shop.die(b'{"n": 1}', b'{"n": 2}', b"\xff\x00")
    first = shop.listed()
    assert [row["reason"] for row in first] == [f"RuntimeError: reason {n}" for n in range(3)]
    assert [(row["topic"], row["key"], row["size"]) for row in first] == [
        (shop.source.target, "k0", 8),
        (shop.source.target, "k1", 8),
        (shop.source.target, "k2", 2),
    ]
    assert len(shop.listed("--reason", "REASON 1")) == 1
    status, out, _ = shop("show", "config.yaml", "orders", first[1]["id"])
    assert (status, '"n": 2' in out, "X-Correlation-Id: c-1" in out) == (0, True, True)
    assert [row["id"] for row in shop.listed()] == [row["id"] for row in first], "they are still there"


@on_each
def test_a_letter_that_is_replayed_goes_back_and_the_others_stay(shop: Shop) -> None:
    shop.die(b'{"n": 1}', b'{"n": 2}', b'{"n": 3}')
    middle = shop.listed()[1]["id"]
    assert shop("replay", "config.yaml", "orders", middle) == (0, "orders: 1 replayed\n", "")
    [message] = shop.waiting(1)
    assert (message.body, message.key) == (b'{"n": 2}', "k1")
    named = {name.lower(): value for name, value in message.headers.items()}
    assert (named["content-type"], named["x-correlation-id"]) == ("application/json", "c-1")
    assert named["x-patron-replays"] == "1"
    assert "x-patron-reason" not in named
    assert [row["original_id"] for row in shop.listed()] == ["m-0", "m-2"]
    assert shop("replay", "config.yaml", "orders", "--all") == (0, "orders: 2 replayed\n", "")
    assert {m.body for m in shop.waiting(2)} == {b'{"n": 1}', b'{"n": 3}'}
    assert shop.listed() == []


@on_each
def test_letters_are_deleted_in_any_order(shop: Shop) -> None:
    shop.die(*(b"%d" % n for n in range(12)))
    rows = shop.listed()
    assert len(rows) == 12
    for victim in (rows[7], rows[2]):
        status, out, _ = shop("purge", "config.yaml", "orders", victim["id"], "--yes")
        assert (status, out) == (0, "orders: 1 deleted\n")
    left = {row["id"] for row in rows} - {rows[7]["id"], rows[2]["id"]}
    assert {row["id"] for row in shop.listed()} == left
    assert shop("purge", "config.yaml", "orders", "--all", "--yes") == (0, "orders: 10 deleted\n", "")
    assert shop.listed() == []


@pytest.mark.parametrize("shop", ["kafka", "amqp"], indirect=True)  # SQS counts roughly
def test_letters_are_counted(shop: Shop) -> None:
    shop.die(b"1", b"2", b"3")
    status, out, _ = shop("list", "config.yaml")
    assert status == 0
    assert out.splitlines()[1].split() == ["orders", shop.letters, "3"]


@pytest.fixture
def forgotten_sockets() -> Iterator[None]:
    """kafka-python does not close sockets that it could not connect; let them go here and nowhere else."""
    gc.disable()
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
        gc.enable()


@pytest.mark.parametrize("kind", KINDS)
def test_a_broker_that_is_away_is_one_line_and_no_password(
    kind: str, world: None, forgotten_sockets: None, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"topic": "away", "group": "away"} if kind == "kafka" else {"queue": "away"}
    shop = Shop(kind, {**names, **AWAY[kind]}, capsys)
    status, out, err = shop("list", "config.yaml", "orders")
    assert (status, out) == (1, "")
    assert err.startswith("patron: ")
    assert "Traceback" not in err
    assert "hunter2" not in err


@pytest.mark.parametrize("kind", KINDS)
def test_dead_letters_whose_topic_is_not_there_are_a_failure_that_names_it(
    kind: str, world: None, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    shop = Shop(kind, {**settings(kind, request), "create": False}, capsys)
    for arguments in ((), ("orders",)):
        status, _, err = shop("list", "config.yaml", *arguments)
        assert status == 1
        assert shop.letters.replace(".", "-" if kind == "sqs" else ".") in err
