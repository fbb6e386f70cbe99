"""Of many who miss the same entry at once one runs the processor, and nobody waits for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from cache_world import World, balanced, world
from hypothesis import given, settings
from hypothesis import strategies as st

from patron.errors import DeadlineExceeded
from patron.http import Response
from patron.http.caching.flight import Flights
from patron.testing import until


class Gate:
    """A processor that stands still until it is let go, and tells how many are in it."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self._answer = answer
        self._open = threading.Event()
        self.inside = 0
        self._lock = threading.Lock()

    def __call__(self, request: Any) -> Any:
        with self._lock:
            self.inside += 1
        assert self._open.wait(30)
        return self._answer(request)

    def open(self) -> None:
        self._open.set()


def waiting(w: World) -> int:
    """How many wait for the run of somebody else."""
    front = w.app._fronts[0]
    flights = front._cache._flights
    with flights._lock:
        return sum(len(flight._landed._cond._waiters) for flight in flights._flights.values())


def at_once(w: World, count: int, gate: Gate, inside: int = 1, **headers: str) -> list[Any]:
    """*count* requests that all arrive before the first of them is answered."""
    with ThreadPoolExecutor(count) as pool:
        answers = [pool.submit(w.get, **headers) for _ in range(count)]
        try:
            until(lambda: (gate.inside, waiting(w)) == (inside, count - inside), 30)
        finally:
            gate.open()
        return [answer.result() for answer in answers]


def test_of_1000_who_miss_at_once_one_runs_the_processor():
    with world() as w:
        w.processor = gate = Gate(lambda request: {"run": w.runs})
        answers = at_once(w, 1000, gate)
        assert {answer.data for answer in answers} == {b'{"run":1}'}
        assert w.counts() == {"miss": 1000, "added": 1, "coalesced": 999}


def test_an_entry_that_expired_is_made_anew_once():
    with world(max=30, stale_if_error=60) as w:
        w.get()
        w.clock.now += 30
        w.processor = gate = Gate(lambda request: {"run": w.runs})
        at_once(w, 20, gate)
        assert w.runs == 2
        assert w.counts() == {"miss": 1, "replaced:expired": 20, "added": 2, "coalesced": 19}


def test_who_comes_when_the_run_has_just_landed_does_not_run_again():
    """A request that missed, and was then overtaken by a whole run before it could lead one."""
    with world() as w:
        inner = w.store
        overtaken = []
        first = [True]

        class Slow:
            def get(self, key):
                found = inner.get(key)
                if first and first.pop():
                    overtaken.append(w.get().json)
                return found

            set, delete = inner.set, inner.delete

        w.store = Slow()
        overtaken_by = w.get().json
        assert overtaken_by == overtaken[0] == {"run": 1}
        assert w.counts() == {"miss": 2, "added": 1, "coalesced": 1}


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        (lambda request: Response({"a": 1}, 404), "not_cacheable:status"),
        (lambda request: Response({"a": 1}, headers={"Set-Cookie": "a=1"}), "not_cacheable:set_cookie"),
        (lambda request: Response({"a": 1}, 503), "failed:error"),
        (lambda request: 1 / 0, "failed:error"),
        (lambda request: (_ for _ in ()).throw(SystemExit(3)), "failed:error"),
    ],
    ids=["404", "Set-Cookie", "503", "an exception", "SystemExit"],
)
def test_what_is_not_for_all_is_shared_with_nobody(answer, count):
    with world() as w:
        w.processor = gate = Gate(answer)
        answers = at_once(w, 10, gate)
        assert len({a.status_code for a in answers}) == 1
        assert w.runs == 10
        assert w.counts() == {"miss": 10, count: 10}


def test_those_who_waited_for_nothing_run_side_by_side_and_for_a_moment_nobody_waits_again():
    with world() as w:
        second = Gate(lambda request: Response({"a": 1}, 404))
        first = Gate(lambda request: Response({"a": 1}, 404))
        w.processor = lambda request: (first if w.runs == 1 else second)(request)
        with ThreadPoolExecutor(7) as pool:
            answers = [pool.submit(w.get) for _ in range(5)]
            until(lambda: waiting(w) == 4)
            first.open()
            until(lambda: second.inside == 4)  # all at once, not one after the other
            answers += [pool.submit(w.get) for _ in range(2)]
            until(lambda: second.inside == 6)  # and those who come now do not wait either
            second.open()
            assert [a.result().status_code for a in answers] == [404] * 7


