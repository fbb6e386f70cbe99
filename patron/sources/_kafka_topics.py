"""Checking that topics exist, and making those that do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from patron.errors import NotASource
from patron.observe import log
from patron.sources._kafka_codes import MISSING_TOPIC, TOPIC_EXISTS, advice
from patron.sources._kafka_library import Client, admin, errors, translated

if TYPE_CHECKING:
    from patron.sources.kafka import KafkaSource

__all__ = ["check_or_make"]


def check_or_make(source: KafkaSource, topics: Sequence[str]) -> None:
    """
    Check that *topics* exist; with ``source.create``, make those that do not, and wait until they can be used.

    Raises:
        NotASource: some do not exist, or may not be seen. ConnectionLost: no broker answered.
    """
    client = admin(source)
    try:
        with translated("cannot look at the topics"):
            missing = _missing(client, topics)
        if not missing:
            return
        if not source.create:
            raise NotASource(advice(source.servers[0], missing))
        with translated(f"cannot make topics {', '.join(missing)}"):
            _make(client, source, missing)
    finally:
        client.close()


def _missing(client: Client, topics: Sequence[str]) -> list[str]:
    missing = []
    for about in client.describe_topics(list(topics)):
        code = about["error_code"]
        if code == MISSING_TOPIC:
            missing.append(about["name"])
        elif code and not issubclass(errors.for_code(code), errors.RetriableError):
            raise errors.for_code(code)(about["name"])
    return missing


def _make(client: Client, source: KafkaSource, topics: Sequence[str]) -> None:
    about = {
        "num_partitions": source.partitions or -1,
        "replication_factor": source.replication or -1,
        # What may be published must fit, or a dead letter could be too large for its topic.
        "configs": {"max.message.bytes": str(source.max_message_bytes)},
    }
    made = client.create_topics(dict.fromkeys(topics, about), raise_errors=False)
    for topic in made["topics"]:
        if topic["error_code"] not in (0, TOPIC_EXISTS):
            raise errors.for_code(topic["error_code"])(topic.get("error_message") or topic["name"])
    client.wait_for_topics(list(topics), timeout_ms=source.request_timeout * 1000)
    log.info("topics made", topics=list(topics))
