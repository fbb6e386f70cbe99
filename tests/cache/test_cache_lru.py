"""The store in memory: the contract, room, time, and what it tells of what it removes."""

from __future__ import annotations

import itertools
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patron.cache import LRUStore, Store
from patron.errors import ConfigError
from patron.testing import FakeClock
from patron.testing.stores import StoreContract


class TestLRUStore(StoreContract):
    shared = False

    def store(self) -> Store:
        return LRUStore()


class Told(list[tuple[str, float]]):
    """What a store told of what it removed."""

    def __call__(self, reason: str, age: float) -> None:
        self.append((reason, age))


def test_the_least_recently_used_entry_makes_room() -> None:
    told = Told()
    store = LRUStore(size=2, on_evict=told)
    store.set("a", b"1", 60)
    store.set("b", b"2", 60)
    store.get("a")
    store.set("c", b"3", 60)
    assert [store.get(key) for key in "abc"] == [b"1", None, b"3"]
    assert [reason for reason, _ in told] == ["capacity"]


def test_bytes_are_counted_and_make_room_as_well() -> None:
    told = Told()
    store = LRUStore(size=100, max_bytes=10_000, on_evict=told)
    for key in "abc":
        store.set(key, b"x" * 4000, 60)
    assert [store.get(key) is not None for key in "abc"] == [False, True, True]
    assert [reason for reason, _ in told] == ["capacity"]


def test_long_keys_need_room_too() -> None:
    store = LRUStore(size=1000, max_bytes=10_000)
    for number in range(100):
        store.set(f"{number}" + "k" * 4000, b"", 60)
    assert len(store) == 2


def test_a_value_larger_than_the_store_is_not_kept_and_neither_is_the_one_before() -> None:
    told = Told()
    store = LRUStore(max_bytes=1000, on_evict=told)
    store.set("a", b"small", 60)
    store.set("b", b"small", 60)
    store.set("a", b"x" * 2000, 60)
    assert (store.get("a"), store.get("b")) == (None, b"small")
    assert told == [("capacity", 0.0)]


def test_an_entry_lives_exactly_as_long_as_it_was_given() -> None:
    clock = FakeClock()
    store = LRUStore(clock=clock)
    store.set("a", b"1", 10)
    clock.advance(9.999)
    assert store.get("a") == b"1"
    clock.advance(0.001)
    assert store.get("a") is None


def test_what_expired_is_told_once_with_its_age_and_before_anything_that_lives_makes_room() -> None:
    clock, told = FakeClock(), Told()
    store = LRUStore(size=2, on_evict=told, clock=clock)
    store.set("old", b"1", 5)
    store.set("new", b"2", 50)
    store.get("old")
    clock.advance(6)
    store.set("newer", b"3", 50)
    assert (store.get("new"), store.get("newer")) == (b"2", b"3")
    assert told == [("expired", 6.0)]


@pytest.mark.parametrize("ttl", [0.5, 1, 2, 3, 4, 5, 6, 7])
def test_time_may_pass_while_an_entry_is_set(ttl: float) -> None:
    ticks = itertools.count(1000)
    store = LRUStore(size=1, clock=lambda: float(next(ticks)))
    for number in range(20):
        store.set(f"{number}", b"value", ttl)


def test_replacing_deleting_and_purging_are_not_evictions() -> None:
    told = Told()
    store = LRUStore(on_evict=told)
    store.set("a", b"1", 60)
    store.set("a", b"2", 60)
    store.delete("a")
    store.set("b", b"1", 60)
    store.purge()
    store.set("c", b"1", 60)
    assert told == []


def test_it_may_be_used_inside_its_callback() -> None:
    seen = []
    store = LRUStore(size=1, on_evict=lambda reason, age: seen.append(store.get("b")))
    store.set("a", b"1", 60)
    store.set("b", b"2", 60)
    assert seen == [b"2"]


def test_the_object_that_was_set_is_given_back_unless_it_could_change() -> None:
    class More(bytes):
        note = "kept"

    store = LRUStore()
    store.set("a", More(b"1"), 60)
    changing = bytearray(b"2")
    store.set("b", changing, 60)
    changing[:] = b"!"
    assert getattr(store.get("a"), "note", None) == "kept"
    assert store.get("b") == b"2"


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "many", True])
def test_a_size_that_is_none_is_refused(wrong: object) -> None:
    with pytest.raises(ConfigError, match=r"size is .*: use a whole number above 0"):
        LRUStore(size=wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"max_bytes is .*: use a whole number above 0"):
        LRUStore(max_bytes=wrong)  # type: ignore[arg-type]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from("abcdef"), st.integers(0, 300), st.integers(1, 9)),
        st.tuples(st.just("get"), st.sampled_from("abcdef")),
        st.tuples(st.just("delete"), st.sampled_from("abcdef")),
        st.tuples(st.just("advance"), st.integers(0, 5)),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(STEPS, st.integers(1, 5))
def test_it_holds_what_a_simple_model_holds_and_every_removal_is_told_once(
    steps: list[tuple[object, ...]], size: int
) -> None:
    """The model: entries in the order of their last use; the expired ones go first, then the oldest."""
    clock, told = FakeClock(), Told()
    store = LRUStore(size, 1500, told, clock=clock)
    model: dict[object, tuple[bytes, float]] = {}
    added = taken = 0

    def alive() -> dict[object, tuple[bytes, float]]:
        return {key: kept for key, kept in model.items() if clock() < kept[1]}

    for step in steps:
        match step:
            case ("advance", int(seconds)):
                clock.advance(seconds)
            case ("get", str(key)):
                kept = alive().get(key)
                if key in model:
                    model[key] = model.pop(key)
                assert store.get(key) == (kept and kept[0])
            case ("delete", str(key)):
                taken += alive().pop(key, None) is not None
                if key in alive():
                    del model[key]
                store.delete(key)
            case ("set", str(key), int(length), int(ttl)):
                taken += key in alive()
                model = {k: v for k, v in alive().items() if k != key}
                added += 1
                while model and (
                    len(model) >= size or sum(len(v) + 201 for v, _ in model.values()) + length + 201 > 1500
                ):
                    del model[next(iter(model))]
                value = b"v" * length
                model[key] = (value, clock() + ttl)
                store.set(key, value, ttl)
        assert len(store) == len(alive())
    store.set("end", b"", 1)
    model = alive()
    left = min(len(store), size)
    assert added + 1 == left + taken + len(told)


def test_threads_do_not_break_it() -> None:
    store = LRUStore(size=5)
    errors: list[BaseException] = []
    before = sys.getswitchinterval()

    def work(number: int) -> None:
        try:
            for turn in range(2000):
                store.set(f"{(turn * number) % 9}", b"x", 60)
                store.get(f"{turn % 9}")
        except BaseException as error:
            errors.append(error)

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert errors == []
    assert len(store) == 5
