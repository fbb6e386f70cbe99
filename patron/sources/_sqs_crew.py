"""A few threads that make requests side by side for one owner, who waits for them or does not."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

__all__ = ["Crew"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class Crew:
    """
    At most *size* threads, which start when they are needed first. One thread owns it.

    They are daemons: a request that hangs does not hold up the end of the process.
    """

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._tasks: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._waiting: list[Future[Any]] = []

    def each(self, act: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """
        What *act* returns for each of *items*, when all are done; the first by the calling thread itself.

        Raises:
            Exception: the first that an *act* raised, after all of them ended.
        """
        every = list(items)
        futures = [self.soon(partial(act, item)) for item in every[1:]]
        for item in every[:1]:
            mine: Future[Result] = Future()
            _do(mine, partial(act, item))
            futures.insert(0, mine)
        for future in futures:
            future.exception()
        return [future.result() for future in futures]

    def soon(self, act: Callable[[], Result]) -> Future[Result]:
        """Let one of the threads call *act*."""
        future: Future[Result] = Future()
        self._waiting = [each for each in self._waiting if not each.done()] + [future]
        self._tasks.put((future, act))
        if len(self._threads) < min(self._size, len(self._waiting)):
            self._start()
        return future

    def close(self, until: float) -> bool:
        """End the threads when they have done what was asked; whether they did by the monotonic time *until*."""
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            _do(*task)


def _do(future: Future[Any], act: Callable[[], Any]) -> None:
    try:
        future.set_result(act())
    except BaseException as error:  # noqa: BLE001 - the thread's edge: who waits for it gets it
        future.set_exception(error)
