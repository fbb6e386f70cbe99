"""The heap profile says what holds the memory, by where it was allocated."""

from __future__ import annotations

import threading
import tracemalloc

import pytest

from patron.errors import Conflict
from patron.profiling import heap

KEPT = []


def keeps_much():
    return bytearray(3_000_000)


class Keeper:
    def keeps(self):
        return [bytearray(200_000) for _ in range(10)]


@pytest.fixture(autouse=True)
def _nothing_traced():
    assert not tracemalloc.is_tracing()
    yield
    KEPT.clear()
    tracemalloc.stop()


def by_function(profile):
    found = {}
    for (stack, _), (_, size) in profile.samples.items():
        name = stack[0].function
        found[name] = found.get(name, 0) + size
    return found


def test_without_tracing_it_says_how_to_start_it():
    with pytest.raises(Conflict, match="PYTHONTRACEMALLOC"):
        heap.in_use()


def test_what_is_in_use_is_told_by_function_and_line():
    tracemalloc.start(16)
    KEPT.append(keeps_much())
    KEPT.append(Keeper().keeps())
    profile = heap.in_use(collect=True)
    assert profile.kinds == (("inuse_objects", "count"), ("inuse_space", "bytes"))
    found = by_function(profile)
    top = max(found, key=found.__getitem__)
    assert (top.rpartition(".")[2], found[top] >= 3_000_000) == ("keeps_much", True)
    assert any(name.endswith(("Keeper.keeps", "Keeper.keeps.<locals>.<listcomp>")) for name in found)
    stack = next(stack for (stack, _) in profile.samples if stack[0].function == top)
    assert stack[0].file == __file__
    assert 0 < stack[0].start < stack[0].line
    assert "test_what_is_in_use" in stack[1].function  # the caller stands behind the callee


def test_what_is_allocated_meanwhile_is_told_and_the_tracing_ends():
    def wait(seconds):
        assert (seconds, tracemalloc.get_traceback_limit()) == (5.0, 3)
        KEPT.append(keeps_much())
        keeps_much()  # freed at once: it holds nothing
        return False

    profile = heap.allocated(5.0, 3, wait)
    assert not tracemalloc.is_tracing()
    assert 3_000_000 <= by_function(profile)[f"{__name__}.keeps_much"] < 4_000_000
    assert max(len(stack) for (stack, _) in profile.samples) <= 3


def test_when_it_is_traced_already_only_what_is_new_is_told_and_the_tracing_goes_on():
    tracemalloc.start(4)
    KEPT.append(keeps_much())

    def wait(seconds):
        KEPT.append(Keeper().keeps())
        return False

    found = by_function(heap.allocated(1.0, 16, wait))
    assert tracemalloc.is_tracing()
    assert f"{__name__}.keeps_much" not in found
    assert sum(size for name, size in found.items() if "Keeper.keeps" in name) >= 2_000_000


def test_a_failure_meanwhile_ends_the_tracing_too():
    def wait(seconds):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        heap.allocated(1.0, 16, wait)
    assert not tracemalloc.is_tracing()


def test_a_stop_ends_the_wait():
    stop = threading.Event()
    stop.set()
    assert heap.allocated(300.0, 1, stop.wait).duration < 60e9
