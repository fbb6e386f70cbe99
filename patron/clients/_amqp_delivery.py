"""What an AMQP publisher has taken and not seen confirmed: each one's future, and the bound on all."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from patron.errors import PublishFailed
from patron.observe import Operation

__all__ = ["Delivery", "Outgoing", "Room"]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message as it goes to the broker; *properties* are those of AMQP, headers included."""

    exchange: str
    routing_key: str
    body: bytes
    properties: Mapping[str, Any]
    mandatory: bool

    @property
    def id(self) -> str:
        """The message id, which tells a returned message."""
        return str(self.properties["message_id"])


class Delivery(Future[str]):
    """
    The future of one message, whose result is its id; it cannot be cancelled.

    What is given to ``add_done_callback`` runs with the correlation id, the span and the other context
    variables of the sender, in the publisher's thread: it must not block.

    Args:
        operation: ended when the message is.
        message: what is sent.
        until: when it has failed at the latest, on the monotonic clock.
    """

    def __init__(self, operation: Operation, message: Outgoing, until: float) -> None:
        super().__init__()
        self.set_running_or_notify_cancel()
        self.message = message
        self.until = until
        self.returned: str | None = None
        self._operation = operation
        self._context = contextvars.copy_context()
        self._once = threading.Lock()

    def add_done_callback(self, fn: Callable[[Future[str]], Any]) -> None:
        """Call *fn* with this future when it is done."""
        # A context can be entered only once at a time, so each callback gets its own.
        context = self._context.copy()
        super().add_done_callback(lambda future: context.run(fn, future))

    def confirm(self) -> bool:
        """The broker keeps it; False when it was done before."""
        if not self._once.acquire(blocking=False):
            return False
        self._operation.outcome = "true"
        self._operation.finish()
        self.set_result(self.message.id)
        return True

    def fail(self, error: BaseException) -> bool:
        """It may not be there; False when it was done before."""
        if not self._once.acquire(blocking=False):
            return False
        self._operation.outcome = "false"
        self._operation.fail(error)
        self._operation.finish()
        self.set_exception(error)
        return True


class Room:
    """How many messages may be under way at once. Any thread may call."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._changed = threading.Condition()  # guards the one below
        self._taken = 0

    def enter(self, timeout: float) -> None:
        """
        Take a place, waiting for one at most *timeout* seconds.

        Raises:
            PublishFailed: there was none.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._taken < self._most, timeout):
                raise PublishFailed(
                    f"{self._taken} messages wait for RabbitMQ to confirm, and none was within {timeout:.3g} s: "
                    "this one was not sent"
                )
            self._taken += 1

    def leave(self) -> None:
        """Give the place back."""
        with self._changed:
            self._taken -= 1
            self._changed.notify_all()

    def empty(self, until: float) -> int:
        """Wait until nothing is under way, at most until the monotonic clock says *until*; how many are left."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken, max(0.0, until - time.monotonic()))
            return self._taken