def test_those_with_a_cookie_do_not_keep_others_from_sharing():
    with world() as w:
        w.processor = lambda request: {"run": w.runs}
        w.get(Cookie="a=1")
        w.processor = gate = Gate(lambda request: {"run": w.runs})
        assert {a.json["run"] for a in at_once(w, 5, gate)} == {2}


def test_who_wants_a_newer_answer_than_the_run_will_bring_runs_by_itself():
    with world() as w:
        gate = Gate(lambda request: {"run": w.runs})
        w.processor = lambda request: gate(request) if w.runs == 1 else {"run": w.runs}
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(w.get)
            until(lambda: gate.inside == 1)
            assert w.get(Cache_Control="no-cache").json == {"run": 2}
            assert w.get(Cache_Control="no-store", Host="localhost").json != {"run": 1}
            gate.open()
            assert first.result().json["run"] >= 1


def test_within_min_everybody_shares_whatever_they_want():
    with world(min=20) as w:
        w.processor = gate = Gate(lambda request: {"run": w.runs})
        assert {a.json["run"] for a in at_once(w, 8, gate, Cache_Control="no-cache, max-age=0")} == {1}


def test_who_waits_waits_no_longer_than_its_own_deadline():
    with world() as w:
        gate = Gate(lambda request: {"run": 1})
        w.processor = gate
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(w.get)
            until(lambda: gate.inside == 1)
            answer = w.get(X_Request_Timeout_Ms="50")
            assert (answer.status_code, w.runs) == (504, 1)
            gate.open()
            assert first.result().status_code == 200
        assert w.counts() == {"miss": 2, "failed:deadline": 1, "added": 1}


def test_who_waited_too_long_is_given_the_old_entry_where_there_is_one():
    with world(stale_if_error=60) as w:
        w.get()
        w.clock.now += 31
        w.processor = gate = Gate(lambda request: {"run": 2})
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(w.get)
            until(lambda: gate.inside == 1)
            answer = w.get(X_Request_Timeout_Ms="50")
            assert (answer.json, answer.headers["Warning"][:3]) == ({"run": 1}, "110")
            gate.open()
            first.result()


def test_who_has_no_deadline_waits_as_long_as_the_settings_say_and_then_runs_by_itself():
    with world(wait=0.05) as w:
        gate = Gate(lambda request: {"run": "slow"})
        w.processor = lambda request: gate(request) if w.runs == 1 else {"run": "quick"}
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(w.get)
            until(lambda: gate.inside == 1)
            assert w.get().json == {"run": "quick"}
            gate.open()
            first.result()


def test_a_processor_may_ask_its_own_route():
    with world() as w:

        def nested(request):
            return {"inner": None if w.runs > 1 else w.get().json}

        w.processor = nested
        assert w.get().json == {"inner": {"inner": None}}


def test_two_processors_that_ask_for_each_other_do_not_wait_for_ever():
    with world() as w:
        both = threading.Barrier(2)

        def crossing(request):
            name = request.params["name"]
            if w.runs <= 2:
                both.wait(10)
                return {name: w.get("/it/b" if name == "a" else "/it/a").json}
            return {name: None}

        w.processor = crossing
        with ThreadPoolExecutor(2) as pool:
            a, b = pool.submit(w.get, "/it/a"), pool.submit(w.get, "/it/b")
            assert list(a.result(20).json) == ["a"]
            assert list(b.result(20).json) == ["b"]


def test_keys_that_cannot_be_shared_are_forgotten_after_a_moment_and_are_bounded():
    now = [0.0]
    flights: Flights[int] = Flights(lambda: now[0])
    flights.remember("a", shared=False)
    assert flights.board("a").flight is None
    now[0] = 10.0
    assert flights.board("a").leads
    for number in range(30_000):
        flights.remember(str(number), shared=False)
    assert len(flights._alone) <= 10_000
    flights.remember("29999", shared=True)
    assert flights.board("29999").leads


def test_a_flight_lands_whatever_happens_to_its_leader():
    with world() as w, ExitStack() as stack:
        gate = Gate(lambda request: 1 / 0)
        w.processor = gate
        pool = stack.enter_context(ThreadPoolExecutor(3))
        answers = [pool.submit(w.get) for _ in range(3)]
        until(lambda: gate.inside == 1)
        gate.open()
        assert [a.result(20).status_code for a in answers] == [500] * 3
        assert w.app._fronts[0]._cache._flights._flights == {}


