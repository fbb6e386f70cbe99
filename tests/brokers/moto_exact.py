"""
Moto's server, with FIFO groups as exact as those of SQS.

Moto looks at the start of a receive which groups are in flight, and marks what it gives out at its end: two
at a time, such as one of a process that was killed, get messages of the same group. And when the leases of several
messages of a group have ended, it gives out the last one first, as the others seem to be in flight.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from moto.server import main
from moto.sqs.models import SQSBackend

_turn = threading.Lock()
_receive = SQSBackend.receive_message


def _waiting(self: SQSBackend, queue_name: str, count: int, wait: int, *rest: Any, **named: Any) -> Any:
    """As SQS does: within *wait* seconds as soon as there is something, but without a turn meanwhile."""
    end = time.monotonic() + wait
    while True:
        received = _one_at_a_time(self, queue_name, count, 0, *rest, **named)
        if received or time.monotonic() >= end:
            return received
        time.sleep(0.02)


def _one_at_a_time(self: SQSBackend, queue_name: str, *args: Any, **named: Any) -> Any:
    with _turn:
        pending = self.get_queue(queue_name).pending_messages
        for message in list(pending):
            if message.visible:
                pending.discard(message)
        return _receive(self, queue_name, *args, **named)


SQSBackend.receive_message = _waiting

if __name__ == "__main__":
    main()
