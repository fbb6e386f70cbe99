"""What the processes of one run share: a map with one slot for each worker, made before the fork."""

from __future__ import annotations

import contextvars
import json
import mmap
import os
import struct
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Board", "Ended", "Slot", "WorkerState", "run_directory", "worker_slot"]

run_directory: contextvars.ContextVar[Path | None] = contextvars.ContextVar(
    "patron_run_directory", default=None
)
"""
The directory of the run, as its components see it; it is the same for all workers and goes with the run.

None: the process stands alone.
"""

worker_slot: contextvars.ContextVar[int] = contextvars.ContextVar("patron_worker_slot", default=0)
"""The number of the worker, as its components see it: no two workers of a run that live at once share one."""

#: Bytes of the state that one worker can publish; a longer one is cut down to its readiness.
SLOT_SIZE = 64 * 1024
# The header: two bytes that only workers write, two counts that only the arbiter writes, then for
# each slot a byte for its phase and one for its exit status.
_ENDED, _STATUS = 0, 1
_COUNTS = struct.Struct("II")  # expected workers, slots taken so far
_COUNTS_AT, _PHASES_AT = 8, 16
_RECORD = struct.Struct("II")  # sequence, length
_FREE, _TAKEN, _CLEAN = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Ended:
    """The run is to end, with this exit status."""

    status: int


@dataclass(frozen=True, slots=True)
class WorkerState:
    """
    What one worker last said of itself. *age* is the seconds since then.

    It is *serving* from the end of its start until it drains, ready or not.
    """

    slot: int
    pid: int
    serving: bool
    ready: bool
    reasons: tuple[str, ...]
    draining: bool
    components: tuple[Mapping[str, Any], ...]
    age: float


