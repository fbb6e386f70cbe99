"""The CPU profile says where the CPU time goes, whatever the threads do meanwhile."""

from __future__ import annotations

import queue
import sys
import threading
import time
import zlib
from collections import Counter
from contextlib import contextmanager

import pytest

from patron.profiling.clocks import CpuClocks, is_waiting
from patron.profiling.sampler import sample
from patron.testing import until


def burn(seconds):
    """Use CPU time, in Python."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        churn()


def churn():
    return sum(number * number for number in range(200))


@contextmanager
def running(*targets):
    """Each of *targets* in a thread, until the end of the block."""
    stop = threading.Event()
    threads = [threading.Thread(target=target, args=(stop,), name=name) for name, target in targets]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def taken(seconds=0.6, **options):
    return sample(seconds, 100, threading.Event().wait, **options)


def by_function(profile, *, inside=False):
    """Function → nanoseconds: its own, or *inside* it and all that it calls."""
    found = {}
    for (stack, _), values in profile.samples.items():
        for name in {frame.function.rpartition(".")[2] for frame in (stack if inside else stack[:1])}:
            found[name] = found.get(name, 0) + values[-1]
    return found


def busy_loop(stop):
    while not stop.is_set():
        spinning()


def spinning():
    for _ in range(3000):
        pass


def waits_for_a_lock(stop):
    stop.wait()


def waits_for_time(stop):
    while not stop.wait(0.003):
        pass


def test_the_busy_function_is_on_top_and_those_that_wait_are_not():
    idle = [(f"idle-{n}", waits_for_a_lock) for n in range(20)]
    with running(("busy", busy_loop), ("tick", waits_for_time), *idle):
        profile = taken()
    found = by_function(profile)
    assert max(found, key=found.__getitem__) == "spinning"
    assert found["spinning"] > 0.8 * profile.total()


def test_the_total_is_the_cpu_time_that_was_used():
    used = []

    def counted(stop):
        began = time.thread_time_ns()
        busy_loop(stop)
        used.append(time.thread_time_ns() - began)

    with running(("busy", counted)):
        profile = taken()
    measured = sum(v[-1] for (_, labels), v in profile.samples.items() if dict(labels)["thread"] == "busy")
    assert 0.5 * used[0] < measured <= 1.05 * used[0]
    assert profile.total() <= 1.2 * used[0] + 50_000_000


def test_short_work_between_waits_is_found_where_it_is_done():
    """A thread of a pool: it is seen waiting nearly always, but that is not where its time goes."""
    jobs = queue.SimpleQueue()

    def pool(stop):
        while jobs.get():
            for _ in range(10):
                spinning()

    def feed(stop):
        while not stop.wait(0.003):
            jobs.put(True)
        jobs.put(False)

    of_pool = Counter()
    with running(("pool_0", pool), ("feeder", feed)):
        # On a busy machine little of it is done in a second, and what is split by three samples is split badly.
        while of_pool.total() < 300_000_000:
            for (stack, labels), values in taken(1.0).samples.items():
                if dict(labels)["thread"].startswith("pool"):
                    of_pool[stack[0].function.rpartition(".")[2]] += values[-1]
    assert of_pool["spinning"] == max(of_pool.values()), of_pool
    assert of_pool["pool"] < 0.3 * of_pool.total()


def test_work_in_c_counts_where_it_is_called():
    data = bytes(range(256)) * 2000

    def packs(stop):
        while not stop.is_set():
            zlib.compress(data, 9)

    with running(("packs", packs)):
        found = by_function(taken())
    assert max(found, key=found.__getitem__) == "packs"


def test_the_wall_mode_counts_those_that_wait():
    with running(("idle", waits_for_a_lock)):
        profile = taken(0.3, wall=True)
    found = by_function(profile, inside=True)
    assert profile.kinds[-1] == ("wall", "nanoseconds")
    assert 0.7 * profile.duration < found["waits_for_a_lock"] <= 1.05 * profile.duration


def test_threads_that_start_and_end_meanwhile_do_no_harm():
    def spawns(stop):
        while not stop.is_set():
            threads = [threading.Thread(target=burn, args=(0.001,)) for _ in range(5)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    with running(("spawns", spawns)):
        profile = taken()
    found = by_function(profile, inside=True)
    assert profile.total() > 0
    assert found.get("burn", 0) + found.get("(threads that ended between samples)", 0) > 0


def test_the_thread_that_samples_is_left_out_and_nothing_stays_behind():
    before, interval = threading.active_count(), sys.getswitchinterval()
    with running(("idle", waits_for_a_lock)):
        profile = taken(0.2, wall=True)
    assert "sample" not in by_function(profile, inside=True)
    assert (threading.active_count(), sys.getswitchinterval()) == (before, interval)


def test_profiles_at_the_same_time_leave_the_switch_interval_as_it_was():
    usual = sys.getswitchinterval()
    samplers = [
        threading.Thread(target=sample, args=(0.3, 1000, threading.Event().wait), kwargs={"wall": True})
        for _ in range(4)
    ]
    try:
        for thread in samplers:
            thread.start()
        for thread in samplers:
            thread.join()
        assert sys.getswitchinterval() == pytest.approx(usual)
    finally:
        sys.setswitchinterval(usual)


def test_a_stop_ends_it_early():
    stop = threading.Event()
    stop.set()
    began = time.monotonic()
    profile = sample(300, 100, stop.wait)
    assert time.monotonic() - began < 60
    assert profile.duration < 60e9


def größe_é(depth, stop):
    if depth:
        größe_é(depth - 1, stop)
    else:
        busy_loop(stop)


def test_deep_and_strangely_named_calls_are_told_and_endless_ones_cut():
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(5000)
    try:
        with running(("deep", lambda stop: größe_é(300, stop)), ("deeper", lambda stop: größe_é(2000, stop))):
            profile = taken()
    finally:
        sys.setrecursionlimit(limit)
    stacks = {dict(labels)["thread"]: stack for (stack, labels) in profile.samples}
    assert sum(frame.function.endswith(".größe_é") for frame in stacks["deep"]) == 301
    assert stacks["deep"][-1].function.startswith("threading.")
    assert (len(stacks["deeper"]), stacks["deeper"][-1].function) == (1001, "(more calls, left out)")


# ------------------------------------------------------------------ what the kernel tells


def test_the_clock_of_a_thread_that_has_ended_stands_still():
    clocks = CpuClocks()
    thread = threading.Thread(target=burn, args=(0.01,))
    thread.start()
    native = thread.native_id
    thread.join()
    until(lambda: native not in clocks.rest())
    assert clocks.used(native) == 0


def test_a_thread_that_waits_for_a_lock_is_told_from_one_that_works():
    with running(("idle", waits_for_a_lock), ("busy", busy_loop)):
        natives = {thread.name: thread.native_id for thread in threading.enumerate()}
        if is_waiting(natives["idle"]) is None:
            pytest.skip("this kernel does not tell what a thread waits for")
        until(lambda: is_waiting(natives["idle"]))
        assert [is_waiting(natives["busy"]) for _ in range(20)].count(True) == 0
