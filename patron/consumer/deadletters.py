"""Dead letters: a copy of the message with the reason in its headers, confirmed before the original is settled."""

from __future__ import annotations

import contextlib
import threading
from datetime import UTC, datetime

from patron import correlation
from patron.consumer.entry import Entry, Verdict
from patron.consumer.source import Message, Publisher, Source
from patron.errors import PublishFailed

__all__ = ["PREFIX", "REPLAYED", "REPLAYS", "DeadLetters", "copy_headers", "iso"]

PREFIX = "x-patron-"
REPLAYS, REPLAYED = PREFIX + "replays", PREFIX + "replayed"
"""How often, and when last, a letter was published again; the next copy keeps them."""

_LONGEST = 1000
_printable = dict.fromkeys((*range(32), 127), " ")


def copy_headers(
    message: Message, verdict: Verdict, failures: int, first_failure: float | None
) -> dict[str, str]:
    """
    The headers of the copy: the original ones, and why, how often and when it failed.

    ``x-patron-reason``, ``-error`` (its type), ``-attempts`` (failures in the last process),
    ``-deliveries``, ``-first-failure`` (UTC, ISO 8601), ``-topic`` and ``-id`` of the original.
    Control characters become spaces and long texts are cut at 1000 characters, for brokers bound both.
    """
    about = {
        "reason": verdict.reason,
        "error": "" if verdict.error is None else _type_name(verdict.error),
        "attempts": str(failures),
        "deliveries": str(message.deliveries),
        "first-failure": "" if first_failure is None else iso(first_failure),
        "topic": message.topic,
        "id": message.id,
    }
    own = {PREFIX + name: _bounded(value) for name, value in about.items() if value}
    return {name: value for name, value in message.headers.items() if _is_kept(name.lower())} | own


class DeadLetters:
    """
    The dead-letter topic of one consumer.

    The workers share it: one publishes at a time, and nobody waits longer than *patience* seconds
    for his turn. The connection is opened by the first letter, and anew after a failure.
    """

    def __init__(self, source: Source, topic: str, patience: float = 1.0) -> None:
        self.topic = topic
        self._source = source
        self._patience = patience
        # Guards `_publisher` and every call of it.
        self._lock = threading.Lock()
        self._publisher: Publisher | None = None

    def publish(self, entry: Entry, verdict: Verdict) -> str:
        """
        Publish the copy; returns its id once the broker has confirmed it.

        Raises:
            Exception: it may not be there; the original must not be settled.
        """
        message = entry.message
        headers = copy_headers(message, verdict, entry.failures, entry.first_failure)
        _replace(headers, correlation.outgoing())
        if not self._lock.acquire(timeout=self._patience):
            raise PublishFailed(f"another dead letter is being published for more than {self._patience} s")
        try:
            return self._send(message, headers)
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close the connection, unless a worker hangs in it."""
        if self._lock.acquire(timeout=0.1):
            try:
                self._drop()
            finally:
                self._lock.release()

    def _send(self, message: Message, headers: dict[str, str]) -> str:
        if self._publisher is None:
            self._publisher = self._source.publisher()
        try:
            return self._publisher.publish(self.topic, message.body, key=message.key, headers=headers)
        except BaseException:
            self._drop()
            raise

    def _drop(self) -> None:
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            with contextlib.suppress(Exception):
                publisher.close()


def _replace(headers: dict[str, str], by: dict[str, str]) -> None:
    """Put *by* into *headers*, whatever the case of the names that are there."""
    names = {name.lower() for name in by}
    for name in [name for name in headers if name.lower() in names]:
        del headers[name]
    headers.update(by)


def _bounded(text: str) -> str:
    clean = text.translate(_printable)
    return clean if len(clean) <= _LONGEST else clean[: _LONGEST - 1] + "…"


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _is_kept(name: str) -> bool:
    return not name.startswith(PREFIX) or name in (REPLAYS, REPLAYED)


def iso(seconds: float) -> str:
    """The time *seconds* after the epoch as UTC, ISO 8601 with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
