"""Checking that topics exist, and making those that do not, over confluent-kafka."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from patron.errors import NotASource, SourceError
from patron.observe import log
from patron.sources._kafka_codes import MISSING_TOPIC, TOPIC_EXISTS, advice
from patron.sources._kafka_confluent_library import (
    MOVING,
    Client,
    Health,
    KafkaException,
    NewTopic,
    admin,
    reach,
    translated,
    translation,
)

if TYPE_CHECKING:
    from patron.sources.kafka import KafkaSource

__all__ = ["check_or_make"]


def check_or_make(source: KafkaSource, topics: Sequence[str]) -> None:
    """
    Check that *topics* exist; with ``source.create``, make those that do not, and wait until they can be used.

    Raises:
        NotASource: some do not exist, or may not be seen. ConnectionLost: no broker answered.
    """
    health = Health(source)
    client = admin(source, health)
    reach(client, source, health)
    missing = _missing(client, source, topics)
    if missing and not source.create:
        raise NotASource(advice(source.servers[0], missing))
    if missing:
        _make(client, source, missing)
        _wait(client, source, missing)
        log.info("topics made", topics=missing)


def _missing(client: Client, source: KafkaSource, topics: Sequence[str]) -> list[str]:
    missing = []
    with translated("cannot look at the topics"):
        found = {topic: client.list_topics(topic, timeout=source.request_timeout).topics for topic in topics}
    for topic, answer in found.items():
        error = answer[topic].error
        if error is not None and error.code() == MISSING_TOPIC:
            missing.append(topic)
        elif error is not None and error.code() not in MOVING:
            raise translation(error, f"cannot look at topic {topic}")
    return missing


def _make(client: Client, source: KafkaSource, topics: Sequence[str]) -> None:
    # What may be published must fit, or a dead letter could be too large for its topic.
    config = {"max.message.bytes": str(source.max_message_bytes)}
    wanted = [
        NewTopic(
            topic,
            num_partitions=source.partitions or -1,
            replication_factor=source.replication or -1,
            config=config,
        )
        for topic in topics
    ]
    for topic, made in client.create_topics(wanted, request_timeout=source.request_timeout).items():
        _done(topic, made)


def _done(topic: str, made: Any) -> None:
    try:
        made.result()
    except KafkaException as error:
        if error.args[0].code() != TOPIC_EXISTS:
            raise translation(error.args[0], f"cannot make topic {topic}") from error


def _wait(client: Client, source: KafkaSource, topics: Sequence[str]) -> None:
    until = monotonic() + source.request_timeout
    while _missing(client, source, topics):
        if monotonic() > until:
            raise SourceError(f"topics {', '.join(topics)} were made and cannot be used yet")
        sleep(0.02)
