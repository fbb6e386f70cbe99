"""Whether an entry answers a request: the table of the rules, and what holds for all of them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patron.http.caching.decision import STALE, Entitlement, decide, may_join
from patron.http.caching.directives import NO_WISHES, Wishes

ALLOWED = Entitlement(lifetime=30.0, minimum=5.0, window=10.0)


def act(wishes: Wishes, age: float | None) -> str:
    verdict = decide(wishes, age, ALLOWED)
    return f"{verdict.act} {verdict.lookup} {verdict.reason}".strip()


@pytest.mark.parametrize(
    ("wishes", "age", "expected"),
    [
        (NO_WISHES, None, "run miss"),
        (NO_WISHES, 0.0, "serve hit"),
        (NO_WISHES, 29.99, "serve hit"),
        (NO_WISHES, 30.0, "run replaced expired"),
        (Wishes(max_age=10), 9.99, "serve hit"),
        (Wishes(max_age=10), 10.0, "run replaced max_age"),
        (Wishes(max_age=2), 4.0, "serve hit"),
        (Wishes(max_age=2), 5.0, "run replaced max_age"),
        (Wishes(max_age=0), 0.0, "serve hit"),
        (Wishes(max_age=100), 30.0, "run replaced expired"),
        (Wishes(min_fresh=10), 20.0, "serve hit"),
        (Wishes(min_fresh=10), 20.01, "run replaced min_fresh"),
        (Wishes(min_fresh=100), 5.0, "serve hit"),
        (Wishes(min_fresh=100), 5.01, "run replaced min_fresh"),
        (Wishes(no_cache=True), 4.99, "serve hit"),
        (Wishes(no_cache=True), 5.0, "run replaced no_cache"),
        (Wishes(no_store=True), 4.99, "serve hit"),
        (Wishes(no_store=True), 5.0, "run replaced no_store"),
        (Wishes(no_cache=True), None, "run miss"),
        (Wishes(only_if_cached=True), None, "refuse miss"),
        (Wishes(only_if_cached=True), 29.0, "serve hit"),
        (Wishes(only_if_cached=True), 30.0, "refuse replaced expired"),
        (Wishes(only_if_cached=True, max_age=6), 7.0, "refuse replaced max_age"),
        (Wishes(only_if_cached=True, no_cache=True), 7.0, "refuse replaced no_cache"),
        (Wishes(max_stale=math.inf), 35.0, "serve hit max_stale"),
        (Wishes(max_stale=5), 35.0, "serve hit max_stale"),
        (Wishes(max_stale=4), 35.0, "run replaced expired"),
        (Wishes(max_stale=math.inf), 40.0, "run replaced expired"),
        (Wishes(max_stale=math.inf, max_age=35), 35.0, "run replaced expired"),
        (Wishes(max_stale=math.inf, min_fresh=1), 35.0, "run replaced expired"),
        (Wishes(max_stale=math.inf, no_cache=True), 35.0, "run replaced expired"),
        (Wishes(max_stale=math.inf, only_if_cached=True), 35.0, "serve hit max_stale"),
    ],
)
def test_the_table(wishes, age, expected):
    assert act(wishes, age) == expected


@pytest.mark.parametrize(
    ("wishes", "warnings"),
    [
        (Wishes(max_age=2), ['199 patron "max-age raised to 5"']),
        (Wishes(max_age=5), []),
        (Wishes(min_fresh=26), ['199 patron "min-fresh lowered to 25"']),
        (Wishes(min_fresh=25), []),
        (Wishes(no_cache=True), ['199 patron "no-cache ignored: the answer is younger than 5 s"']),
        (
            Wishes(max_age=2, min_fresh=99, no_store=True),
            [
                '199 patron "no-store ignored: the answer is younger than 5 s"',
                '199 patron "max-age raised to 5"',
                '199 patron "min-fresh lowered to 25"',
            ],
        ),
    ],
)
def test_the_answer_warns_of_every_wish_that_was_capped(wishes, warnings):
    assert list(decide(wishes, 1.0, ALLOWED).warnings) == warnings


def test_an_answer_that_is_stale_says_so():
    assert decide(Wishes(max_stale=math.inf), 31.0, ALLOWED).warnings == (STALE,)


def test_where_min_is_max_no_client_gets_a_newer_one():
    everything = Wishes(max_age=0, min_fresh=99, no_cache=True, no_store=True)
    assert decide(everything, 29.9, Entitlement(30.0, 30.0)).act == "serve"


NUMBERS = st.one_of(st.none(), st.integers(0, 100))
WISHES = st.builds(
    Wishes,
    NUMBERS,
    NUMBERS,
    NUMBERS,
    no_cache=st.booleans(),
    no_store=st.booleans(),
    only_if_cached=st.booleans(),
)
AGES = st.floats(0, 120)
ENTITLEMENTS = st.builds(
    lambda lifetime, share, window: Entitlement(lifetime, lifetime * share, window),
    st.floats(0.1, 60),
    st.floats(0, 1),
    st.floats(0, 60),
)


@given(WISHES, st.one_of(st.none(), AGES), ENTITLEMENTS)
def test_only_if_cached_never_runs_the_processor_and_nothing_else_is_refused(wishes, age, entitlement):
    verdict = decide(wishes, age, entitlement)
    assert verdict.act in (("serve", "refuse") if wishes.only_if_cached else ("serve", "run"))


@given(WISHES, AGES, ENTITLEMENTS)
def test_an_entry_younger_than_min_is_served_whatever_the_client_wishes(wishes, age, entitlement):
    if age < entitlement.minimum:
        assert decide(wishes, age, entitlement).act == "serve"


@given(WISHES, AGES, ENTITLEMENTS)
def test_no_entry_is_served_beyond_its_window(wishes, age, entitlement):
    if age >= entitlement.lifetime + entitlement.window:
        assert decide(wishes, age, entitlement).act != "serve"


@given(WISHES, AGES, ENTITLEMENTS)
def test_without_a_warning_every_wish_is_met(wishes, age, entitlement):
    verdict = decide(wishes, age, entitlement)
    if verdict.act != "serve" or verdict.warnings:
        return
    assert (wishes.no_cache, wishes.no_store) == (False, False)
    assert wishes.max_age is None or age < wishes.max_age
    assert wishes.min_fresh is None or age <= entitlement.lifetime - wishes.min_fresh
    assert age < entitlement.lifetime


@given(WISHES, AGES, AGES, ENTITLEMENTS)
def test_a_younger_entry_is_served_wherever_an_older_one_is(wishes, one, other, entitlement):
    younger, older = sorted((one, other))
    if decide(wishes, older, entitlement).act == "serve" and older < entitlement.lifetime:
        assert decide(wishes, younger, entitlement).act == "serve"


@given(WISHES, AGES, ENTITLEMENTS)
def test_a_hit_has_no_reason_but_max_stale_and_a_replaced_one_always_has(wishes, age, entitlement):
    verdict = decide(wishes, age, entitlement)
    assert (verdict.lookup == "hit") == (verdict.act == "serve")
    assert bool(verdict.reason) == (verdict.lookup == "replaced" or verdict.warnings == (STALE,))


def test_who_wants_nothing_older_than_its_request_waits_for_no_other_run():
    assert may_join(NO_WISHES, 100.0, 0.0)
    assert not may_join(Wishes(no_cache=True), 0.0, 0.0)
    assert not may_join(Wishes(max_age=3), 3.0, 0.0)
    assert may_join(Wishes(max_age=3), 2.9, 0.0)
    assert may_join(Wishes(max_age=0, no_cache=True), 4.9, 5.0)
    assert not may_join(Wishes(no_cache=True), 5.0, 5.0)
