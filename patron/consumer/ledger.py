"""
The ledger: a pure data structure that knows which messages may start, and which may be settled.

It has no thread, no lock and no clock inside; whoever shares it between threads locks around it.
A *lane* is what order holds within. Messages of one lane start one after another, in the order in
which they came; lanes are independent. What a positional source commits is the highest contiguous
run of finished messages of its partition, whatever finished behind a gap. Every operation costs
O(1) for each message that it names; `revoke`, `drain` and giving back on a positional source may
look at everything that is held, which back-pressure bounds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from heapq import heappop, heappush

from patron.consumer.entry import DELAYED, DONE, TAKEN, WAITING, Entry, Lane, by_lane
from patron.consumer.source import Message

__all__ = ["Ledger"]


class Ledger:
    """
    Which messages may start, and which may be settled.

    Args:
        positional: only contiguous runs within a source lane may be settled.
        lane_of: the lane that order holds within; None means no order. Default: the message's own.
    """

    def __init__(
        self, positional: bool = False, lane_of: Callable[[Message], Hashable] | None = None
    ) -> None:
        self._positional = positional
        self._lane_of = lane_of
        self._lanes: dict[Hashable, Lane] = {}
        self._ready: deque[Lane] = deque()
        self._startable = 0
        self._entries: dict[Entry, None] = {}
        self._windows: dict[Hashable, deque[Entry]] = {}
        self._finished: list[Message] = []
        self._delayed: list[tuple[float, int, list[Entry]]] = []
        self._due: deque[list[Entry]] = deque()
        self._sequence = 0
        self._in_hand = 0

    # What it knows

    @property
    def size(self) -> int:
        """Messages that were received and are not yet handed over by `settle`: what back-pressure counts."""
        return len(self._entries) + len(self._finished)

    @property
    def startable(self) -> int:
        """Messages that `take` could hand out now, as far as lanes allow it."""
        return self._startable + len(self._due)

    @property
    def in_hand(self) -> int:
        """Entries that were taken and neither finished, delayed, given back nor returned unstarted."""
        return self._in_hand

    @property
    def settleable(self) -> int:
        """Messages that `settle` would return."""
        return len(self._finished)

    @property
    def next_due(self) -> float | None:
        """When the next delayed entry may start; None when none is delayed."""
        return self._delayed[0][0] if self._delayed else None

    @property
    def has_due(self) -> bool:
        """Whether delayed entries may start now."""
        return bool(self._due)

    def oldest_startable(self) -> float | None:
        """Since when the first lane in line could have started; None when nothing can."""
        return self._ready[0].since if self._ready else None

    def held(self) -> list[Message]:
        """Every message that is neither finished nor given back, for extending leases."""
        return [entry.message for entry in self._entries if entry.live and entry.state != DONE]

    def in_hand_of(self, lanes: Collection[Hashable]) -> int:
        """How many entries of these lanes of the source workers have."""
        taken = (entry for entry in self._entries if entry.state == TAKEN)
        return sum(1 for entry in taken if entry.message.lane in lanes)

    # In, and out to the workers

    def add(self, messages: Iterable[Message], now: float) -> list[Entry]:
        """Receive *messages*, in the order in which their lanes hold."""
        lanes, lane_of = self._lanes, self._lane_of
        entries: list[Entry] = []
        lane: Lane | None = None
        for message in messages:
            key = message.lane if lane_of is None else lane_of(message)
            # Mostly they come in rows of one lane.
            if lane is None or key is not lane.key:
                lane = lanes.get(key)
                if lane is None:
                    lane = lanes[key] = Lane(key)
            entry = Entry(message, lane, now)
            entries.append(entry)
            lane.queue.append(entry)
            if lane.listed:
                self._startable += 1
            elif not (lane.ordered and lane.held):
                self._list(lane, now)
        self._entries.update(dict.fromkeys(entries))
        if self._positional:
            self._extend_windows(entries)
        return entries

    def _extend_windows(self, entries: Iterable[Entry]) -> None:
        windows = self._windows
        source_lane: Hashable = None
        window: deque[Entry] | None = None
        for entry in entries:
            if window is None or entry.message.lane is not source_lane:
                source_lane = entry.message.lane
                window = windows.get(source_lane)
                if window is None:
                    window = windows[source_lane] = deque()
            window.append(entry)

    def take(self, limit: int) -> list[Entry]:
        """
        At most *limit* entries to work on one after another; empty when nothing may start.

        Entries that were delayed together come back together, whatever *limit* says.
        """
        if self._due:
            group = self._due.popleft()
            for entry in group:
                entry.state = TAKEN
            self._in_hand += len(group)
            return group
        run: list[Entry] = []
        ready = self._ready
        while ready and len(run) < limit:
            self._take_from(ready[0], limit, run)
        self._in_hand += len(run)
        return run

    def _take_from(self, lane: Lane, limit: int, run: list[Entry]) -> None:
        queue = lane.queue
        waiting = len(queue)
        count = min(waiting, limit - len(run))
        taken = [queue.popleft() for _ in range(count)]
        for entry in taken:
            entry.state = TAKEN
        run += taken
        lane.held += count
        if lane.ordered or count == waiting:
            self._ready.popleft()
            lane.listed = False
            self._startable -= waiting
        else:
            self._startable -= count
            lane.since = queue[0].since

    # Back from the workers

    def finish(self, entries: Sequence[Entry], now: float = 0.0) -> int:
        """*entries* are done and may be settled; returns how many of them had been taken away meanwhile."""
        self._in_hand -= len(entries)
        done = [entry for entry in entries if entry.live]
        for entry in entries:
            entry.state = DONE
        if self._positional:
            for source_lane in {entry.message.lane for entry in done}:
                self._advance(source_lane)
        else:
            for entry in done:
                del self._entries[entry]
            self._finished += [entry.message for entry in done]
        for lane, count in by_lane(entries):
            self._release(lane, now, count)
        return len(entries) - len(done)

    def untake(self, entries: Sequence[Entry], now: float = 0.0) -> None:
        """*entries* were taken and not started: they wait again, in front of their lanes."""
        for entry in reversed(entries):
            self._in_hand -= 1
            lane = entry.lane
            if entry.live:
                entry.state = WAITING
                lane.queue.appendleft(entry)
                if lane.listed:
                    self._startable += 1
            self._release(lane, now)

    def delay(self, entries: Sequence[Entry], due: float, now: float = 0.0) -> None:
        """*entries* start again together, not before *due*; until then their lanes wait and others go on."""
        self._in_hand -= len(entries)
        kept = []
        for entry in entries:
            entry.state = DELAYED
            if entry.live:
                kept.append(entry)
            else:
                self._release(entry.lane, now)
        if kept:
            self._sequence += 1
            heappush(self._delayed, (due, self._sequence, kept))

    def promote(self, now: float) -> int:
        """Let the delayed entries whose time has come start; returns how many groups may."""
        promoted = 0
        while self._delayed and self._delayed[0][0] <= now:
            group = [entry for entry in heappop(self._delayed)[2] if entry.live]
            if group:
                self._due.append(group)
                promoted += 1
        return promoted

    def give_back(self, entries: Sequence[Entry], now: float = 0.0) -> list[Message]:
        """
        Forget *entries*, which were taken; returns the messages to be nacked, in order.

        What waits behind them in an ordered lane goes with them, or it would overtake them. On a
        positional source that is everything that came later in its lane, for the source goes back
        to the first of them.
        """
        self._in_hand -= len(entries)
        lanes = dict.fromkeys(entry.lane for entry in entries if entry.lane.ordered)
        behind = [entry for lane in lanes for entry in lane.queue]
        messages = self._forget([*entries, *behind], now)
        for entry in entries:
            entry.state = DONE
            self._release(entry.lane, now)
        return messages

    def yield_behind(self, now: float = 0.0) -> list[tuple[float, list[Message]]]:
        """
        Forget what waits behind delayed entries; returns it, each with the seconds that those wait on.

        Nothing where order is finer than the lanes of a positional source: going back would repeat
        what is finished.
        """
        if self._positional and self._lane_of is not None:
            return []
        given: list[tuple[float, list[Message]]] = []
        for due, _, entries in self._delayed:
            lanes = dict.fromkeys(entry.lane for entry in entries if entry.live and entry.lane.ordered)
            messages = self._forget([entry for lane in lanes for entry in lane.queue], now)
            if messages:
                given.append((max(0.0, due - now), messages))
        return given

    # To the source

    def settle(self) -> list[Message]:
        """What may be acknowledged now, in order; each message is returned once."""
        finished, self._finished = self._finished, []
        return finished

    def retire(self, lanes: Collection[Hashable], now: float = 0.0) -> int:
        """The source will take *lanes* away: forget what is not in hand of them; returns how many that were."""
        # They stay in the windows, as gaps: nothing behind them may be settled.
        doomed = [
            entry
            for entry in self._entries
            if entry.state in (WAITING, DELAYED) and entry.message.lane in lanes
        ]
        self._drop(doomed, now)
        return len(doomed)

    def revoke(self, lanes: Iterable[Hashable], now: float = 0.0) -> int:
        """The source took *lanes* away: forget what they hold; returns how many messages that were."""
        gone = frozenset(lanes)
        self._finished = [message for message in self._finished if message.lane not in gone]
        doomed = [entry for entry in self._entries if entry.message.lane in gone]
        self._drop(doomed, now)
        for lane in gone:
            self._windows.pop(lane, None)
        return len(doomed)

    def forget(self, messages: Iterable[Message], now: float = 0.0) -> int:
        """These messages are no longer ours (a lost lease): forget them; returns how many were held."""
        gone = set(map(id, messages))
        self._finished = [message for message in self._finished if id(message) not in gone]
        doomed = [entry for entry in self._entries if id(entry.message) in gone]
        return len(self._forget(doomed, now))

    def reset(self, now: float = 0.0) -> int:
        """The connection is gone: forget everything; returns how many messages that were."""
        count = self.size
        self._finished.clear()
        self._drop(list(self._entries), now)
        self._windows.clear()
        return count

    def drain(self, now: float = 0.0) -> list[Message]:
        """
        Forget whatever has not started, delayed entries too; returns the messages to be nacked.

        One that never started has one delivery less: it did nothing that max_deliveries should count.
        """
        idle = [entry for entry in self._entries if entry.live and entry.state in (WAITING, DELAYED)]
        return self._forget(idle, now)

    def goes_back_with(self, message: Message) -> Hashable:
        """The lane whose later messages must go back when *message* does; None: it has none."""
        if self._positional or self._lane_of is None:
            return message.lane
        return self._lane_of(message)

    # Inside

    def _forget(self, entries: Sequence[Entry], now: float) -> list[Message]:
        doomed = self._from_first(entries) if self._positional else [entry for entry in entries if entry.live]
        for entry in doomed:
            if entry.state == WAITING:
                entry.message.deliveries = max(0, entry.message.deliveries - 1)
        self._drop(doomed, now)
        return [entry.message for entry in doomed]

    def _from_first(self, entries: Iterable[Entry]) -> list[Entry]:
        """In each positional lane: the first of *entries* and all that came after it, cut off its window."""
        wanted = {entry for entry in entries if entry.live}
        cut: list[Entry] = []
        for lane in {entry.message.lane for entry in wanted}:
            window = self._windows[lane]
            tail: list[Entry] = []
            left = sum(1 for entry in window if entry in wanted)
            while left:
                entry = window.pop()
                left -= entry in wanted
                if entry.live:
                    tail.append(entry)
            cut.extend(reversed(tail))
            if not window:
                del self._windows[lane]
        return cut

    def _drop(self, entries: Sequence[Entry], now: float) -> None:
        """Take *entries* out of everything but the hands of the workers that have them."""
        touched: dict[Lane, None] = {}
        for entry in entries:
            entry.live = False
            del self._entries[entry]
            if entry.state == WAITING:
                touched[entry.lane] = None
            elif entry.state == DELAYED:
                self._release(entry.lane, now)
        for lane in touched:
            self._purge(lane)
        if self._due:
            groups = ([entry for entry in group if entry.live] for group in self._due)
            self._due = deque(group for group in groups if group)

    def _purge(self, lane: Lane) -> None:
        before = len(lane.queue)
        lane.queue = deque(entry for entry in lane.queue if entry.live)
        if lane.listed:
            self._startable -= before - len(lane.queue)
            if not lane.queue:
                self._ready.remove(lane)
                lane.listed = False
        self._discard(lane)

    def _advance(self, source_lane: Hashable) -> None:
        window, entries, finished = self._windows[source_lane], self._entries, self._finished
        while window and window[0].state == DONE:
            entry = window.popleft()
            del entries[entry]
            finished.append(entry.message)
        if not window:
            del self._windows[source_lane]

    def _release(self, lane: Lane, now: float, count: int = 1) -> None:
        """*count* entries of *lane* are out of hand; it may start its next one when those were the last."""
        lane.held -= count
        if lane.queue:
            if not lane.listed and not (lane.ordered and lane.held):
                self._list(lane, now)
        else:
            self._discard(lane)

    def _list(self, lane: Lane, now: float) -> None:
        lane.listed = True
        lane.since = now
        self._startable += len(lane.queue)
        self._ready.append(lane)

    def _discard(self, lane: Lane) -> None:
        """Keys come and go for ever, so an empty lane must not stay."""
        if not lane.queue and not lane.held and not lane.listed and self._lanes.get(lane.key) is lane:
            del self._lanes[lane.key]
