"""The ledger against a naive model: whatever happens, in whatever order."""

from __future__ import annotations

from collections import defaultdict

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from patron.consumer.entry import Entry
from patron.consumer.ledger import Ledger
from patron.consumer.source import Message

LANES = [None, "a", "b", "c"]


def message(lane: str | None, position: int, key: str | None = None) -> Message:
    return Message(b"", "t", f"{lane}@{position}", lane=lane, position=position, key=key)


class Naive(RuleBasedStateMachine):
    """
    The model: for each message its state, as one word, and the order in which things came.

    waiting → taken → finished → settled, or taken → delayed → due → taken; or gone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.count = 0
        self.state: dict[int, str] = {}
        self.messages: dict[int, Message] = {}
        self.order: list[int] = []
        self.entries: dict[int, Entry] = {}
        self.ghosts: dict[int, Entry] = {}  # gone, but still in the hands of a worker
        self.due: dict[int, float] = {}
        self.settled: list[int] = []
        self.dropped: set[int] = set()
        self.gaps: set[int] = set()  # retired, and still in the way of what came later

    @initialize(positional=st.booleans(), order=st.sampled_from(["lane", "key", "none"]))
    def begin(self, positional: bool, order: str) -> None:
        self.positional = positional
        self.order_by = order
        lane_of = {"lane": None, "key": lambda m: m.key, "none": lambda m: None}[order]
        self.ledger = Ledger(positional, lane_of)

    # The model

    def lane(self, number: int) -> str | None:
        chosen = self.messages[number]
        return {"lane": chosen.lane, "key": chosen.key, "none": None}[self.order_by]

    def number(self, entry: Entry) -> int:
        return int(entry.message.id)

    def alive(self) -> list[int]:
        return [n for n in self.order if self.state[n] in ("waiting", "taken", "delayed", "due", "finished")]

    def in_hand_of_lane(self, lane: str | None) -> list[int]:
        held = [
            n for n in self.alive() if self.state[n] in ("taken", "delayed", "due") and self.lane(n) == lane
        ]
        return held + [n for n in self.ghosts if self.lane(n) == lane]

    def drop(self, numbers: list[int]) -> None:
        for number in numbers:
            if self.state[number] == "taken":
                self.ghosts[number] = self.entries.pop(number)
            self.state[number] = "gone"
            self.dropped.add(number)

    def behind(self, numbers: list[int]) -> list[int]:
        """What goes with *numbers* when they are given back."""
        if self.positional:
            first: dict[object, int] = {}
            for n in numbers:
                lane = self.messages[n].lane
                first[lane] = min(first.get(lane, n), n)
            self.gaps = {n for n in self.gaps if first.get(self.messages[n].lane, self.count + 1) > n}
            return [n for n in self.alive() if first.get(self.messages[n].lane, self.count + 1) <= n]
        lanes = {self.lane(n) for n in numbers} - {None}
        waiting = [n for n in self.alive() if self.state[n] == "waiting" and self.lane(n) in lanes]
        return [n for n in self.alive() if n in numbers or n in waiting]

    def pick(self, data: st.DataObject) -> list[int]:
        """Some that are in hand, all of one lane or without order, as a worker has them."""
        taken = sorted(self.entries)
        return [data.draw(st.sampled_from(taken))] if taken else []

    # What can happen

    @rule(lanes=st.lists(st.tuples(st.sampled_from(LANES), st.sampled_from(LANES)), max_size=6))
    def add(self, lanes: list[tuple[str | None, str | None]]) -> None:
        new = []
        for lane, key in lanes:
            self.count += 1
            m = Message(b"", "t", str(self.count), lane=lane, key=key, position=self.count, deliveries=1)
            self.messages[self.count] = m
            self.state[self.count] = "waiting"
            self.order.append(self.count)
            new.append(m)
        self.ledger.add(new, self.now)

    @rule(limit=st.integers(1, 5))
    def take(self, limit: int) -> None:
        due = [n for n in self.alive() if self.state[n] == "due"]
        run = self.ledger.take(limit)
        if not run:
            startable = [n for n in self.alive() if self.state[n] == "waiting" and self.may_start(n)]
            assert not startable
            assert not due
        for entry in run:
            number = self.number(entry)
            lane = self.lane(number)
            assert entry.live
            if self.state[number] == "due":
                pass
            else:
                assert self.state[number] == "waiting"
                earlier = [n for n in self.alive() if n < number and self.lane(n) == lane]
                if lane is not None:
                    assert all(self.state[n] != "waiting" for n in earlier), "one was overtaken"
                    others = set(self.in_hand_of_lane(lane)) - {self.number(e) for e in run}
                    assert not others, "two of a lane at once"
            self.state[number] = "taken"
            self.entries[number] = entry

    def may_start(self, number: int) -> bool:
        lane = self.lane(number)
        return lane is None or not self.in_hand_of_lane(lane)

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        (number,) = self.pick(data)
        entry = self.entries.pop(number)
        self.state[number] = "finished"
        assert self.ledger.finish([entry], self.now) == 0

    @precondition(lambda self: self.ghosts)
    @rule(data=st.data(), how=st.sampled_from(["finish", "delay", "untake", "give back"]))
    def a_ghost_reports(self, data: st.DataObject, how: str) -> None:
        number = data.draw(st.sampled_from(sorted(self.ghosts)))
        entry = self.ghosts.pop(number)
        if how == "finish":
            assert self.ledger.finish([entry], self.now) == 1
        elif how == "delay":
            self.ledger.delay([entry], self.now + 1, self.now)
        elif how == "untake":
            self.ledger.untake([entry], self.now)
        else:
            returned = {int(m.id) for m in self.ledger.give_back([entry], self.now)}
            lane = self.lane(number)
            waiting = {n for n in self.alive() if self.state[n] == "waiting" and self.lane(n) == lane}
            expected = self.behind(sorted(waiting)) if lane is not None and waiting else []
            assert returned == set(expected)
            self.drop(expected)

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def untake(self, data: st.DataObject) -> None:
        """The last that were taken of a lane go back unstarted."""
        (number,) = self.pick(data)
        lane = self.lane(number)
        behind = sorted(n for n in self.entries if lane is not None and self.lane(n) == lane and n > number)
        chosen = [number, *behind]
        self.ledger.untake([self.entries.pop(n) for n in chosen], self.now)
        for n in chosen:
            self.state[n] = "waiting"

    @precondition(lambda self: self.entries)
    @rule(data=st.data(), wait=st.integers(0, 5))
    def delay(self, data: st.DataObject, wait: int) -> None:
        (number,) = self.pick(data)
        lane = self.lane(number)
        # What a worker has behind it in the lane goes back first, as the desk does it.
        behind = sorted(n for n in self.entries if lane is not None and self.lane(n) == lane and n > number)
        self.ledger.untake([self.entries.pop(n) for n in behind], self.now)
        for n in behind:
            self.state[n] = "waiting"
        self.ledger.delay([self.entries.pop(number)], self.now + wait, self.now)
        self.state[number] = "delayed"
        self.due[number] = self.now + wait

    @rule(step=st.integers(0, 4))
    def time_passes(self, step: int) -> None:
        self.now += step
        self.ledger.promote(self.now)
        for number in self.alive():
            if self.state[number] == "delayed" and self.due[number] <= self.now:
                self.state[number] = "due"

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        (number,) = self.pick(data)
        lane = self.lane(number)
        behind = sorted(n for n in self.entries if lane is not None and self.lane(n) == lane and n > number)
        self.ledger.untake([self.entries.pop(n) for n in behind], self.now)
        for n in behind:
            self.state[n] = "waiting"
        waiting = {
            n
            for n in self.alive()
            if self.state[n] == "waiting" and lane is not None and self.lane(n) == lane
        }
        entry = self.entries.pop(number)
        expected = self.behind(sorted({number, *waiting}) if self.positional else [number])
        unstarted = {n for n in expected if self.state[n] == "waiting"}
        returned = self.ledger.give_back([entry], self.now)
        assert {int(m.id) for m in returned} == set(expected)
        by_lane: dict[object, list[int]] = defaultdict(list)
        for m in returned:
            by_lane[m.lane if self.positional else self.lane(int(m.id))].append(int(m.id))
            assert m.deliveries == (0 if int(m.id) in unstarted else 1)
        assert all(ids == sorted(ids) for lane, ids in by_lane.items() if lane is not None or self.positional)
        self.state[number] = "gone"
        self.dropped.add(number)
        self.drop([n for n in expected if n != number])

    @rule(lanes=st.frozensets(st.sampled_from(LANES), min_size=1))
    def retire(self, lanes: frozenset[str | None]) -> None:
        idle = [n for n in self.alive() if self.state[n] in ("waiting", "delayed", "due")]
        expected = [n for n in idle if self.messages[n].lane in lanes]
        assert self.ledger.retire(lanes, self.now) == len(expected)
        self.drop(expected)
        self.gaps |= set(expected)
        left = [n for n in self.entries if self.messages[n].lane in lanes]
        assert self.ledger.in_hand_of(lanes) == len(left)

    @rule()
    def yield_behind(self) -> None:
        """What waits behind a delayed message goes back to the source, once."""
        if self.positional and self.order_by != "lane":
            assert self.ledger.yield_behind(self.now) == []
            return
        blocked = {self.lane(n) for n in self.alive() if self.state[n] == "delayed"} - {None}
        waiting = [n for n in self.alive() if self.state[n] == "waiting" and self.lane(n) in blocked]
        expected = self.behind(waiting)
        given = self.ledger.yield_behind(self.now)
        assert sorted(int(m.id) for _, messages in given for m in messages) == sorted(expected)
        for seconds, messages in given:
            assert messages
            assert self.now + seconds in {self.due[n] for n in self.alive() if self.state[n] == "delayed"}
            assert all(m.deliveries == 0 for m in messages)
        self.drop(expected)

    @rule(lanes=st.frozensets(st.sampled_from(LANES), min_size=1))
    def revoke(self, lanes: frozenset[str | None]) -> None:
        self.ledger.revoke(lanes, self.now)
        self.drop([n for n in self.alive() if self.messages[n].lane in lanes])
        self.gaps = {n for n in self.gaps if self.messages[n].lane not in lanes}

    @precondition(lambda self: self.alive())
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        chosen = data.draw(st.lists(st.sampled_from(self.alive()), unique=True, max_size=3))
        live = [n for n in chosen if self.state[n] != "finished" or not self.is_settleable(n)]
        ready = [n for n in chosen if n not in live]
        expected = self.behind(live) if self.positional else live
        self.ledger.forget([self.messages[n] for n in chosen], self.now)
        self.drop([*expected, *(n for n in ready if n not in expected)])

    @rule()
    def reset(self) -> None:
        self.ledger.reset(self.now)
        self.drop(self.alive())
        self.gaps = set()

    @rule()
    def drain(self) -> None:
        idle = [n for n in self.alive() if self.state[n] in ("waiting", "delayed", "due")]
        expected = self.behind(idle) if self.positional else idle
        returned = [int(m.id) for m in self.ledger.drain(self.now)]
        assert sorted(returned) == sorted(expected)
        self.drop(expected)

    @rule()
    def settle(self) -> None:
        expected = [n for n in self.alive() if self.state[n] == "finished" and self.is_settleable(n)]
        settled = [int(m.id) for m in self.ledger.settle()]
        assert sorted(settled) == expected
        if self.positional:
            for lane in LANES:
                of_lane = [n for n in settled if self.messages[n].lane == lane]
                assert of_lane == sorted(of_lane)
        for number in settled:
            self.state[number] = "settled"
        self.settled += settled

    def is_settleable(self, number: int) -> bool:
        """Positional: nothing before it in its source lane is unfinished."""
        lane = self.messages[number].lane
        before = [n for n in self.alive() if n < number and self.messages[n].lane == lane]
        gaps = [n for n in self.gaps if n < number and self.messages[n].lane == lane]
        return not self.positional or (not gaps and all(self.state[n] == "finished" for n in before))

    # What holds always

    @invariant()
    def nothing_is_settled_twice(self) -> None:
        assert len(self.settled) == len(set(self.settled))
        assert not self.dropped & set(self.settled)

    @invariant()
    def it_counts_what_it_has(self) -> None:
        if not hasattr(self, "ledger"):
            return
        assert self.ledger.size == len(self.alive())
        assert self.ledger.in_hand == len(self.entries) + len(self.ghosts)
        waiting = [n for n in self.alive() if self.state[n] == "waiting" and self.may_start(n)]
        groups = [n for n in self.alive() if self.state[n] == "due"]
        assert self.ledger.startable == len(waiting) + len(groups)
        held = {int(m.id) for m in self.ledger.held()}
        assert held == {n for n in self.alive() if self.state[n] != "finished"}

    @invariant()
    def it_forgets_lanes_that_are_empty(self) -> None:
        if hasattr(self, "ledger"):
            lanes = {
                self.lane(n) for n in [*self.alive(), *self.ghosts] if self.state[n] not in ("finished",)
            }
            assert len(self.ledger._lanes) == len(lanes)

    def teardown(self) -> None:
        """Nothing is lost: in the end everything can be taken, finished and settled."""
        if not hasattr(self, "ledger"):
            return
        self.now += 100
        if self.gaps:
            self.revoke(frozenset(self.messages[n].lane for n in self.gaps))
        while True:
            self.time_passes(0)
            for number in sorted(self.ghosts):
                self.ledger.finish([self.ghosts.pop(number)], self.now)
            for number in sorted(self.entries):
                self.ledger.finish([self.entries.pop(number)], self.now)
                self.state[number] = "finished"
            self.settle()
            if not self.alive():
                break
            self.take(5)
        assert sorted([*self.settled, *self.dropped]) == self.order
        assert self.ledger.size == 0


TestNaive = Naive.TestCase
TestNaive.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_a_positional_lane_commits_only_what_is_contiguous() -> None:
    ledger = Ledger(positional=True, lane_of=lambda m: m.key)
    ledger.add([message("p", n, key=str(n)) for n in range(4)], 0.0)
    first, second, third, fourth = ledger.take(4)
    ledger.finish([third, second])
    assert ledger.settle() == []
    ledger.finish([first])
    assert [m.position for m in ledger.settle()] == [0, 1, 2]
    ledger.finish([fourth])
    assert [m.position for m in ledger.settle()] == [3]


def test_entries_that_were_delayed_together_come_back_together() -> None:
    ledger = Ledger()
    ledger.add([message("a", n) for n in range(3)], 0.0)
    batch = ledger.take(3)
    ledger.delay(batch, 5.0)
    assert ledger.next_due == 5.0
    assert ledger.promote(4.9) == 0
    assert ledger.take(1) == []
    assert ledger.promote(5.0) == 1
    assert ledger.take(1) == batch


@pytest.mark.parametrize("positional", [False, True])
def test_what_waits_behind_a_delayed_message_can_be_given_back_for_as_long(positional: bool) -> None:
    ledger = Ledger(positional)
    ledger.add([message("a", n) for n in range(3)] + [message("b", 1)], 0.0)
    run = ledger.take(3)
    ledger.untake(run[1:])
    ledger.delay(run[:1], 7.5, 2.0)
    ((seconds, messages),) = ledger.yield_behind(2.0)
    assert seconds == 5.5
    assert [(m.lane, m.position, m.deliveries) for m in messages] == [("a", 1, 0), ("a", 2, 0)]
    assert ledger.yield_behind(2.0) == []
    ledger.add([message("a", 1)], 3.0)
    assert [entry.message.lane for entry in ledger.take(5)] == ["b"], "it waits behind the one that was kept"
    ledger.promote(8.0)
    assert ledger.take(5) == run[:1]


def test_nothing_behind_a_retired_message_is_settled() -> None:
    ledger = Ledger(positional=True, lane_of=lambda m: m.key)
    ledger.add([message("p", n, key=str(n)) for n in range(3)], 0.0)
    first, second, third = ledger.take(3)
    ledger.untake([second])
    assert ledger.retire({"p"}) == 1
    assert ledger.in_hand_of({"p"}) == 2
    ledger.finish([third])
    ledger.finish([first])
    assert [m.position for m in ledger.settle()] == [0]
    ledger.revoke({"p"})
    assert (ledger.size, ledger.in_hand, ledger.startable) == (0, 0, 0)


@pytest.mark.parametrize("positional", [False, True])
def test_a_result_that_comes_after_the_revocation_is_ignored(positional: bool) -> None:
    ledger = Ledger(positional)
    ledger.add([message("a", 1)], 0.0)
    (entry,) = ledger.take(1)
    assert ledger.revoke(["a"]) == 1
    ledger.add([message("a", 1)], 0.0)
    assert ledger.take(1) == [], "the old one is still in hand, so its successor must wait"
    assert ledger.finish([entry]) == 1
    assert ledger.settle() == []
    assert len(ledger.take(1)) == 1


@pytest.mark.parametrize("positional", [False, True])
def test_what_was_finished_and_not_settled_before_the_revocation_is_not_settled_after_it(
    positional: bool,
) -> None:
    ledger = Ledger(positional)
    ledger.add([message("a", 1), message("b", 1)], 0.0)
    assert ledger.finish(ledger.take(2)) == 0  # none was ignored
    ledger.revoke(["a"])
    assert [settled.lane for settled in ledger.settle()] == ["b"]


def test_what_was_taken_and_not_started_waits_in_front_of_its_lane() -> None:
    ledger = Ledger()
    ledger.add([message("a", n) for n in range(4)], 0.0)
    ledger.untake(ledger.take(3))
    assert [entry.message.position for entry in ledger.take(4)] == [0, 1, 2, 3]


@pytest.mark.parametrize("positional", [False, True])
def test_a_long_backlog_of_many_keys_leaves_nothing_behind(positional: bool) -> None:
    ledger = Ledger(positional, lane_of=lambda m: m.key)
    for number in range(1000):
        ledger.add([message("p", number, key=str(number))], 0.0)
    while run := ledger.take(64):
        ledger.finish(run)
    assert len(ledger.settle()) == 1000
    assert (ledger.size, ledger.in_hand, ledger.startable) == (0, 0, 0)
