"""Where profiles are asked for: those of this process, and through files those of the run's other workers."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from patron.errors import Conflict, HTTPError, NotFound, ServiceUnavailable
from patron.profiling import clocks, heap, sampler, threads
from patron.profiling.model import Profile
from patron.profiling.post import Post

__all__ = ["Profiler", "Wanted"]

#: Seconds that another worker may take beyond those of the profile: to notice, and to put it together.
PATIENCE = 60.0
#: Seconds between two looks for its answer.
_LOOK = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """
    What is to be profiled.

    Args:
        kind: ``cpu``, ``wall``, ``heap`` or ``threads``.
        seconds: how long; 0 for a heap as it is now.
        hz: samples in a second.
        frames: calls that are kept of each allocation.
        collect: whether to collect garbage before looking at the heap.
    """

    kind: str
    seconds: float = 0.0
    hz: float = 100.0
    frames: int = 16
    collect: bool = False


class Profiler:
    """
    Takes the profiles of one process; one at a time. Any thread may call.

    Args:
        directory: where the workers of a run leave messages for each other; None: this one stands alone.
        own: the number of this worker.
        workers: number → process id of every worker that can be asked now.
    """

    def __init__(
        self,
        directory: Path | None = None,
        own: int = 0,
        workers: Callable[[], Mapping[int, int]] = dict,
    ) -> None:
        self.own = own
        self._post = Post(directory) if directory is not None else None
        self._workers = workers
        self._stop = threading.Event()
        self._answering: list[threading.Thread] = []  # the thread that polls owns it

    def workers(self) -> dict[int, int]:
        """Number → process id of this worker and of every other that can be asked."""
        return dict(sorted({**self._workers(), self.own: os.getpid()}.items()))

    def take(self, wanted: Wanted, worker: int | None = None) -> Profile:
        """
        The profile of *worker*; None is this one. Blocks for as long as it takes, less when the service stops.

        Raises:
            Conflict: that worker takes one already, or cannot take this one; the payload says why.
            NotFound: there is no such worker.
            ServiceUnavailable: the worker died meanwhile, or stops.
        """
        if worker is None or worker == self.own:
            return self._signed(self._take(wanted))
        return self._fetch(worker, self._ask(wanted, worker), wanted.seconds)

    def take_all(self, wanted: Wanted) -> Profile:
        """One profile of all workers at the same time, as `take`; its samples have the label ``worker``."""
        asked: dict[int, str] = {}
        try:
            for worker in self.workers().keys() - {self.own}:
                asked[worker] = self._ask(wanted, worker)
            whole = self.take(wanted)
            whole.label("worker", str(self.own))
            for worker, question in asked.items():
                part = self._fetch(worker, question, 0.0)
                part.label("worker", str(worker))
                whole.merge(part)
        finally:
            for question in asked.values():
                self._forget(question)
        return whole

    def _signed(self, profile: Profile) -> Profile:
        profile.comments.append(f"worker {self.own}, process {os.getpid()}")
        return profile

    def _take(self, wanted: Wanted) -> Profile:
        if wanted.kind == "threads":
            return threads.snapshot()
        if not _one_at_a_time.acquire(blocking=False):
            raise Conflict(f"worker {self.own} takes a profile already: try again when that is done\n")
        try:
            return _TAKERS[wanted.kind](wanted, self._stop.wait)
        finally:
            _one_at_a_time.release()

    # The other workers.

    def _ask(self, wanted: Wanted, worker: int) -> str:
        """Leave the question for *worker*; returns the name that it goes by."""
        process = self.workers().get(worker)
        if process is None or self._post is None:
            known = ", ".join(map(str, self.workers()))
            raise NotFound(f"there is no worker {worker}: use one of {known}, or all\n")
        return self._post.ask(process, asdict(wanted))

    def _fetch(self, worker: int, question: str, seconds: float) -> Profile:
        assert self._post is not None
        deadline = time.monotonic() + seconds + PATIENCE
        try:
            while (answer := self._post.answer(question)) is None:
                self._check(worker, question, deadline)
        finally:
            self._forget(question)
        if "error" in answer:
            raise HTTPError(answer["error"], status=answer["status"])
        return Profile.from_json(answer)

    def _forget(self, question: str) -> None:
        assert self._post is not None
        self._post.forget(question)

    def _check(self, worker: int, question: str, deadline: float) -> None:
        """Wait a little; raises when there is nothing to wait for."""
        if self._stop.wait(_LOOK):
            raise ServiceUnavailable("the service stops\n")
        process = Post.addressee(question)
        if self._workers().get(worker) != process:
            raise ServiceUnavailable(f"worker {worker} (process {process}) has ended meanwhile\n")
        if time.monotonic() > deadline:
            raise ServiceUnavailable(f"worker {worker} (process {process}) does not answer\n")

    def poll(self) -> None:
        """Answer what other workers ask; some thread of each worker calls it twice a second, and it returns at once."""
        self._answering = [thread for thread in self._answering if thread.is_alive()]
        for question, wanted in self._post.questions() if self._post is not None else ():
            thread = threading.Thread(
                target=self._answer, args=(question, wanted), name="patron-profile", daemon=True
            )
            self._answering.append(thread)
            thread.start()

    def _answer(self, question: str, wanted: Mapping[str, Any]) -> None:
        assert self._post is not None
        self._post.reply(question, self._result(wanted))

    def _result(self, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            return self.take(Wanted(**wanted)).to_json()
        except HTTPError as error:
            return {"error": error.payload, "status": error.status}
        except Exception as error:  # noqa: BLE001 - the edge of the thread: whoever asked is told
            return {"error": f"the profile failed: {type(error).__name__}: {error}\n", "status": 500}

    # Stopping.

    def stop(self) -> None:
        """End every profile now; those that wait for one get what there is."""
        self._stop.set()

    def working(self) -> bool:
        """Whether a question of another worker is still being answered."""
        return any(thread.is_alive() for thread in list(self._answering))


# Held while a profile of this process is taken.
_one_at_a_time = threading.Lock()


def _heap(wanted: Wanted, wait: sampler.Wait) -> Profile:
    if wanted.seconds:
        return heap.allocated(wanted.seconds, wanted.frames, wait, collect=wanted.collect)
    return heap.in_use(collect=wanted.collect)


def _cpu(wanted: Wanted, wait: sampler.Wait) -> Profile:
    if not clocks.SUPPORTED:
        raise Conflict("only Linux tells how much CPU time each thread uses: take mode=wall\n")
    return sampler.sample(wanted.seconds, wanted.hz, wait)


_TAKERS: Mapping[str, Callable[[Wanted, sampler.Wait], Profile]] = {
    "cpu": _cpu,
    "wall": lambda wanted, wait: sampler.sample(wanted.seconds, wanted.hz, wait, wall=True),
    "heap": _heap,
}
