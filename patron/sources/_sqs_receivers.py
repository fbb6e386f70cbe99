"""
The threads that wait at the queue: a long poll cannot be interrupted, so the subscription's owner never waits in one.

They ask for no more than the owner has room for, so that what they hold is what he asked for; one of
them waits while the queue is empty, and the others help when it is not.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from patron.reliability.retry import RetryPolicy

__all__ = ["Receivers"]

_MOST = 10  # messages that SQS gives at once
_AGAIN = RetryPolicy(initial=0.1, cap=5.0)  # how far apart requests are that fail

Received = Any


class Receivers:
    """
    At most *count* threads that call *fetch*.

    Args:
        name: of the threads.
        count: how many there are at most.
        fetch: asks for at most that many messages and returns them; called by these threads.
        give_back: takes messages that came after the end; called by these threads.
        pause: seconds between two requests that found nothing, where they do not wait at the queue.
    """

    def __init__(
        self,
        name: str,
        count: int,
        fetch: Callable[[int], Sequence[Received]],
        give_back: Callable[[Sequence[Received]], None],
        pause: float = 0.0,
    ) -> None:
        self._name = name
        self._count = count
        self._fetch = fetch
        self._give_back = give_back
        self._pause = pause
        self._threads: list[threading.Thread] = []
        # Guards all that follows; the conditions are what owner and threads wait for.
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._wanted = threading.Condition(self._lock)
        self._ended = threading.Condition(self._lock)
        self._queue: deque[Received] = deque()
        self._room = 0  # messages that the owner can still take
        self._asked = 0  # of these are asked for
        self._active = 1  # threads that may ask now
        self._asking = 0  # threads that ask now
        self._failing: tuple[float, BaseException] | None = None  # since when, and the latest
        self._woken = False
        self._closed = False

    # The owner

    def take(self, limit: int, timeout: float) -> list[Received]:
        """At most *limit* messages, waiting at most *timeout* seconds; with 0 nothing more is asked for."""
        with self._lock:
            self._room = limit
            if limit <= 0:
                self._woken = False
                return []
            self._help()
            if not self._queue and timeout > 0:
                self._arrived.wait_for(self._something, timeout)
            self._woken = False
            taken = [self._queue.popleft() for _ in range(min(limit, len(self._queue)))]
            self._room -= len(taken)
            return taken

    def waiting(self) -> list[Received]:
        """What was received and not yet taken."""
        with self._lock:
            return list(self._queue)

    def failing(self) -> tuple[float, BaseException] | None:
        """For how many seconds every request has failed, and the latest error; None when they do not."""
        with self._lock:
            if self._failing is None:
                return None
            since, error = self._failing
            return time.monotonic() - since, error

    def wake(self) -> None:
        """End the `take` that waits, or the next one, at once. Any thread may call."""
        with self._lock:
            self._woken = True
            self._arrived.notify()

    def stop(self) -> list[Received]:
        """Ask for nothing more; returns what was not taken."""
        with self._lock:
            self._closed = True
            left = list(self._queue)
            self._queue.clear()
            self._wanted.notify_all()
            self._ended.notify_all()
            return left

    def join(self, until: float) -> bool:
        """Wait for the requests under way until the monotonic time *until*; returns whether all have ended."""
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _something(self) -> bool:
        return bool(self._queue or self._woken)

    def _help(self) -> None:
        """Let another thread ask when there is something to ask for; called with the lock held."""
        if self._share() <= 0:
            return
        if len(self._threads) > self._asking:
            self._wanted.notify(self._active)
        else:
            number = len(self._threads)
            thread = threading.Thread(target=self._receive, name=f"{self._name}-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    # The threads

    def _receive(self) -> None:
        failures = 0
        while (count := self._next()) > 0:
            try:
                received = self._fetch(count)
            except BaseException as error:  # noqa: BLE001 - the thread's edge: the owner gets it
                failures += 1
                self._failed(count, error)
                self._leave(_AGAIN.delay(failures))
            else:
                failures = 0
                self._deliver(count, received)
                self._leave(0.0 if received else self._pause)

    def _next(self) -> int:
        """How many messages to ask for; waits while there is no room; 0 at the end."""
        with self._lock:
            while not self._closed:
                count = self._share()
                if count > 0:
                    self._asked += count
                    self._asking += 1
                    return count
                self._wanted.wait()
            return 0

    def _share(self) -> int:
        if self._asking >= self._active:
            return 0
        return min(_MOST, self._room - len(self._queue) - self._asked)

    def _deliver(self, count: int, received: Sequence[Received]) -> None:
        with self._lock:
            self._asked -= count
            self._failing = None
            late = self._closed
            if not late:
                self._queue.extend(received)
                self._adapt(count, len(received))
                self._arrived.notify()
        if late and received:
            self._give_back(received)

    def _adapt(self, asked: int, got: int) -> None:
        """One thread more while the queue has plenty, one alone when it is empty."""
        if got >= asked:
            self._active = min(self._count, self._active + 1)
            self._help()
        elif got == 0:
            self._active = 1

    def _failed(self, count: int, error: BaseException) -> None:
        with self._lock:
            self._asked -= count
            self._active = 1
            self._failing = (self._failing[0] if self._failing else time.monotonic(), error)

    def _leave(self, pause: float) -> None:
        """Let somebody else ask; who found nothing, or failed, keeps the place for the *pause*."""
        with self._lock:
            if pause > 0:
                self._ended.wait_for(lambda: self._closed, pause)
            self._asking -= 1
