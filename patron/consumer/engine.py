"""
The consume engine: one thread that owns the subscription, and the workers that run the processor.

The owner polls, settles, extends leases and keeps the connection alive while processors are slow;
it never runs user code. It ends when it is told to stop, when a message demands it, or when the
source fails in a way that opening it again cannot help.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from time import monotonic
from typing import Any, cast

from patron.component import Stop, Verdict, Work
from patron.consumer.deadletters import DeadLetters
from patron.consumer.desk import TICK, Desk
from patron.consumer.hand import Hand
from patron.consumer.ledger import Ledger
from patron.consumer.metrics import ConsumerMetrics
from patron.consumer.policy import FailurePolicy
from patron.consumer.settings import ConsumerSettings
from patron.consumer.settling import Settler
from patron.consumer.source import Message, Revoked, Source, Subscription
from patron.consumer.state import State
from patron.consumer.tending import Tender
from patron.consumer.watching import Watcher
from patron.consumer.worker import Tools, Worker, describe
from patron.errors import NotASource, SourceError
from patron.observe import log
from patron.observe.instrument import Instrument
from patron.reasons import told

__all__ = ["Engine"]

IDLE_POLL = 0.1
"""The longest poll while nothing is in flight: how late a stop may be noticed."""

BUSY_POLL = 0.02
"""The longest poll of a source that cannot be woken while results may come in."""

KEEPALIVE = 0.2
"""How often a full consumer polls for nothing, to keep its connection."""

STEADY = 5.0
"""A connection that lived that long was a good one: the next reconnect starts without a wait."""

EXIT_GRACE = 5.0
"""How long work in flight may take when a message ends the consumer, before the stop sets the budget."""


class Engine:
    """
    One run of one consumer.

    `run` is the owner thread; `verdict`, `info` and `in_flight` may be called by any other.

    Args:
        name: the consumer's name.
        source: what it reads.
        process: called with a message, or with a sequence of them when the settings say batch.
        settings: how it works.
        clock: monotonic seconds, for retries and leases.
        now: seconds since the epoch, for ages and time stamps.
        on_caught_up: called once when everything is processed that was there at the first assignment.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        process: Callable[[Any], Any],
        settings: ConsumerSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        on_caught_up: Callable[[], object] | None = None,
    ) -> None:
        self._name = name
        self._source = source
        self._settings = settings
        self._clock = clock
        self._now = now
        self._metrics = ConsumerMetrics(name, source.target)
        self._hands = [Hand() for _ in range(settings.workers)]
        ledger = Ledger(source.positional, _LANES[settings.order])
        self._desk = Desk(
            ledger, self._hands, clock=clock, settle_at=max(1, settings.held // 4), batch=settings.batch
        )
        topic = settings.dead_letter_topic(name)
        self._letters = None if topic is None else DeadLetters(source, topic)
        self._state = State()
        tools = Tools(
            name=name,
            process=process,
            policy=FailurePolicy.of(
                settings.retry, settings.outcome, topic is not None, settings.max_deliveries
            ),
            dead_letters=self._letters,
            instrument=Instrument(
                "consumer",
                source.system,
                source.target,
                name=f"{source.system}-consumer {source.target}",
                tags={"component": f"{source.system}-consumer"},
            ),
            metrics=self._metrics,
            clock=clock,
            now=now,
            batched=settings.batch is not None,
            unburied=self._state.bury_later,
            dedupe=settings.batch is not None and settings.batch.dedupe,
        )
        self._workers = [
            Worker(f"{name}-worker-{number}", tools, self._desk, hand)
            for number, hand in enumerate(self._hands)
        ]
        self._watcher = Watcher(name, self._state, self._metrics, now, on_caught_up)
        self._settler = Settler(name, self._desk, self._metrics, clock, self._state.note)
        self._prepared = False
        self._reserve: float | None = None
        self._tender = Tender(name, source, self._desk, self._settler, self._watcher, clock)
        self._keep_alive_at = 0.0

    # Any thread

    @property
    def _held(self) -> int:
        """Messages received and not settled."""
        return self._tender.held

    def in_flight(self) -> list[Work]:
        """What the workers work on now."""
        held = ((hand, hand.current) for hand in self._hands)
        return [Work(describe(entries), hand.since, hand.thread) for hand, entries in held if entries]

    def info(self) -> dict[str, Any]:
        """The state, as JSON values."""
        state = self._state
        return {
            "state": state.phase,
            "connected": state.connected,
            "assigned": state.stats.assigned,
            "caught_up": state.caught_up,
            "lag": state.stats.lag,
            "held": self._held,
            "in_flight": self._desk.in_hand,
            "trouble": "; ".join(state.troubles()) or None,
        }

    def verdict(self) -> Verdict:
        """Whether the consumer makes the progress that its settings ask for, with what is wrong in any case."""
        return self._state.verdict(self._settings)

    # The owner thread

    def run(self, stop: Stop) -> None:
        """
        Consume until *stop* is set, then finish what is in flight within its budget.

        Raises:
            Exception: what a processor raised, when ``on_exhausted`` is ``exit``; what the source raised
                that is neither `ConnectionLost`, `Stale` nor another `SourceError` to be waited out.
        """
        started: list[Worker] = []
        try:
            for worker in self._workers:
                worker.start()
                started.append(worker)
            self._serve(stop)
        finally:
            self._desk.drain()
            self._end(started, self._until(stop))
        if self._desk.failure is not None:
            raise self._desk.failure

    def _serve(self, stop: Stop) -> None:
        failures = 0
        while not self._ending(stop):
            began = monotonic()
            try:
                self._session(stop)
            except NotASource:
                raise
            except SourceError as error:
                failures = 1 if monotonic() - began >= STEADY else failures + 1
                self._lost(error, failures)
                self._pause(stop, self._settings.reconnect.delay(failures))

    def _session(self, stop: Stop) -> None:
        """One connection, from opening to closing."""
        self._prepare()
        subscription = self._source.open()
        try:
            self._opened(subscription, stop)
            while not self._ending(stop):
                self._step(subscription)
            self._drain(subscription, self._until(stop))
        finally:
            self._desk.wake = None
            self._state.connected = False
            _listen(subscription, None)
            try:
                subscription.close()
            except Exception as error:  # noqa: BLE001 - it is over either way
                log.warn("subscription did not close", consumer=self._name, error=told(error))

    def _prepare(self) -> None:
        """Let the source look, until it found everything once, whether all is there that it needs."""
        prepare = getattr(self._source, "prepare", None)
        if prepare is not None and not self._prepared:
            prepare([self._letters.topic] if self._letters is not None else [])
        self._prepared = True

    def _step(self, subscription: Subscription) -> None:
        self._desk.tick()
        self._settler.settle(subscription)
        self._tender.tend(subscription)
        room = self._settings.held - self._held
        if self._settler.returning:
            # What a poll gives now would overtake it.
            self._keep_alive(subscription)
            self._desk.rest(BUSY_POLL)
        elif room > 0 and (room >= self._settings.held // 4 or self._desk.hungry):
            self._poll(subscription, room)
        elif not self._desk.make_room():
            self._keep_alive(subscription)
            self._desk.rest(BUSY_POLL)

    def _poll(self, subscription: Subscription, room: int) -> None:
        pressing = self._desk.begin_poll()
        try:
            received = subscription.poll(room, 0.0 if pressing else self._patience())
        finally:
            self._desk.end_poll()
        self._state.last_poll = monotonic()
        self._state.quiet = not (received or pressing)
        if received:
            self._receive(received)

    def _patience(self) -> float:
        """How long a poll may last: until something else is due, or the stop should be noticed."""
        wait = self._desk.patience()
        if wait is None:
            wait = IDLE_POLL if not self._settler.pending else TICK
        elif self._desk.wake is None:
            wait = min(wait, BUSY_POLL)
        return wait

    def _receive(self, received: Sequence[Message | Revoked]) -> None:
        if Revoked not in map(type, received):
            self._accept(cast("Sequence[Message]", received))
            return
        for item in received:
            if isinstance(item, Revoked):
                self._revoke(item.lanes)
            else:
                self._accept([item])

    def _accept(self, messages: Sequence[Message]) -> None:
        if not messages:
            return
        fixed = self._settings.decode_as
        if fixed is not None:
            for message in messages:
                message.decode_as = fixed
        again = sum([message.deliveries > 1 for message in messages])
        self._desk.receive(messages)
        self._metrics.count("received", len(messages))
        self._metrics.count("redelivered", again)
        oldest = messages[0].timestamp
        if oldest is not None:
            self._metrics.message_age.set(max(0.0, self._now() - oldest))

    def _revoke(self, lanes: frozenset[Hashable]) -> None:
        dropped = self._desk.revoke(lanes)
        self._settler.revoke(lanes)
        log.info("lanes were taken away", consumer=self._name, lanes=len(lanes), dropped=dropped)

    def _give_up(self, subscription: Subscription, stop: Stop, lanes: frozenset[Hashable]) -> None:
        """*lanes* must be given up: settle of them what can be in time, and forget the rest."""
        wait = self._settings.revoke_wait
        remaining = stop.remaining()
        until = monotonic() + (wait if remaining is None else min(wait, remaining))
        try:
            while self._desk.retire(lanes) and monotonic() < until:
                self._desk.rest(BUSY_POLL)
                self._settler.acknowledge(subscription)
            self._settler.acknowledge(subscription)
        except SourceError as error:
            log.warn("lanes given up before all was settled", consumer=self._name, error=told(error))
        self._revoke(lanes)

    # Connection

    def _keep_alive(self, subscription: Subscription) -> None:
        real = monotonic()
        if real >= self._keep_alive_at:
            self._keep_alive_at = real + KEEPALIVE
            received = subscription.poll(0, 0.0)
            self._state.last_poll = real
            if received:
                self._receive(received)

    def _opened(self, subscription: Subscription, stop: Stop) -> None:
        self._desk.wake = getattr(subscription, "wake", None)
        _listen(subscription, partial(self._give_up, subscription, stop))
        self._state.phase, self._state.connected = "running", True
        self._tender.begin()
        self._keep_alive_at = 0.0
        if self._state.failures:
            log.info("source is back", consumer=self._name, attempts=self._state.failures)
            self._state.failures = 0
        self._state.note(None)

    def _lost(self, error: SourceError, failures: int) -> None:
        """Forget what came over this connection: it will come again."""
        dropped = self._desk.reset() + self._settler.reset()
        self._metrics.errors.inc()
        self._state.phase, self._state.failures = "reconnecting", failures
        if self._state.trouble is None:
            log.warn(
                "source is lost, it is opened again", consumer=self._name, dropped=dropped, error=told(error)
            )
        self._state.note(f"source is lost: {error or type(error).__name__}")

    def _pause(self, stop: Stop, seconds: float) -> None:
        """Wait before opening again; stop, or a message that ends the consumer, ends the wait."""
        until = monotonic() + seconds
        while not self._ending(stop) and (left := until - monotonic()) > 0:
            self._desk.tick()
            stop.wait(min(left, IDLE_POLL))

    # The end

    def _ending(self, stop: Stop) -> bool:
        return stop.is_set() or self._desk.failure is not None

    def _until(self, stop: Stop) -> Callable[[], float]:
        """Seconds that work in flight still has; settling and closing get a tenth of the budget, at most 0.5 s."""
        began = monotonic()

        def left() -> float:
            remaining = stop.remaining()
            if remaining is None:
                return float("inf") if stop.is_set() else EXIT_GRACE - (monotonic() - began)
            if self._reserve is None:
                self._reserve = min(0.5, remaining * 0.1)
            return remaining - self._reserve

        return left

    def _drain(self, subscription: Subscription, left: Callable[[], float]) -> None:
        """Give back what has not started, and settle what ends in time; leases go on meanwhile."""
        self._state.phase = "draining"
        unstarted = self._desk.drain()
        self._metrics.count("given-back", unstarted)
        log.info("consumer stops", consumer=self._name, given_back=unstarted, in_flight=self._desk.in_hand)
        while True:
            self._desk.tick()
            idle = not self._desk.in_hand
            self._settler.settle(subscription)
            if (idle and not self._settler.pending) or left() <= 0:
                return
            self._tender.tend(subscription)
            self._keep_alive(subscription)
            self._desk.rest(BUSY_POLL)

    def _end(self, workers: Sequence[Worker], left: Callable[[], float]) -> None:
        for worker in workers:
            worker.join(max(0.0, min(left(), 3600.0)))
        self._watcher.join(max(0.0, min(left(), 3600.0)))
        if self._letters is not None:
            self._letters.close()
        self._state.phase = "ended"
        self._metrics.in_flight.set(0)
        self._metrics.assigned.set(0)


def _listen(subscription: Subscription, revoking: Callable[[frozenset[Hashable]], None] | None) -> None:
    if hasattr(subscription, "revoking"):
        subscription.revoking = revoking


_LANES: Mapping[str, Callable[[Message], Any] | None] = {
    "lane": None,
    "key": lambda message: message.key,
    "none": lambda message: None,
}
