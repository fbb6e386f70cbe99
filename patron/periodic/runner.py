"""One run of a function: its tries under one correlation id, observed, and how it ended."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from patron import correlation
from patron.calling import refuse_awaitable
from patron.component import Stop
from patron.errors import Reject, Retry, Skip
from patron.observe import Instrument, Operation, log, report_error
from patron.periodic.metrics import TRIES, last_success, runs
from patron.periodic.settings import PeriodicSettings
from patron.reasons import told
from patron.reliability.deadline import deadline, remaining

__all__ = ["Ended", "Runner"]

Status = Literal["succeeded", "failed", "skipped", "stopped"]


@dataclass(frozen=True, slots=True)
class Ended:
    """A run ended like this; *error* is why it failed."""

    status: Status
    tries: int
    error: BaseException | None = None


class Runner:
    """Runs *function* as the *settings* say; one thread owns it. The function may raise anything at all."""

    def __init__(
        self,
        settings: PeriodicSettings,
        function: Callable[[], Any],
        clock: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._function = function
        self._clock = clock
        self._now = now
        self._instrument = Instrument(
            "internal", "periodic", settings.name, metrics=TRIES, labels={"name": settings.name}
        )

    def run(self, stop: Stop) -> Ended:
        """Try it until it succeeds or is out of tries; *stop* ends the wait between two tries at once."""
        with correlation.use(correlation.new_id()), deadline(self._settings.deadline, self._clock):
            ended = self._tries(stop)
            self._record(ended)
        return ended

    def _tries(self, stop: Stop) -> Ended:
        started = self._clock()
        for tries in itertools.count(1):
            result = self._try(tries, started)
            if isinstance(result, Ended):
                return result
            if stop.wait(result):
                log.info("run given up, the service stops", tries=tries)
                return Ended("stopped", tries)
        raise AssertionError("never reached")

    def _try(self, tries: int, started: float) -> Ended | float:
        """How the run ended with this try, or the seconds until the next one."""
        operation = self._instrument.start()
        try:
            refuse_awaitable(self._function())
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the failure of this run
            return self._failed(error, tries, started, operation)
        finally:
            operation.finish()
        return Ended("succeeded", tries)

    def _failed(
        self, error: BaseException, tries: int, started: float, operation: Operation
    ) -> Ended | float:
        if isinstance(error, Skip):
            operation.outcome = "skipped"
            log.info("run skipped", reason=str(error))
            return Ended("skipped", tries)
        _note(operation, error)
        delay = self._delay(error, tries)
        if isinstance(error, Reject) or self._exhausted(tries, self._clock() - started, delay):
            return self._give_up(error, tries)
        log.warn("run failed, it is tried again", error=told(error), tries=tries, delay=round(delay, 3))
        return delay

    def _delay(self, error: BaseException, tries: int) -> float:
        if isinstance(error, Retry) and error.delay is not None:
            return max(0.0, error.delay)
        return self._settings.retry.delay(tries)

    def _exhausted(self, tries: int, elapsed: float, delay: float) -> bool:
        left = remaining()
        return self._settings.retry.exhausted(tries, elapsed + delay) or (left is not None and left <= delay)

    def _give_up(self, error: BaseException, tries: int) -> Ended:
        fields: Mapping[str, Any] = {"tries": tries, "outcome": self._settings.on_exhausted}
        log.error("run failed", exc_info=error, **fields)
        report_error(error, periodic=self._settings.name, **fields)
        return Ended("failed", tries, error)

    def _record(self, ended: Ended) -> None:
        runs.bind(name=self._settings.name, status=ended.status).inc()
        if ended.status == "succeeded":
            last_success.bind(name=self._settings.name).set(self._now())


def _note(operation: Operation, error: BaseException) -> None:
    """A function that steers has not failed."""
    match error:
        case Retry():
            operation.outcome = "retried"
        case Reject():
            operation.outcome = "rejected"
        case _:
            operation.fail(error)
