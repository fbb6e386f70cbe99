"""Metrics of several processes on one page: exact, whole while they are written, and going on in a reused slot."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from test_metrics import check

from patron.observe import Instrument, MetricSet, metrics

WORKER = """
import sys, threading, prometheus_client  # imported first, as some library of the user may do
from pathlib import Path
from patron.observe import metrics
slot, directory, threads, count, series = int(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:6])
metrics.start(slot, directory)
handled = metrics.Counter("test_handled_total", "Handled.", ("path",))
seconds = metrics.Histogram("test_seconds", "Took.", ("path",))
busy = metrics.Gauge("test_busy", "Busy now.")
own = prometheus_client.Counter("test_own_total", "The user's own.")
def work():
    for number in range(count):
        path = str(number % series)
        handled.bind(path=path).inc()
        seconds.bind(path=path).observe(0.01)
        own.inc()
busy.bind().set(slot)
running = [threading.Thread(target=work) for _ in range(threads)]
for each in running: each.start()
for each in running: each.join()
print("done", flush=True)
sys.stdin.read()
"""

Start = Callable[..., "subprocess.Popen[bytes]"]


def start_worker(
    process: Start, directory: Path, slot: int, threads: int = 1, count: int = 100, series: int = 1
):
    arguments = (slot, directory, threads, count, series)
    return process(WORKER, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def finish(worker: subprocess.Popen[bytes]) -> None:
    assert worker.communicate(timeout=60)[0] == b"done\n"


def page(directory: Path) -> str:
    metrics.start(99, directory)
    return metrics.exposition()[0].decode()


def total(text: str, name: str) -> float:
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))


def test_every_increment_of_four_processes_is_counted_once_and_scrapes_meanwhile_only_grow(
    process: Start, tmp_path: Path
) -> None:
    workers = [start_worker(process, tmp_path, slot, threads=3, count=4000, series=400) for slot in range(4)]
    seen = 0.0
    while total(text := page(tmp_path), "test_handled_total") < 48_000:
        now = total(text, "test_handled_total")
        assert now >= seen
        seen = now
    for worker in workers:
        finish(worker)
    text = page(tmp_path)
    assert (
        total(text, "test_handled_total")
        == total(text, "test_seconds_count")
        == total(text, "test_own_total")
        == 48_000
    )
    assert total(text, "test_busy") == 0 + 1 + 2 + 3
    assert check(text) == ""


def test_a_killed_process_is_still_counted_and_the_next_one_in_its_slot_goes_on(
    process: Start, tmp_path: Path
) -> None:
    first = start_worker(process, tmp_path, 2)
    assert first.stdout is not None
    assert first.stdout.readline() == b"done\n"
    assert total(page(tmp_path), "test_busy") == 2
    first.kill()
    first.wait()

    metrics.forget(2, tmp_path)
    text = page(tmp_path)
    assert total(text, "test_handled_total") == 100
    assert "test_busy" not in text, "nobody is busy any more"

    finish(start_worker(process, tmp_path, 2))
    text = page(tmp_path)
    assert total(text, "test_handled_total") == total(text, "test_seconds_count") == 200
    assert total(text, "test_busy") == 2


def test_forgetting_a_slot_leaves_the_ones_alone_whose_number_ends_alike(tmp_path: Path) -> None:
    for slot in (1, 11):
        metrics.start(slot, tmp_path)
        metrics.Gauge("test_busy", "Busy now.").bind().set(slot)
    metrics.forget(1, tmp_path)
    assert total(page(tmp_path), "test_busy") == 11


def test_a_file_that_was_created_this_moment_does_not_break_the_page(tmp_path: Path) -> None:
    (tmp_path / "counter_7.db").touch()
    metrics.start(1, tmp_path)
    metrics.Counter("test_handled_total", "Handled.").bind().inc()
    assert total(metrics.exposition()[0].decode(), "test_handled_total") == 1


def test_a_process_forked_from_a_worker_does_not_disturb_its_counts(tmp_path: Path) -> None:
    metrics.start(1, tmp_path)
    child = metrics.Counter("test_handled_total", "Handled.").bind()
    child.inc()
    if (pid := os.fork()) == 0:
        try:
            child.inc(100)
            metrics.Counter("test_more_total", "More.").bind().inc()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    child.inc()
    text = metrics.exposition()[0].decode()
    assert total(text, "test_handled_total") == 2
    assert "test_more_total" not in text


@pytest.mark.parametrize("labels", [(), ("path",)])
def test_metrics_of_the_user_that_were_made_before_the_start_are_on_the_page_of_all(
    labels: tuple[str, ...], process: Start, tmp_path: Path
) -> None:
    script = f"""
import sys
from pathlib import Path
from prometheus_client import Counter, Gauge, Histogram, Summary
kinds = (Counter, Gauge, Histogram, Summary)
made = [make("test_" + make.__name__.lower(), "Made early.", {labels!r}) for make in kinds]
counter, gauge, histogram, summary = (each.labels("/") if {labels!r} else each for each in made)
counter.inc(2)
from patron.observe import metrics
metrics.start(int(sys.argv[1]), Path(sys.argv[2]))
counter.inc(3)
gauge.inc(4)
histogram.observe(0.3)
summary.observe(5)
"""
    for slot in (1, 2):
        assert process(script, slot, tmp_path).wait(timeout=60) == 0
    text = page(tmp_path)
    assert total(text, "test_counter_total") == 10
    assert total(text, "test_gauge") == 8
    assert total(text, "test_histogram_count") == total(text, "test_summary_count") == 2
    assert total(text, "test_summary_sum") == 10


def test_an_instrument_counts_in_the_new_place_after_the_metrics_were_started_again(tmp_path: Path) -> None:
    handled = metrics.Counter("test_handled_total", "Handled.", ("status",))
    instrument = Instrument("server", "http", "/", metrics=MetricSet(handled, None, "status"))
    instrument.start().finish()
    metrics.start(1, tmp_path)
    instrument.start().finish()
    assert total(metrics.exposition()[0].decode(), "test_handled_total") == 1


def test_a_child_that_is_still_held_when_the_files_are_closed_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "the user's own")
    metrics.start(1, tmp_path)
    gauge = metrics.Gauge("test_depth", "Depth.", across="livemostrecent").bind()
    gauge.set(1)
    metrics.reset()
    gauge.set(2)
    assert os.environ["PROMETHEUS_MULTIPROC_DIR"] == "the user's own"
