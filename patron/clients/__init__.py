"""
Clients that send: what a service publishes carries its correlation id, trace and content type.

Each is imported when it is first used, and its driver when it first sends.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from patron.clients.amqp import AmqpPublisher as AmqpPublisher
    from patron.clients.kafka import KafkaProducer as KafkaProducer
    from patron.clients.sns import SnsPublisher as SnsPublisher
    from patron.clients.sqs import SqsPublisher as SqsPublisher

#: Public name → the module that has it.
_HOMES = {
    "AmqpPublisher": "patron.clients.amqp",
    "KafkaProducer": "patron.clients.kafka",
    "SnsPublisher": "patron.clients.sns",
    "SqsPublisher": "patron.clients.sqs",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    """Import the public *name* from its home."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"patron.clients has no {name!r}; it has: {', '.join(sorted(__all__))}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