class Board:
    """
    One shared, anonymous memory map: a header of the run, then one slot for each worker.

    The arbiter makes it before the first fork, takes a slot for each worker in ``pre_fork`` and
    frees it in ``child_exit``; a worker writes only to its own slot; everyone reads all of them.
    Readers take no lock: each slot carries a sequence number that is odd while it is written.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        # Slots begin on pages of their own, so that one that was never used takes no memory.
        self._slots_at = -(-(_PHASES_AT + 2 * count) // mmap.PAGESIZE) * mmap.PAGESIZE
        self._map = mmap.mmap(-1, self._slots_at + count * SLOT_SIZE)

    def close(self) -> None:
        """Release the map. Nothing may be called afterwards."""
        self._map.close()

    # The arbiter's side.

    def expect(self, workers: int) -> None:
        """Say how many workers the run is to have."""
        self._set_counts(workers, self._counts()[1])

    def take(self) -> int:
        """
        Take the lowest free slot for a worker that is about to be forked.

        Raises:
            RuntimeError: every slot is taken.
        """
        for slot in range(self.count):
            if self._phase(slot) == _FREE:
                self._store(self._at(slot), _RECORD.pack(0, 0))
                self._set_phase(slot, _TAKEN)
                expected, taken = self._counts()
                self._set_counts(expected, taken + 1)
                return slot
        raise RuntimeError(f"all {self.count} worker slots are taken: old workers do not end")

    def free(self, slot: int) -> int | None:
        """Free *slot*; returns the status that its worker ended with in order, or None when it died."""
        at = _PHASES_AT + 2 * slot
        phase, status = self._map[at], self._map[at + 1]
        self._set_phase(slot, _FREE)
        return status if phase == _CLEAN else None

    def free_slots(self) -> int:
        """How many more workers there is room for."""
        return sum(self._phase(slot) == _FREE for slot in range(self.count))

    def all_clean(self) -> bool:
        """Whether no worker is missing that ought to have said that it ended in order."""
        return all(self._phase(slot) != _TAKEN for slot in range(self.count))

    # The worker's side.

    def end(self, status: int) -> None:
        """Ask for the end of the run, with exit *status*; the worst status that was asked for stays."""
        self._map[_STATUS] = max(self._map[_STATUS], status)
        self._map[_ENDED] = 1

    def ended(self) -> Ended | None:
        """The end that was asked for, or None."""
        return Ended(self._map[_STATUS]) if self._map[_ENDED] else None

    def states(self) -> list[WorkerState]:
        """What each worker last said; one that has said nothing yet is not ready."""
        return [self._state(slot) for slot in range(self.count) if self._phase(slot) == _TAKEN]

    def serving(self, slots: Iterable[int]) -> bool:
        """Whether all the workers in *slots* serve."""
        return all(self._phase(slot) == _TAKEN and self._state(slot).serving for slot in slots)

    def expected(self) -> int:
        """How many workers the run is to have."""
        return self._counts()[0]

    def missing(self) -> int:
        """How many of the expected workers were never started so far."""
        expected, taken = self._counts()
        return max(0, expected - taken)

    # Memory.

    def _counts(self) -> tuple[int, int]:
        expected, taken = _COUNTS.unpack_from(self._map, _COUNTS_AT)
        return expected, taken

    def _set_counts(self, expected: int, taken: int) -> None:
        self._store(_COUNTS_AT, _COUNTS.pack(expected, taken))

    def _at(self, slot: int) -> int:
        return self._slots_at + slot * SLOT_SIZE

    def _phase(self, slot: int) -> int:
        return self._map[_PHASES_AT + 2 * slot]

    def _set_phase(self, slot: int, phase: int, status: int = 0) -> None:
        self._map[_PHASES_AT + 2 * slot + 1] = status
        self._map[_PHASES_AT + 2 * slot] = phase

    def _store(self, at: int, data: bytes) -> None:
        # Not struct.pack_into: that fills its target with zeros first, which others would read.
        self._map[at : at + len(data)] = data

    def _state(self, slot: int) -> WorkerState:
        record = self._read(slot)
        if record is None:
            return WorkerState(slot, 0, False, False, ("a worker is starting",), False, (), 0.0)
        return WorkerState(
            slot,
            int(record["pid"]),
            bool(record["serving"]),
            bool(record["ready"]),
            tuple(record["reasons"]),
            bool(record["draining"]),
            tuple(record["components"]),
            max(0.0, time.monotonic() - float(record["at"])),
        )

    def _read(self, slot: int) -> dict[str, Any] | None:
        """The record in *slot*; None when there is none or its writer died while it wrote."""
        at = self._at(slot)
        for _ in range(100):
            before, length = _RECORD.unpack_from(self._map, at)
            if before % 2 == 0:
                data = self._map[at + _RECORD.size : at + _RECORD.size + length]
                if _RECORD.unpack_from(self._map, at) == (before, length):
                    return json.loads(data) if length else None
            time.sleep(0.0005)
        return None

    def _write(self, slot: int, data: bytes) -> None:
        at = self._at(slot)
        sequence, _ = _RECORD.unpack_from(self._map, at)
        sequence += sequence % 2  # the one before was killed while it wrote
        self._store(at, _RECORD.pack(sequence + 1, len(data)))
        self._store(at + _RECORD.size, data)
        self._store(at, _RECORD.pack(sequence + 2, len(data)))

    def _mark_clean(self, slot: int, status: int) -> None:
        self._set_phase(slot, _CLEAN, status)


class Slot:
    """One worker's side of the board. Any thread of that worker may call."""

    def __init__(self, board: Board, index: int) -> None:
        self.board = board
        self.index = index
        self._writing = threading.Lock()  # guards the record: one writer at a time

    def publish(
        self,
        *,
        ready: bool,
        serving: bool = True,
        reasons: tuple[str, ...] = (),
        draining: bool = False,
        components: tuple[Mapping[str, Any], ...] = (),
    ) -> None:
        """Say how this worker is, for every worker to read."""
        record = {
            "pid": os.getpid(),
            "at": time.monotonic(),
            "serving": serving,
            "ready": ready,
            "reasons": reasons,
            "draining": draining,
            "components": components,
        }
        with self._writing:
            self.board._write(self.index, _fitting(record))

    def mark_clean(self, status: int) -> None:
        """Say that this worker ends in order, with exit *status*: whatever ends it from here on is no crash."""
        with self._writing:
            self.board._mark_clean(self.index, status)


def _fitting(record: dict[str, Any]) -> bytes:
    """*record* as JSON that fits a slot; the components go first when it does not."""
    data = json.dumps(record, default=str).encode()
    if len(data) <= SLOT_SIZE - _RECORD.size:
        return data
    cut = [{"name": c.get("name"), "state": c.get("state")} for c in record["components"]][:100]
    short = [str(reason)[:200] for reason in record["reasons"]][:20]
    return json.dumps({**record, "components": cut, "reasons": short}, default=str).encode()
