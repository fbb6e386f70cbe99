"""What every measured consumer does with a message: note its number; and the result it leaves behind."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NUMBER = slice(8, 16)
"""Where the number of a message stands in its body, ``{"id": "00000042", ...``."""
SLOW = 0.005
"""Seconds that the slow processor takes."""
LINGER = 0.3
"""Seconds to wait, after the last message, for some that come twice."""


def arguments() -> dict[str, Any]:
    """What this consumer is to do, as benchmarks/consumers.py says."""
    return json.loads(sys.argv[1])


class Meter:
    """
    Counts messages from the first to the last, and writes what it measured.

    `note` may be called in any thread; the clock starts at its first call, and `finish` stops it,
    which whoever has settled the last message calls.
    """

    def __init__(self, case: dict[str, Any]) -> None:
        self._count: int = case["count"]
        self._result = Path(case["result"])
        self._began: tuple[float, float] | None = None
        self._processed: tuple[float, float] | None = None
        self._numbers: list[Any] = []
        self.done = threading.Event()
        self.note = self._noting()

    def _noting(self) -> Callable[[Any], None]:
        numbers, count, number = self._numbers, self._count, NUMBER
        add = numbers.append

        def note(body: Any) -> None:
            if not numbers:
                self._began = self._began or _clocks()
            add(body[number])
            if len(numbers) >= count:
                self._processed = self._processed or _clocks()
                self.done.set()

        return note

    @property
    def left(self) -> int:
        """How many messages are still to come."""
        return self._count - len(self._numbers)

    def finish(self, linger: Callable[[], Any] = lambda: time.sleep(LINGER), *, settled: bool = True) -> None:
        """
        Stop the clock, *linger* for duplicates, and write the result.

        With *settled* false it had stopped with the last call of `note`: for those that do not tell when
        they have settled a message.
        """
        ended = _clocks() if settled else self._processed
        linger()
        assert self._began is not None
        assert ended is not None
        seconds, cpu = (after - before for before, after in zip(self._began, ended, strict=True))
        self._write(
            {
                "rate": self._count / seconds,
                "cpu": cpu / self._count * 1e6,
                "processed": len(self._numbers),
                "distinct": len(set(self._numbers)),
            }
        )

    def _write(self, result: dict[str, Any]) -> None:
        beside = self._result.with_suffix(".new")
        beside.write_text(json.dumps(result))
        os.replace(beside, self._result)


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()
