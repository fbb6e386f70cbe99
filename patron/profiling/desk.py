"""Where profiles are asked for: those of this process, and through files those of the run's other workers."""

from __future__ import annotations

import math
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

#: Seconds that another worker may take to notice that it is asked: it looks twice a second.
NOTICE = 5.0
#: Seconds that it may take beyond those of the profile, to put it together.
PATIENCE = 5.0
#: The same for a heap: millions of blocks take a second each.
HEAP_PATIENCE = 30.0
#: Seconds between two looks for its answer, and between two looks whether somebody still waits for a profile.
_LOOK, _GLANCE = 0.05, 0.25

#: Whether the one who wants a profile has gone away.
Gone = Callable[[], bool]


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


@dataclass(frozen=True, slots=True)
class _Question:
    """What another worker is asked, until when (monotonic seconds) it has to notice, and to answer."""

    worker: int
    process: int
    name: str
    noticed_by: float
    answered_by: float


class _Silent(ServiceUnavailable):
    """A worker that does not answer, or has ended."""


def _nobody_goes() -> bool:
    return False


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

    def take(self, wanted: Wanted, worker: int | None = None, gone: Gone = _nobody_goes) -> Profile:
        """
        The profile of *worker*; None is this one.

        Blocks for as long as it takes, less when the service stops, or when *gone*, which is asked four
        times a second, says that nobody waits for it.

        Raises:
            Conflict: that worker takes one already, or cannot take this one; the payload says why.
            NotFound: there is no such worker.
            ServiceUnavailable: the worker died meanwhile, stops, or does not answer in time.
        """
        if worker is None or worker == self.own:
            return self._signed(self._take(wanted, gone))
        question = self._ask(wanted, worker)
        try:
            return self._fetch(question, gone)
        finally:
            self._forget(question)

    def take_all(self, wanted: Wanted, gone: Gone = _nobody_goes) -> Profile:
        """
        One profile of all workers at the same time, as `take`; its samples have the label ``worker``.

        Workers that die meanwhile, or do not answer in time, are named as missing in it.
        """
        asked: list[_Question] = []
        try:
            asked += [self._ask(wanted, worker) for worker in self.workers().keys() - {self.own}]
            whole = self.take(wanted, gone=gone)
            whole.label("worker", str(self.own))
            for question in asked:
                self._add(whole, question, gone)
        finally:
            for question in asked:
                self._forget(question)
        return whole

    def _add(self, whole: Profile, question: _Question, gone: Gone) -> None:
        try:
            part = self._fetch(question, gone)
        except _Silent as error:
            whole.missing.append(f"left out: {str(error.payload).strip()}")
            return
        part.label("worker", str(question.worker))
        whole.merge(part)

    def _signed(self, profile: Profile) -> Profile:
        profile.comments.append(f"worker {self.own}, process {os.getpid()}")
        return profile

    def _take(self, wanted: Wanted, gone: Gone) -> Profile:
        if wanted.kind == "threads":
            return threads.snapshot()
        if not _turn.lock.acquire(blocking=False):
            left = max(1, math.ceil(_turn.ends - time.monotonic()))
            raise Conflict(
                f"worker {self.own} takes a profile already: try again in {left} s\n",
                headers={"Retry-After": str(left)},
            )
        try:
            _turn.ends = time.monotonic() + wanted.seconds
            return _TAKERS[wanted.kind](wanted, _Wait(self._stop, gone))
        finally:
            _turn.lock.release()

    # The other workers.

    def _ask(self, wanted: Wanted, worker: int) -> _Question:
        """Leave the question for *worker*."""
        process = self.workers().get(worker)
        if process is None or self._post is None:
            known = ", ".join(map(str, self.workers()))
            raise NotFound(f"there is no worker {worker}: use one of {known}, or all\n")
        now = time.monotonic()
        patience = HEAP_PATIENCE if wanted.kind == "heap" else PATIENCE
        try:
            name = self._post.ask(process, asdict(wanted))
        except OSError as error:  # a full disk
            raise ServiceUnavailable(f"worker {worker} cannot be asked: {error.strerror}\n") from error
        return _Question(worker, process, name, now + NOTICE, now + NOTICE + wanted.seconds + patience)

    def _fetch(self, question: _Question, gone: Gone) -> Profile:
        assert self._post is not None
        while (answer := self._post.answer(question.name)) is None:
            self._check(question, gone)
        if "error" in answer:
            raise HTTPError(answer["error"], status=answer["status"], headers=answer["headers"])
        return Profile.from_json(answer)

    def _forget(self, question: _Question) -> None:
        assert self._post is not None
        self._post.forget(question.name)

    def _check(self, question: _Question, gone: Gone) -> None:
        """Wait a little; raises when there is nothing to wait for."""
        assert self._post is not None
        if self._stop.wait(_LOOK):
            raise ServiceUnavailable("the service stops\n")
        if gone():
            raise ServiceUnavailable("nobody waits for the profile any more\n")
        who = f"worker {question.worker} (process {question.process})"
        if self._workers().get(question.worker) != question.process:
            raise _Silent(f"{who} has ended meanwhile\n")
        read = self._post.is_read(question.name)
        if time.monotonic() > (question.answered_by if read else question.noticed_by):
            raise _Silent(f"{who} does not answer\n")

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
        post = self._post
        post.reply(question, self._result(wanted, lambda: not post.is_wanted(question)))

    def _result(self, wanted: Mapping[str, Any], gone: Gone) -> Mapping[str, Any]:
        try:
            return self.take(Wanted(**wanted), gone=gone).to_json()
        except HTTPError as error:
            return {"error": error.payload, "status": error.status, "headers": error.headers}
        except Exception as error:  # noqa: BLE001 - the edge of the thread: whoever asked is told
            text = f"the profile failed: {type(error).__name__}: {error}\n"
            return {"error": text, "status": 500, "headers": {}}

    # Stopping.

    def stop(self) -> None:
        """End every profile now; those that wait for one get what there is."""
        self._stop.set()

    def working(self) -> bool:
        """Whether a question of another worker is still being answered."""
        return any(thread.is_alive() for thread in list(self._answering))


class _Turn:
    """Whose turn it is to take a profile of this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # held meanwhile; guards the writing of ends
        self.ends = 0.0  # monotonic seconds


_turn = _Turn()


class _Wait:
    """Waits so many seconds; true when the profile is to end now. The thread that takes it owns this."""

    def __init__(self, stop: threading.Event, gone: Gone) -> None:
        self._stop = stop
        self._gone = gone
        self._look = 0.0

    def __call__(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not self._stop.is_set() and not self._is_gone():
            left = end - time.monotonic()
            if left <= 0:
                return False
            self._stop.wait(min(left, _GLANCE))
        return True

    def _is_gone(self) -> bool:
        now = time.monotonic()
        if now < self._look:
            return False
        self._look = now + _GLANCE
        return self._gone()


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
