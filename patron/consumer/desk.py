"""
The desk: where the owner of the subscription and the workers meet.

One lock around the ledger, two conditions: workers wait for messages, the owner waits for results.
Workers *take*, the owner does not hand out: handing each message over costs two switches of
threads, taking a run of messages costs one lock for the whole run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from time import monotonic

from patron.consumer.entry import Entry
from patron.consumer.hand import Hand
from patron.consumer.ledger import Ledger
from patron.consumer.settings import Batch
from patron.consumer.source import Message

__all__ = ["Desk"]

LONGEST_RUN = 64
"""How many messages a worker takes at most at once."""

SLICE = 0.002
"""How long a run should last, in seconds: long enough to make the lock cheap, short enough to be fair."""

STEAL_AFTER = 0.02
"""When one message keeps its worker longer than this, the others of its run go back to everybody."""

TICK = 0.05
"""The longest real wait while something is due on the engine's clock, which may be a fake one."""


class Desk:
    """
    The ledger between the owner and *workers* hands.

    Args:
        ledger: the messages; nobody else may touch it.
        hands: one per worker.
        clock: seconds, for what is due.
        settle_at: so many results are worth waking the owner while there is more to do.
        wake: interrupts a poll of the owner, if the source can be.
        batch: how a run is taken; None: message by message.
    """

    def __init__(
        self,
        ledger: Ledger,
        hands: Sequence[Hand],
        *,
        clock: Callable[[], float],
        settle_at: int,
        batch: Batch | None = None,
    ) -> None:
        self.wake: Callable[[], None] | None = None
        self._ledger = ledger
        self._hands = hands
        self._clock = clock
        self._settle_at = settle_at
        self._batch = batch
        # Guards the ledger and every field below.
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._results = threading.Condition(self._lock)
        self._idle = 0
        self._nacks: list[tuple[float, list[Message]]] = []
        self._stale = 0
        self._polling = False
        self._resting = False
        self._draining = False
        self._failure: BaseException | None = None
        self._pace = SLICE

    # The workers' side

    def next(self, hand: Hand, pace: float | None = None) -> bool:
        """
        Report what *hand* has done and fill its run; waits for work. False: there will be no more.

        *pace*: seconds that the last run took per message.
        """
        with self._lock:
            self._report(hand)
            if pace is not None:
                self._pace += 0.2 * (pace - self._pace)
            while not self._draining:
                run = self._take()
                if run:
                    hand.run.extend(run)
                    if self._ledger.startable and self._idle:
                        self._work.notify()
                    if self._ledger.settleable >= self._settle_at:
                        self._nudge()
                    return True
                if hand.pausing is not None:
                    hand.pausing()
                self._wait_for_work()
            self._nudge()
            return False

    def delay(self, hand: Hand, entries: Sequence[Entry], seconds: float) -> None:
        """*entries* start again in *seconds*; whatever *hand* has of their lanes waits with them."""
        with self._lock:
            self._hold_back(hand, entries)
            if self._draining:
                self._give_back(entries, 0.0)
            else:
                now = self._clock()
                self._ledger.delay(entries, now + seconds, now)
            self._nudge()

    def give_back(self, hand: Hand, entries: Sequence[Entry], seconds: float) -> None:
        """*entries* go back to the source for at least *seconds*."""
        with self._lock:
            self._hold_back(hand, entries)
            self._give_back(entries, seconds)
            self._nudge()

    def fail(self, error: BaseException) -> None:
        """The consumer must end with *error*; the first one counts."""
        with self._lock:
            self._failure = self._failure or error
            self._nudge()

    def _take(self) -> list[Entry]:
        ledger = self._ledger
        if self._batch is None:
            return ledger.take(self._run_length())
        return ledger.take(self._batch.size) if self._batch_wait() <= 0 else []

    def _run_length(self) -> int:
        share = -(-self._ledger.startable // len(self._hands))
        return max(1, min(LONGEST_RUN, share, int(SLICE / max(self._pace, 1e-6))))

    def _batch_wait(self) -> float:
        """Seconds until a batch may be taken; 0 when it may now, infinite when there is nothing."""
        ledger, batch = self._ledger, self._batch
        assert batch is not None
        if ledger.has_due or ledger.startable >= batch.size:
            return 0.0
        oldest = ledger.oldest_startable()
        return float("inf") if oldest is None else oldest + batch.wait - self._clock()

    def _wait_for_work(self) -> None:
        timeout = None
        if self._batch is not None:
            wait = self._batch_wait()
            timeout = None if wait == float("inf") else min(wait, TICK)
        self._idle += 1
        if self._pressing():
            self._nudge()
        self._work.wait(timeout)
        self._idle -= 1

    def _report(self, hand: Hand) -> None:
        done = hand.done
        if done:
            # One by one, for its thread may add to it meanwhile when the owner calls this.
            finished = [done.popleft() for _ in range(len(done))]
            self._stale += self._ledger.finish(finished, self._clock())

    def _hold_back(self, hand: Hand, entries: Sequence[Entry]) -> None:
        """Return what *hand* has not started of the ordered lanes of *entries*, so that nothing overtakes them."""
        self._report(hand)
        lanes = {entry.lane for entry in entries if entry.lane.ordered}
        if not lanes or not hand.run:
            return
        kept: list[Entry] = []
        held: list[Entry] = []
        while hand.run:
            entry = hand.run.popleft()
            (held if entry.lane in lanes else kept).append(entry)
        hand.run.extend(kept)
        self._ledger.untake(held, self._clock())

    def _give_back(self, entries: Sequence[Entry], seconds: float) -> None:
        messages = self._ledger.give_back(entries, self._clock())
        if messages:
            self._nacks.append((seconds, messages))
        if self._ledger.startable and self._idle:
            self._work.notify()

    # The owner's side

    def receive(self, messages: Iterable[Message]) -> None:
        """Let the workers have *messages*; those of a lane that goes back meanwhile go back behind it."""
        with self._lock:
            if self._nacks:
                messages = self._not_overtaking(messages)
            self._ledger.add(messages, self._clock())
            if self._idle:
                self._work.notify()

    def collect(self) -> tuple[list[Message], list[tuple[float, list[Message]]], int]:
        """What to ack, what to nack with which delay, and how many results came too late."""
        with self._lock:
            nacks, self._nacks = self._nacks, []
            stale, self._stale = self._stale, 0
            return self._ledger.settle(), nacks, stale

    def tick(self) -> None:
        """Start what is due, and take from slow workers what others could do."""
        with self._lock:
            self._ledger.promote(self._clock())
            self._relieve()
            if self._ledger.startable and self._idle:
                self._work.notify()

    def rest(self, timeout: float) -> None:
        """Wait at most *timeout* seconds for results."""
        with self._lock:
            if not self._pressing():
                self._resting = True
                self._results.wait(timeout)
                self._resting = False

    def begin_poll(self) -> bool:
        """From now on results interrupt the poll; returns whether some wait already."""
        with self._lock:
            self._polling = True
            return self._pressing()

    def end_poll(self) -> None:
        """The poll is over."""
        with self._lock:
            self._polling = False

    def patience(self) -> float | None:
        """How long the owner may poll, as far as the desk knows: 0 to settle, None without limit."""
        with self._lock:
            if self._pressing():
                return 0.0
            due = self._ledger.next_due
            soon = None if due is None else max(0.0, due - self._clock())
            busy = self._ledger.in_hand or self._ledger.settleable or due is not None
            return None if not busy else TICK if soon is None else min(TICK, soon)

    def make_room(self) -> int:
        """
        When nothing that is held may start but workers could: give back what waits behind a retry.

        Returns how many messages that are. Without it a few failing lanes would fill the prefetch
        and keep all the others from being fetched.
        """
        with self._lock:
            if not self._idle or self._ledger.startable:
                return 0
            given = self._ledger.yield_behind(self._clock())
            self._nacks += given
            return sum(len(messages) for _, messages in given)

    def retire(self, lanes: Collection[Hashable]) -> int:
        """Start nothing more of *lanes*, which must be given up; returns how many messages workers have of them."""
        with self._lock:
            for hand in self._hands:
                self._report(hand)
                self._take_back(hand)
            self._ledger.retire(lanes, self._clock())
            if self._ledger.startable and self._idle:
                self._work.notify()
            return self._ledger.in_hand_of(lanes)

    def revoke(self, lanes: Iterable[Hashable]) -> int:
        """The source took *lanes* away; returns how many messages were dropped."""
        with self._lock:
            gone = frozenset(lanes)
            self._nacks = [
                (seconds, [message for message in messages if message.lane not in gone])
                for seconds, messages in self._nacks
            ]
            return self._ledger.revoke(gone, self._clock())

    def forget(self, messages: Iterable[Message]) -> int:
        """*messages* are no longer ours; returns how many were held."""
        with self._lock:
            return self._ledger.forget(messages, self._clock())

    def reset(self) -> int:
        """The connection is gone, and with it everything received; returns how many messages that were."""
        with self._lock:
            self._nacks.clear()
            return self._ledger.reset(self._clock())

    def drain(self) -> int:
        """Nothing starts any more; what had not started will be nacked. Returns how many messages that are."""
        with self._lock:
            self._draining = True
            for hand in self._hands:
                self._take_back(hand)
            messages = self._ledger.drain(self._clock())
            if messages:
                self._nacks.append((0.0, messages))
            self._work.notify_all()
            return len(messages)

    def held(self) -> list[Message]:
        """Every message whose lease must go on."""
        with self._lock:
            return self._ledger.held()

    @property
    def size(self) -> int:
        """Messages received and not handed over for settling."""
        with self._lock:
            return self._ledger.size

    @property
    def in_hand(self) -> int:
        """Messages that workers have."""
        with self._lock:
            return self._ledger.in_hand

    @property
    def hungry(self) -> bool:
        """Whether a worker waits for something to do, or for a batch to fill."""
        wanted = 1 if self._batch is None else self._batch.size
        with self._lock:
            return self._idle > 0 and self._ledger.startable < wanted

    @property
    def draining(self) -> bool:
        """Whether nothing may start any more."""
        return self._draining

    @property
    def failure(self) -> BaseException | None:
        """Why the consumer must end, if it must."""
        return self._failure

    # Inside

    def _not_overtaking(self, messages: Iterable[Message]) -> list[Message]:
        """*messages* without what a poll fetched before it could know that their lanes go back."""
        lane_of = self._ledger.goes_back_with
        going = {lane_of(message): group for _, group in self._nacks for message in group}
        going.pop(None, None)
        kept = []
        for message in messages:
            group = going.get(lane_of(message))
            if group is None:
                kept.append(message)
            else:
                message.deliveries = max(0, message.deliveries - 1)
                group.append(message)
        return kept

    def _pressing(self) -> bool:
        """Whether the owner should settle now rather than wait."""
        if self._nacks or self._failure is not None:
            return True
        settleable = self._ledger.settleable
        return settleable >= self._settle_at or (
            settleable > 0 and self._idle > 0 and not self._ledger.startable
        )

    def _nudge(self) -> None:
        if self._resting:
            self._results.notify()
        elif self._polling and self.wake is not None:
            self._polling = False
            self.wake()

    def _relieve(self) -> None:
        late = monotonic() - STEAL_AFTER
        for hand in self._hands:
            if hand.current is not None and hand.since < late:
                self._report(hand)
                self._take_back(hand)

    def _take_back(self, hand: Hand) -> None:
        entries: list[Entry] = []
        while True:
            try:
                entries.append(hand.run.pop())
            except IndexError:
                break
        entries.reverse()
        self._ledger.untake(entries, self._clock())
