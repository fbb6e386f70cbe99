"""A message as SQS gives it out, as Patron's, with the lease that it comes with."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from patron import aws
from patron.consumer.source import Message

__all__ = ["Lease", "message_of", "remember_count"]

_REMEMBERED = 10_000


@dataclass(slots=True)
class Lease:
    """A message that was received, when that was, and until when it is ours; monotonic seconds."""

    message: Message
    received: float
    ends: float

    @property
    def handle(self) -> str:
        """What SQS knows this lease by; another one for each time that it gives the message out."""
        return str(self.message.raw["ReceiptHandle"])


class _Uncounted:
    """
    How many deliveries of a message do not count, since no processor saw them.

    SQS counts each time that it gives a message out and lets nobody lower that. Remembered are the last
    10,000 messages that were given back unseen, as long as the process lives.
    """

    def __init__(self) -> None:
        # Guards `_known`.
        self._lock = threading.Lock()
        self._known: OrderedDict[str, int] = OrderedDict()

    def remember(self, id_: str, count: int) -> None:
        with self._lock:
            self._known[id_] = count
            self._known.move_to_end(id_)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)

    def of(self, id_: str) -> int:
        with self._lock:
            return self._known.get(id_, 0)


_uncounted = _Uncounted()


def remember_count(message: Message) -> None:
    """Let ``message.deliveries``, which is below what SQS counted, be so the next time too."""
    uncounted = _received(message.raw.get("Attributes") or {}) - message.deliveries
    if uncounted > 0:
        _uncounted.remember(message.id, uncounted)


def message_of(
    raw: Mapping[str, Any], queue: str, generation: int, unwrap_sns: bool, max_body: int
) -> Message:
    """*raw*, an entry of the answer to ReceiveMessage, as a message; never raises because of what it holds."""
    system = raw.get("Attributes") or {}
    group = system.get("MessageGroupId")
    text, attributes = raw.get("Body") or "", raw.get("MessageAttributes") or {}
    if unwrap_sns:
        text, attributes = _unwrapped(text, attributes)
    body, headers, key, problem = aws.opened(text, attributes, max_body, group)
    identifier = raw["MessageId"]
    return Message(
        body=body,
        topic=queue,
        id=identifier,
        headers=headers,
        key=key,
        lane=group,
        deliveries=max(1, _received(system) - _uncounted.of(identifier)),
        timestamp=_seconds(system.get("SentTimestamp")),
        generation=generation,
        raw=raw,
        problem=problem,
    )


def _received(system: Mapping[str, str]) -> int:
    return int(system.get("ApproximateReceiveCount") or 1)


def _seconds(milliseconds: str | None) -> float | None:
    return int(milliseconds) / 1000 if milliseconds else None


def _unwrapped(
    text: str, attributes: Mapping[str, Mapping[str, Any]]
) -> tuple[str, Mapping[str, Mapping[str, Any]]]:
    """What SNS put into its envelope; a text that is no envelope stays as it is."""
    try:
        envelope = json.loads(text)
    except (ValueError, RecursionError):
        return text, attributes
    if not (isinstance(envelope, dict) and envelope.get("Type") == "Notification" and "Message" in envelope):
        return text, attributes
    inside = envelope.get("MessageAttributes")
    return str(envelope["Message"]), {
        **attributes,
        **{
            name: {"StringValue": each.get("Value", "")}
            for name, each in (inside.items() if isinstance(inside, dict) else ())
            if isinstance(each, dict)
        },
    }
