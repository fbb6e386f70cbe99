"""
Moto's server, with receives one after the other.

Moto looks at the start of a receive which FIFO groups are in flight, and marks what it gives out at its end: two
at a time, such as one of a process that was killed, get messages of the same group. SQS gives them to one.
"""

from __future__ import annotations

import threading
from typing import Any

from moto.server import main
from moto.sqs.models import SQSBackend

_turn = threading.Lock()
_receive = SQSBackend.receive_message


def _one_at_a_time(self: SQSBackend, *args: Any, **kwargs: Any) -> Any:
    with _turn:
        return _receive(self, *args, **kwargs)


SQSBackend.receive_message = _one_at_a_time

if __name__ == "__main__":
    main()
