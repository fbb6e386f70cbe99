"""A worker: runs the processor on what it takes from the desk, and says what became of each message."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

from patron import correlation
from patron.calling import refuse_awaitable
from patron.consumer.deadletters import DeadLetters
from patron.consumer.desk import Desk
from patron.consumer.entry import Entry, Verdict
from patron.consumer.hand import Hand
from patron.consumer.metrics import ConsumerMetrics, Tally
from patron.consumer.policy import Action, Decision, FailurePolicy
from patron.consumer.source import Message
from patron.errors import DecodeError, Reject
from patron.observe import log
from patron.observe.instrument import Instrument, Operation
from patron.observe.reporting import report_error
from patron.reasons import told
from patron.reliability.retry import RetryPolicy

__all__ = ["Tools", "Worker", "describe"]

COUNT_AT = 1024
COUNT_EVERY = 0.1
"""Metrics are added up for so many messages or seconds, for they are shared between all threads."""

_ALWAYS = float("inf")

_PUBLISHING = RetryPolicy(initial=0.1, cap=10.0)


@dataclass(frozen=True, slots=True)
class Tools:
    """What all workers of one consumer share."""

    name: str
    process: Callable[[Any], Any]
    policy: FailurePolicy
    dead_letters: DeadLetters | None
    instrument: Instrument
    metrics: ConsumerMetrics
    clock: Callable[[], float]
    now: Callable[[], float]
    batched: bool
    unburied: Callable[[str, float], None]
    dedupe: bool = False


class Worker:
    """
    One worker and its thread.

    Everything but `start` and `join` runs in that thread. A processor that raises anything at all,
    `SystemExit` too, has failed with its message; the thread goes on.
    """

    def __init__(self, name: str, tools: Tools, desk: Desk, hand: Hand) -> None:
        self.hand = hand
        self._tools = tools
        self._desk = desk
        self._start = tools.instrument.start
        self._process = partial(_as_batch, tools.process) if tools.batched else tools.process
        self._most = _ALWAYS if tools.policy.max_deliveries is None else tools.policy.max_deliveries
        self._tally = Tally(tools.metrics.processing)
        self._processed = 0
        self._counted = 0.0
        hand.pausing = self._count
        # A daemon, for a processor that hangs must not keep the process; it is joined all the same.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self, timeout: float) -> bool:
        """Wait at most *timeout* seconds for the thread; returns whether it ended."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        self.hand.thread = threading.get_ident()
        try:
            with log.with_context(consumer=self._tools.name):
                self._work()
        except BaseException as error:  # noqa: BLE001 - the thread's edge: the owner must learn of it
            self._desk.fail(error)

    def _work(self) -> None:
        pace: float | None = None
        while self._desk.next(self.hand, pace):
            pace = self._batches() if self._tools.batched else self._one_by_one()
            if self._processed >= COUNT_AT or monotonic() - self._counted > COUNT_EVERY:
                self._count()
        self._count()

    def _one_by_one(self) -> float:
        """Process the run; returns the seconds that a message took."""
        hand, one = self.hand, self._one
        take = hand.run.popleft
        started = monotonic()
        count = 0
        while True:
            try:
                entry = take()  # not asked before whether there is one: the owner may take it meanwhile
            except IndexError:
                break
            if entry.live:
                one(entry, hand)
                count += 1
            else:
                hand.done.append(entry)
        hand.current = None
        return (monotonic() - started) / max(1, count)

    def _one(self, entry: Entry, hand: Hand) -> None:
        message = entry.message
        operation = self._start(entry.headers or message.headers)
        hand.since = operation.started
        hand.current = (entry,)
        try:
            if message.deliveries > self._most or message.problem is not None or entry.verdict is not None:
                self._unprocessed(entry, operation)
            else:
                result = self._process(message)
                if result is not None:
                    refuse_awaitable(result)
                self._processed += 1
                hand.done.append(entry)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the failure of this message
            self._failed(entry, error, operation)
        finally:
            self._tally.add(operation.finish())

    def _unprocessed(self, entry: Entry, operation: Operation) -> None:
        """It is not one for the processor."""
        if entry.verdict is not None:
            self._bury(entry, entry.verdict)
        elif entry.message.problem is not None:
            raise DecodeError(entry.message.problem)
        else:
            self._refuse(entry, operation)

    def _refuse(self, entry: Entry, operation: Operation) -> None:
        """It was given out too often: it may be what killed the process that had it."""
        decision = self._tools.policy.refuse(entry.message.deliveries)
        error = Reject(decision.reason)
        operation.outcome = decision.status
        self._tools.metrics.count(decision.status)
        self._log(entry.message, entry.failures, error, decision)
        self._carry_out(entry, decision, error)

    def _failed(self, entry: Entry, error: BaseException, operation: Operation) -> None:
        decision = self._decide([entry], error, operation)
        self._log(entry.message, entry.failures, error, decision)
        self._carry_out(entry, decision, error)

    def _decide(self, entries: Sequence[Entry], error: BaseException, operation: Operation) -> Decision:
        """Note the failure of *entries*, which were tried together, and decide what becomes of them."""
        tools = self._tools
        now = tools.now()
        for entry in entries:
            entry.failures += 1
            entry.message.attempts = entry.failures
            entry.first_failure = now if entry.first_failure is None else entry.first_failure
        first = entries[0]
        failures = max(entry.failures for entry in entries)
        elapsed = max(0.0, now - (first.first_failure or now))
        decision = tools.policy.decide(error, failures, elapsed, first.message.deliveries)
        if decision.failure:
            operation.fail(error)
        else:
            operation.outcome = decision.status
        tools.metrics.count(decision.status, len(entries))
        return decision

    def _carry_out(self, entry: Entry, decision: Decision, error: BaseException) -> None:
        match decision.action:
            case Action.RETRY:
                self._keep_correlation(entry)
                self._desk.delay(self.hand, (entry,), decision.delay)
            case Action.SKIP:
                self.hand.done.append(entry)
            case Action.REQUEUE:
                self._tools.metrics.count("requeued")
                self._desk.give_back(self.hand, (entry,), decision.delay)
            case Action.EXIT:
                self._exit((entry,), error)
            case Action.DEAD_LETTER:
                self._keep_correlation(entry)
                self._bury(entry, Verdict(decision.reason, error))

    def _exit(self, entries: Sequence[Entry], error: BaseException) -> None:
        # The failure first: with the draining that it brings nothing else starts.
        self._desk.fail(error)
        self._desk.give_back(self.hand, entries, 0.0)

    def _bury(self, entry: Entry, verdict: Verdict) -> None:
        """Publish the dead letter, then count the message as done; else try again later, and never drop it."""
        letters = self._tools.dead_letters
        assert letters is not None
        try:
            copy = letters.publish(entry, verdict)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the message must stay
            self._unburied(entry, verdict, error)
        else:
            self.hand.done.append(entry)
            self._tools.metrics.count("dead-lettered")
            fields = {"topic": letters.topic, "message": str(entry.message), "dead_letter": copy}
            log.warn("message is a dead letter", reason=verdict.reason, attempts=entry.failures, **fields)

    def _unburied(self, entry: Entry, verdict: Verdict, error: BaseException) -> None:
        verdict.publish_failures += 1
        entry.verdict = verdict
        self._tools.metrics.errors.inc()
        delay = _PUBLISHING.delay(verdict.publish_failures)
        self._tools.unburied(told(error), delay)
        log.error(
            "dead letter not published, the message stays",
            message=str(entry.message),
            error=told(error),
            failures=verdict.publish_failures,
            next_try=round(delay, 3),
        )
        self._desk.delay(self.hand, (entry,), delay)

    def _keep_correlation(self, entry: Entry) -> None:
        """Let every try of a message, and its dead letter, carry one correlation id, also when it came without."""
        current = correlation.current()
        if current is None or entry.headers is not None:
            return
        name = correlation.settings().header
        rest = {key: value for key, value in entry.message.headers.items() if key.lower() != name.lower()}
        entry.headers = {**rest, name: current}

    def _log(self, message: Message, failures: int, error: BaseException, decision: Decision) -> None:
        fields = {"message": str(message), "attempts": failures, "deliveries": message.deliveries}
        if decision.action is Action.RETRY:
            log.warn(
                "message failed, it is tried again",
                error=told(error),
                delay=round(decision.delay, 3),
                **fields,
            )
        elif decision.failure:
            log.error("message failed", outcome=decision.action.value, exc_info=error, **fields)
            report_error(error, consumer=self._tools.name, **fields)
        else:
            log.info("message steered", outcome=decision.action.value, reason=decision.reason, **fields)

    # Batches

    def _batches(self) -> float:
        hand = self.hand
        entries = [hand.run.popleft() for _ in range(len(hand.run))]
        gone = [entry for entry in entries if not entry.live]
        hand.done.extend(gone)
        live = [entry for entry in entries if entry.live]
        if self._tools.dedupe:
            live = self._newest(live)
        if live:
            hand.since = monotonic()
            hand.current = live
            self._batch(live)
            hand.current = None
        return 0.0

    def _newest(self, entries: list[Entry]) -> list[Entry]:
        """The newest of each key, in their order, and what has no key; the others are done."""
        last = {entry.message.key: entry for entry in entries if not self._odd(entry)}
        last.pop(None, None)

        def kept(entry: Entry) -> bool:
            return last.get(entry.message.key, entry) is entry or self._odd(entry)

        newest = [entry for entry in entries if kept(entry)]
        self.hand.done.extend(entry for entry in entries if not kept(entry))
        self._tools.metrics.count("deduplicated", len(entries) - len(newest))
        return newest

    def _batch(self, entries: list[Entry]) -> None:
        if any(map(self._odd, entries)):
            self._isolate(entries)
            return
        headers = (entries[0].headers or entries[0].message.headers) if len(entries) == 1 else None
        operation = self._tools.instrument.start(headers, count=len(entries))
        alone: list[Entry] = []
        try:
            result = self._tools.process([entry.message for entry in entries])
            if result is not None:
                refuse_awaitable(result)
            self._processed += len(entries)
            self.hand.done.extend(entries)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the failure of this batch
            alone = self._batch_failed(entries, error, operation)
        finally:
            self._tally.add(operation.finish())
        if alone:
            self._isolate(alone)

    def _odd(self, entry: Entry) -> bool:
        message = entry.message
        return message.deliveries > self._most or message.problem is not None or entry.verdict is not None

    def _batch_failed(self, entries: list[Entry], error: BaseException, operation: Operation) -> list[Entry]:
        """Carry out what is decided for all of *entries*; returns them when each is to be tried alone."""
        decision = self._decide(entries, error, operation)
        if len(entries) == 1:
            self._log(entries[0].message, entries[0].failures, error, decision)
            self._carry_out(entries[0], decision, error)
            return []
        self._log_batch(entries, error, decision)
        match decision.action:
            case Action.RETRY:
                self._desk.delay(self.hand, entries, decision.delay)
            case Action.SKIP:
                self.hand.done.extend(entries)
            case _:
                return entries
        return []

    def _log_batch(self, entries: Sequence[Entry], error: BaseException, decision: Decision) -> None:
        alone = decision.action not in (Action.RETRY, Action.SKIP)
        outcome = "one by one" if alone else decision.action.value
        fields = {"messages": len(entries), "first": str(entries[0].message), "attempts": entries[0].failures}
        log.warn("batch failed", outcome=outcome, error=told(error), delay=round(decision.delay, 3), **fields)

    def _isolate(self, entries: list[Entry]) -> None:
        """Process *entries* one by one; at a stop they have not started."""
        if self._desk.draining:
            self._desk.give_back(self.hand, entries, 0.0)
            return
        self.hand.run.extend(entries)
        self._one_by_one()

    def _count(self) -> None:
        """Hand over what was counted; also when there is nothing more to do."""
        self._counted = monotonic()
        self._tally.flush()
        self._tools.metrics.count("processed", self._processed)
        self._processed = 0


def describe(entries: Sequence[Entry]) -> str:
    """What a worker works on, as a person reads it."""
    first = str(entries[0].message)
    return first if len(entries) == 1 else f"{first} and {len(entries) - 1} more"


def _as_batch(process: Callable[[Any], Any], message: Message) -> Any:
    return process((message,))
