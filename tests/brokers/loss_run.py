"""One run of losses.py: a subject, its services, what they recorded, and what must hold of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from brokers.loss_service import Jump, LossService, Record, Records
from brokers.loss_sources import SUBJECTS
from brokers.loss_subject import LANES, Subject

#: Without progress for so long, the rest is lost.
PATIENCE = 90.0
#: Seconds after a broker is back in which its crash may show.
AFTERMATH = 15.0
RETRY = {"attempts": 6, "initial": 0.01, "cap": 0.05}


class Run:
    """A subject with what its services recorded; prints as it goes."""

    def __init__(self, subject: Subject, folder: Path) -> None:
        self.subject = subject
        self.folder = folder
        self.records = Records(folder / "records.txt")
        self.failures: list[str] = []
        self.published = 0  # of each lane
        self.wanted = 0
        self.kills: list[tuple[float, float]] = []  # of anything: from when to when
        self.interruptions: list[tuple[float, float]] = []  # of the broker, until it was back
        self._begun = time.monotonic()

    def service(
        self, name: str = "service", *, errors: float = 0.0, seconds: float = 0.0, **changed: object
    ) -> LossService:
        source = {**self.subject.source(), **changed}
        settings = {"environment": self.subject.environment, "retry": RETRY, **self.subject.consumer}
        return LossService(self.folder, source, errors=errors, seconds=seconds, name=name, **settings)

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self._begun:7.1f} s  {text}", flush=True)

    def table(self, **values: object) -> None:
        for name, value in values.items():
            print(f"    {name.replace('_', ' '):34} {value}")
        sys.stdout.flush()

    def check(self, holds: object, what: str, *details: str) -> None:
        if not holds:
            self.failures.append(what)
            print("\n        ".join([f"    FAILED: {what}", *details[:5]]))

    def publish(self, each: int) -> None:
        """Publish *each* messages to every lane: at once, or little by little, as the subject can take them."""
        self.wanted = each
        if self.subject.backlog_limit is None:
            self.subject.publish(0, each)
            self.published = each
        self.say(f"{self.published * LANES} of {each * LANES} messages published")

    def _feed(self, done: int) -> None:
        limit = self.subject.backlog_limit or 0
        if self.published < self.wanted and self.published * LANES - done < limit:
            self.subject.publish(self.published, 1)
            self.published += 1

    def until(
        self, predicate: Callable[[], bool], what: str, service: LossService, patience: float = PATIENCE
    ) -> None:
        """Wait for it as long as messages are processed; the end of the service's log when it does not come."""
        seen, since = -1, time.monotonic()
        while not predicate():
            done = self.records.update()
            self._feed(done)
            if done != seen:
                seen, since = done, time.monotonic()
            if time.monotonic() - since > patience or not service.running:
                raise RuntimeError(f"not {what}, {done} processed, the service says:\n{service.tail()}")
            time.sleep(0.02)

    def processed(self, count: int) -> Callable[[], bool]:
        return lambda: self.records.update() >= count

    def settled(self, service: LossService, total: int) -> None:
        """Wait until all is processed, and stop the service, which acknowledges what it finished."""
        self.until(self.processed(total), f"all {total} processed", service)
        # The last kill may have come together with the last message: then the next process has yet to start,
        # and to repeat what was not acknowledged.
        service.wait_ready()
        end = time.monotonic() + PATIENCE
        while self.subject.backlog() and time.monotonic() < end:
            time.sleep(0.2)
        status = service.stop()
        self.check(status == 0, f"the service ended with {status} after SIGTERM")
        self.records.update()

    @contextmanager
    def killing(self) -> Iterator[None]:
        """What happens in the block may make messages come again."""
        begun = time.monotonic()
        yield
        self.kills.append((begun, time.monotonic()))

    def interrupt(self) -> str:
        with self.killing():
            what = self.subject.interrupt()
        self.interruptions.append(self.kills[-1])
        return what

    def check_repeats(self) -> None:
        """Every repeat has its kill: it was held then, or had been processed shortly before and was not committed."""
        again, held = self.records.duplicates, len(self.kills) * self.subject.prefetch
        self.table(kills_times_prefetch=held)
        if not self.subject.commit_delay:
            self.check(again <= held, f"{again} repeats are more than {held}")
            return
        ages = [self._age(before, after) for before, after in self.records.repeats()]
        self.table(seconds_from_processing_a_repeat_to_its_kill=f"{max(ages, default=0.0):.2f} at most")
        late = sum(age > self.subject.commit_delay for age in ages)
        self.check(
            not late, f"{late} were not committed {self.subject.commit_delay:g} s after they were processed"
        )

    def _age(self, before: Record, after: Record) -> float:
        """How long *before* had been processed when something was killed; 0 for while the broker was away."""
        kills = [(begun, end) for begun, end in self.kills if begun <= after.at and before.at <= end]
        return min((max(0.0, begun - before.at) for begun, _ in kills), default=float("inf"))

    def _explained(self, jump: Jump) -> bool:
        """Whether a subject that may do so was just killed, and gave out what is new before what had been held."""
        near = (begun <= jump.record.at <= back + AFTERMATH for begun, back in self.interruptions)
        return self.subject.overtakes and any(near)

    def common(self, total: int) -> None:
        """What holds in every test."""
        records, subject = self.records, self.subject
        lost = total - len(records.ends)
        left, dead, disorder = subject.backlog(), subject.dead(), records.disorder()
        self.table(
            sent=total,
            distinct_processed=len(records.ends),
            lost=lost,
            dead_lettered=dead,
            processed_again=records.duplicates,
            most_deliveries=records.most_deliveries,
            not_acknowledged_at_the_end=left,
            out_of_order=len(disorder),
        )
        unexplained = [str(jump) for jump in disorder if not self._explained(jump)]
        most = len(self.interruptions) * LANES
        if subject.overtakes:
            self.table(out_of_order_without_a_kill_of_the_broker=len(unexplained))
        self.check(lost == 0, f"{lost} were lost")
        self.check(left == 0, f"{left} were processed and not acknowledged")
        self.check(dead == 0, f"{dead} good messages became dead letters")
        self.check(not unexplained, "messages were processed before their predecessors", *unexplained)
        self.check(
            not subject.overtakes or len(disorder) <= most, f"more than one for each lane and kill: {most}"
        )


@contextmanager
def running(name: str, folder: Path) -> Iterator[Run]:
    """A run on the subject called *name*, whose services and server end with the block."""
    subject = SUBJECTS[name](folder)
    run = Run(subject, folder)
    made: list[LossService] = []
    make = run.service

    def service(*args: object, **kwargs: object) -> LossService:
        made.append(make(*args, **kwargs))
        return made[-1]

    run.service = service
    try:
        subject.start()
        yield run
    finally:
        for each in made:
            if each.running:
                each.kill()
        subject.close()
