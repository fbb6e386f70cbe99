"""What a Kafka producer has handed over and not seen confirmed: each one's future, and the bound on all."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from itertools import takewhile
from typing import Any, NamedTuple, Protocol

from patron.errors import PublishFailed
from patron.observe import Operation

__all__ = ["Connection", "Delivery", "Done", "Driver", "Record", "RecordMetadata", "Unconfirmed"]


class RecordMetadata(NamedTuple):
    """
    What the broker confirmed: where in the topic the message is.

    *offset* is None when the broker did not tell (acks below ``all``), *timestamp* is in seconds since the epoch.
    """

    topic: str
    partition: int
    offset: int | None
    timestamp: float | None


class Record(NamedTuple):
    """A message as it goes to the driver; *timestamp* in milliseconds since the epoch."""

    topic: str
    value: bytes | None
    key: bytes | None
    headers: list[tuple[str, bytes]]
    partition: int | None
    timestamp: int | None

    def size(self) -> int:
        """About how many bytes of memory it takes while it waits."""
        content = len(self.value or b"") + len(self.key or b"")
        return 500 + content + sum(len(name) + len(value) for name, value in self.headers)


Done = Callable[[RecordMetadata | BaseException], None]


class Driver(Protocol):
    """A producer of one of the drivers; safe to share between threads."""

    def append(self, record: Record, done: Done, timeout: float) -> None:
        """
        Take *record*, and call *done* once, in a thread of the driver's, when it is confirmed or given up.

        Raises:
            PublishFailed: it was not taken, within *timeout* seconds; *done* is never called.
        """
        ...

    def flush(self, timeout: float) -> None:
        """Send what waits, and return when it is done with or *timeout* seconds are over."""
        ...

    def close(self, timeout: float) -> None:
        """Give up what is left after at most *timeout* seconds, and end."""
        ...


class Delivery(Future[RecordMetadata]):
    """
    The future of one message; it cannot be cancelled.

    What is given to ``add_done_callback`` runs with the correlation id, the span and the other
    context variables of the sender, in a thread of the driver's: it must not block.
    """

    def __init__(self, operation: Operation) -> None:
        super().__init__()
        self.set_running_or_notify_cancel()
        self.topic = operation.instrument.target
        self._operation = operation
        self._context = contextvars.copy_context()
        self._once = threading.Lock()

    def add_done_callback(self, fn: Callable[[Future[RecordMetadata]], Any]) -> None:
        """Call *fn* with this future when it is done."""
        # A context can be entered only once at a time, so each callback gets its own.
        context = self._context.copy()
        super().add_done_callback(lambda future: context.run(fn, future))

    def settle(self, outcome: RecordMetadata | BaseException, failed: str = "send-errors") -> bool:
        """Be done with *outcome*, and count it; False when it was done before."""
        if not self._once.acquire(blocking=False):
            return False
        if isinstance(outcome, BaseException):
            self._operation.outcome = failed
            self._operation.fail(outcome)
            self._operation.finish()
            self.set_exception(outcome)
        else:
            self._operation.outcome = "sent"
            self._operation.finish()
            self.set_result(outcome)
        return True


class Unconfirmed:
    """The deliveries on their way, at most so many and of so many bytes. Any thread may call."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._changed = threading.Condition()  # guards the three below
        self._waiting: dict[
            Delivery, tuple[int, float]
        ] = {}  # size, and since when (monotonic seconds); oldest first
        self._bytes = 0
        self._closed = False

    def admit(self, delivery: Delivery, size: int, timeout: float) -> None:
        """
        Count *delivery* in, once there is room; a message larger than all the room travels alone.

        Raises:
            PublishFailed: there was no room within *timeout* seconds, or it was closed.
        """
        with self._changed:
            room = self._changed.wait_for(lambda: self._closed or self._fits(size), timeout)
            if self._closed:
                raise PublishFailed("the producer was closed: this message was not sent")
            if not room:
                raise PublishFailed(
                    f"{len(self._waiting)} messages ({self._bytes} bytes) wait for the broker's confirmation "
                    f"and nothing was confirmed within {timeout:.3g} s: this one was not sent"
                )
            self._waiting[delivery] = size, time.monotonic()
            self._bytes += size

    def _fits(self, size: int) -> bool:
        if not self._waiting:
            return True
        return len(self._waiting) < self._most and self._bytes + size <= self._most_bytes

    def close(self) -> None:
        """Admit nothing from now on, also of what waits for room: nobody would tell how it ended."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def release(self, delivery: Delivery) -> None:
        """*delivery* is done."""
        with self._changed:
            self._bytes -= self._waiting.pop(delivery, (0, 0.0))[0]
            self._changed.notify_all()

    def wait(self, timeout: float) -> int:
        """Wait at most *timeout* seconds until everything is done; how many are not."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, timeout)
            return len(self._waiting)

    def since(self, moment: float) -> list[Delivery]:
        """The deliveries on their way from before *moment*, in monotonic seconds."""
        with self._changed:
            return [
                delivery
                for delivery, _ in takewhile(lambda each: each[1][1] <= moment, self._waiting.items())
            ]


class Connection:
    """
    A driver with what it has not confirmed, and a thread that gives up what takes longer than *timeout* seconds.

    The drivers should do that by themselves, but kafka-python's idempotent producer asks for a new id
    after the first message that it gives up, and until a broker answers that it gives up nothing more.
    """

    def __init__(self, driver: Driver, unconfirmed: Unconfirmed, timeout: float) -> None:
        self._driver = driver
        self._unconfirmed = unconfirmed
        self._timeout = timeout
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._expire, name="patron-kafka-expiry", daemon=True)
        self._thread.start()

    def append(self, record: Record, delivery: Delivery, timeout: float) -> None:
        """Hand *record* over, which settles *delivery* in the end. Raises PublishFailed when it could not be."""
        until = time.monotonic() + timeout
        self._unconfirmed.admit(delivery, record.size(), timeout)
        try:
            self._driver.append(record, partial(self._done, delivery), max(0.0, until - time.monotonic()))
        except BaseException:
            self._unconfirmed.release(delivery)
            raise

    def _done(self, delivery: Delivery, outcome: RecordMetadata | BaseException) -> None:
        # Settled first: who has waited for the release finds the future done.
        delivery.settle(outcome)
        self._unconfirmed.release(delivery)

    def flush(self, timeout: float) -> None:
        """
        Return when everything that was handed over is confirmed or has failed.

        Raises:
            PublishFailed: something is left after *timeout* seconds.
        """
        until = time.monotonic() + timeout
        self._driver.flush(timeout)
        if left := self._unconfirmed.wait(max(0.0, until - time.monotonic())):
            raise PublishFailed(f"{left} messages were not confirmed within {timeout:g} s; they may still be")

    def close(self, timeout: float) -> int:
        """Flush, give up what is left after *timeout* seconds, and end; how many were left."""
        self._unconfirmed.close()
        self._driver.close(timeout)
        self._stop.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        return self._give_up(time.monotonic(), "the producer was closed before the broker confirmed")

    def _expire(self) -> None:
        patience = self._timeout + min(
            1.0, 0.2 * self._timeout
        )  # the driver itself knows better what was wrong
        while not self._stop.wait(min(0.5, 0.2 * self._timeout)):
            self._give_up(
                time.monotonic() - patience, "the broker did not confirm in time; it may still arrive"
            )

    def _give_up(self, moment: float, why: str) -> int:
        late = self._unconfirmed.since(moment)
        for delivery in late:
            self._done(delivery, PublishFailed(f"message to topic {delivery.topic!r} not confirmed: {why}"))
        return len(late)
