"""Writing to queues: one confirmed message at a time, for dead letters and for tests."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from typing import Any

from patron import aws
from patron.correlation import message_headers
from patron.errors import PublishFailed, SourceError
from patron.sources._sqs_client import Queues, QueueSettings, translated

__all__ = ["SqsPublisher"]

_LATEST = 900


class SqsPublisher:
    """Publishes to any queue of the account. It connects at its first call; one thread at a time may call."""

    def __init__(self, settings: QueueSettings) -> None:
        self._settings = settings
        self._queues: Queues | None = None

    def publish(
        self,
        topic: str,
        body: bytes,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay: float = 0.0,
    ) -> str:
        """
        See `Publisher.publish`; *topic* is the name or the address of a queue.

        In a FIFO queue the *key* is the message group. A *delay* is rounded up to whole seconds.

        Raises:
            PublishFailed: AWS refused it or cannot be reached; it is too large (1 MiB); the delay is longer than
                900 s, or in a FIFO queue. MissingExtra: boto3 is not installed.
        """
        if not 0 <= delay <= _LATEST:
            raise PublishFailed(f"a delay of {delay} s is not within 0 and {_LATEST} s, which SQS allows")
        text, attributes = aws.wrapped(body, message_headers(headers), None if _fifo(topic, key) else key)
        try:
            return self._send(topic, text, attributes, key, delay)
        except PublishFailed:
            raise
        except SourceError as error:
            raise PublishFailed(f"cannot publish to {topic}: {error}") from error

    def close(self) -> None:
        """Close. May be called twice."""
        queues, self._queues = self._queues, None
        if queues is not None:
            queues.close()

    def _send(
        self, topic: str, text: str, attributes: Mapping[str, Any], key: str | None, delay: float
    ) -> str:
        if self._queues is None:
            self._queues = Queues(self._settings)
        options: dict[str, Any] = {"MessageAttributes": attributes} if attributes else {}
        if topic.endswith(".fifo"):
            if delay:
                raise PublishFailed(f"{topic} is a FIFO queue, where no message can be delayed by itself")
            options |= _in_order(key)
        elif delay:
            options["DelaySeconds"] = math.ceil(delay)
        url = self._queues.url(topic)
        with translated(f"queue {topic}"):
            answer = self._queues.client.send_message(QueueUrl=url, MessageBody=text, **options)
        return str(answer["MessageId"])


def _fifo(topic: str, key: str | None) -> bool:
    """Whether the message group says the key, so that no attribute has to."""
    return topic.endswith(".fifo") and key is not None and aws.group_of(key, "") == key


def _in_order(key: str | None) -> dict[str, str]:
    # An id of its own for each call: boto3 repeats a request whose answer was lost, and SQS keeps one message.
    unique = uuid.uuid4().hex
    return {"MessageGroupId": aws.group_of(key, unique), "MessageDeduplicationId": unique}
