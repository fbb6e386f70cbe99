"""When a commit over confluent-kafka is tried, and when no more are taken; no broker is needed."""

from __future__ import annotations

from typing import Any

import pytest

from patron.consumer.source import Message
from patron.errors import SourceError
from patron.sources._kafka_lanes import Lane, Partition

pytest.importorskip("confluent_kafka")

from confluent_kafka import KafkaError

from patron.sources import _kafka_confluent_commits
from patron.sources._kafka_confluent_commits import Commits


class Client:
    """Takes commits and answers nothing."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def commit(self, offsets: Any, asynchronous: bool) -> None:
        self.asked += [(each.partition, each.offset) for each in offsets]


class Raw:
    def leader_epoch(self) -> None:
        return None


def message(partition: int, position: int) -> Message:
    return Message(b"", "orders", "1", lane=Partition("orders", partition), position=position, raw=Raw())


def test_a_refusal_of_what_was_lost_since_does_not_refuse_what_comes_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_kafka_confluent_commits, "_PATIENCE", -1.0)
    monkeypatch.setattr(_kafka_confluent_commits, "_EVERY", 0.0)
    client, commits = Client(), Commits(lambda lane: True)
    lost, ours = Lane(Partition("orders", 0), 0), Lane(Partition("orders", 1), 0)
    commits.note(client, {lost: message(0, 6)})
    commits.answered(KafkaError(KafkaError.UNKNOWN_MEMBER_ID), [])
    with pytest.raises(SourceError):
        commits.note(client, {lost: message(0, 7)})
    commits.forget([lost])
    commits.note(client, {ours: message(1, 9)})
    assert client.asked == [(0, 7), (1, 10)]
    commits.answered(None, [])
    commits.note(client, {ours: message(1, 10)})
    assert client.asked[-1] == (1, 11)


def test_no_more_is_taken_while_an_answer_does_not_come_so_that_a_crash_repeats_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_kafka_confluent_commits, "_SLOW", -1.0)
    monkeypatch.setattr(_kafka_confluent_commits, "_EVERY", 0.0)
    lane, mine = Lane(Partition("orders", 0), 0), True
    client, commits = Client(), Commits(lambda lane: mine)
    commits.note(client, {lane: message(0, 6)})
    with pytest.raises(SourceError, match="does not answer"):
        commits.note(client, {lane: message(0, 7)})
    commits.answered(None, [])
    commits.note(client, {lane: message(0, 7)})
    mine = False
    commits.note(client, {lane: message(0, 8)})
    assert client.asked == [(0, 7), (0, 8)]
