"""
What the error codes of Kafka's protocol mean for a source, whatever the driver calls them.

The numbers: https://kafka.apache.org/protocol.html#protocol_error_codes
"""

from __future__ import annotations

from collections.abc import Sequence

from patron.errors import ConnectionLost, NotASource, SourceError, Stale
from patron.kafka import with_remedy

__all__ = ["FENCED", "GONE", "MISSING_TOPIC", "REBALANCING", "TOPIC_EXISTS", "advice", "refusal"]

MISSING_TOPIC = 3
GONE = frozenset({22, 25})  # ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID: the group goes on without us
REBALANCING = 27
TOPIC_EXISTS = 36
FENCED = 82  # FENCED_INSTANCE_ID: somebody else has our group_instance_id
_INVALID_GROUP = frozenset(
    {23, 24, 26}
)  # INCONSISTENT_GROUP_PROTOCOL, INVALID_GROUP_ID, INVALID_SESSION_TIMEOUT
_FORBIDDEN = frozenset({29, 30, 31, 33, 34, 58})  # authorization and SASL
_UNREACHABLE = frozenset({13})  # NETWORK_EXCEPTION


def refusal(code: int, doing: str, said: str) -> SourceError:
    """The error for *code*, which the broker answered while *doing*; *said* is the driver's text."""
    text = f"{doing}: {said}"
    if code == FENCED:
        return NotASource(f"{text}: another live process has the same group_instance_id")
    if code in _FORBIDDEN or code in _INVALID_GROUP:
        return NotASource(with_remedy(text))
    if code in GONE:
        return Stale(f"{text}: the group goes on without us")
    if code in _UNREACHABLE:
        return ConnectionLost(text)
    return SourceError(text)


def advice(server: str, missing: Sequence[str]) -> str:
    """What to do about topics that are *missing*."""
    commands = "; ".join(
        f"kafka-topics.sh --bootstrap-server {server} --create --topic {topic}" for topic in missing
    )
    plural = "topics" if len(missing) > 1 else "topic"
    return f"no {plural} {', '.join(missing)} in Kafka: set create: true, or make it with {commands}"