class Failing:
    """A processor whose first *failures* runs fail, the first one when *gate* opens; counts who is in it at once."""

    def __init__(self, failures: int, error: Callable[[], BaseException] = RuntimeError) -> None:
        self._failures, self._error = failures, error
        self.gate = Gate(lambda request: None)
        self.runs = self.inside = self.most = 0

    def __call__(self, request: Any) -> Any:
        self.runs += 1  # one at a time, which is what is asserted
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            run = self.runs
            if run == 1:
                self.gate(request)
            if run <= self._failures:
                raise self._error()
            return {"run": run}
        finally:
            self.inside -= 1


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 12), failures=st.integers(0, 14))
def test_after_each_failure_one_of_those_who_wait_runs_and_the_first_success_is_for_all_who_are_left(
    count, failures
):
    with world() as w:
        w.processor = failing = Failing(failures)
        answers = at_once(w, count, failing.gate)
        failed = min(failures, count)
        assert sorted(a.status_code for a in answers) == [200] * (count - failed) + [500] * failed
        assert (failing.runs, failing.most) == (min(failures + 1, count), 1)
        ends = {"added": int(count > failed), "coalesced": max(0, count - failed - 1), "failed:error": failed}
        assert w.counts() == {"miss": count} | {name: n for name, n in ends.items() if n}
        assert w.app._fronts[0]._cache._flights._flights == {}


def test_the_deadline_of_the_one_who_runs_is_its_own():
    """The first one's time is over, and the others', who have more, get the answer of a single further run."""
    with world() as w:
        w.processor = failing = Failing(1, lambda: DeadlineExceeded("mine"))
        answers = at_once(w, 100, failing.gate)
        assert sorted(a.status_code for a in answers) == [200] * 99 + [504]
        assert failing.runs == 2


def test_who_waits_through_failures_waits_no_longer_in_all_than_for_one_run():
    with world(wait=0.3) as w:
        first, second = Gate(lambda request: 1 / 0), Gate(lambda request: {"run": "slow"})
        gates = {1: first, 2: second}
        w.processor = lambda request: gates[w.runs](request) if w.runs < 3 else {"run": "quick"}
        with ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(w.get) for _ in range(3)]
            until(lambda: (first.inside, waiting(w)) == (1, 2))
            first.open()
            # One of the two leads, and while it does not come to an end the other one runs by itself.
            until(lambda: any(a.done() and a.result().json == {"run": "quick"} for a in answers))
            assert second.inside == 1
            second.open()
            assert sorted(a.result().status_code for a in answers) == [200, 200, 500]


def test_who_waits_through_failures_keeps_its_own_deadline():
    with world() as w:
        first, second = Gate(lambda request: 1 / 0), Gate(lambda request: {"run": "slow"})
        w.processor = lambda request: (first if w.runs == 1 else second)(request)
        with ThreadPoolExecutor(3) as pool:
            answers = [pool.submit(w.get), pool.submit(w.get)]
            until(lambda: (first.inside, waiting(w)) == (1, 1))
            first.open()
            until(lambda: second.inside == 1)
            assert w.get(X_Request_Timeout_Ms="50").status_code == 504
            second.open()
            assert sorted(a.result().status_code for a in answers) == [200, 500]
        assert w.counts() == {"miss": 3, "failed:error": 1, "failed:deadline": 1, "added": 1}


def test_who_leads_after_a_failure_looks_first_whether_there_is_an_entry_by_now():
    with world() as w:
        gate = Gate(lambda request: 1 / 0)
        w.processor = lambda request: gate(request) if w.runs == 1 else {"run": w.runs}
        with ThreadPoolExecutor(2) as pool:
            answers = [pool.submit(w.get), pool.submit(w.get)]
            until(lambda: (gate.inside, waiting(w)) == (1, 1))
            assert w.get(Cache_Control="no-cache").json == {"run": 2}
            gate.open()
            assert sorted(a.result().status_code for a in answers) == [200, 500]
        assert w.runs == 2
        assert w.counts() == {"miss": 3, "added": 1, "failed:error": 1, "coalesced": 1}


def test_the_counts_are_balanced_after_all_of_this():
    with world() as w:
        w.processor = gate = Gate(lambda request: {"run": w.runs})
        at_once(w, 5, gate)
        assert balanced(w.counts())
