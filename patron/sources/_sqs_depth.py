"""How much is in a queue, asked now and then by a thread that nobody waits for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from patron.consumer.source import Message, Stats
from patron.errors import SourceError
from patron.observe import log
from patron.observe.metrics import Gauge
from patron.reasons import told
from patron.sources._sqs_client import translated

__all__ = ["METRICS", "Depth"]

EVERY = 10.0
"""Seconds between two looks at least: each is a request that AWS counts."""

# SQS calls the numbers approximate; they settle within a minute. The queue is the name, without the account.
queue_size = Gauge(
    "component_sqs_queue_size",
    "Messages of a queue: available, delayed, and invisible, which is received and not deleted.",
    ("queue", "state"),
    across="livemax",
)

METRICS = [queue_size]

_STATES = {
    "available": "ApproximateNumberOfMessages",
    "delayed": "ApproximateNumberOfMessagesDelayed",
    "invisible": "ApproximateNumberOfMessagesNotVisible",
}


class Depth:
    """The size of one queue. `stats` is the owner's, `received` and the looks are other threads'."""

    def __init__(self, queue: str, client: Any, url: str) -> None:
        self._queue = queue
        self._client = client
        self._url = url
        self._children = {state: queue_size.bind(queue=queue, state=state) for state in _STATES}
        self._next = 0.0
        self._known: dict[str, int] | None = None
        self._oldest: float | None = None

    def stats(self, soon: Callable[[Callable[[], None]], object]) -> Stats:
        """What is known; lets *soon* find out more when that is old."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + EVERY
            soon(self._look)
        known = self._known
        if known is None:
            return Stats(1)
        waiting = known["available"]
        oldest = self._oldest
        return Stats(1, waiting, max(0.0, time.time() - oldest) if waiting and oldest is not None else None)

    def received(self, messages: Sequence[Message]) -> None:
        """These came with one answer: what still waits is hardly older."""
        self._oldest = min((each.timestamp for each in messages if each.timestamp is not None), default=None)

    def look(self) -> dict[str, int]:
        """Ask now. Raises `SourceError`."""
        with translated(f"queue {self._queue}"):
            answer = self._client.get_queue_attributes(
                QueueUrl=self._url, AttributeNames=list(_STATES.values())
            )["Attributes"]
        self._known = {state: int(answer.get(name, 0)) for state, name in _STATES.items()}
        return self._known

    def _look(self) -> None:
        try:
            for state, number in self.look().items():
                self._children[state].set(number)
        except SourceError as error:
            log.warn("queue size not known", queue=self._queue, error=told(error))
