"""
How fast the consume engine is, beside a loop that does nothing but the bare work.

Everything is on: correlation id and unsampled trace read from every message's headers, metrics, log
to a file. Each round runs every case once, so that a busy moment of the machine meets all of them;
printed are the median of the rounds, the slowest and the fastest, and the ratio to the bare loop.

    python benchmarks/engine.py [--messages 30000] [--rounds 5] [--only memory,sqlite,slow]
"""

from __future__ import annotations

import sys

# This folder comes first on the path of a script, and its http.py would hide the standard library's.
sys.path.append(sys.path.pop(0).removesuffix("benchmarks"))

import argparse
import itertools
import json
import os
import platform
import queue
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from patron import observe
from patron.consumer import Consumer, Message, Source
from patron.correlation import CorrelationSettings
from patron.sources.memory import MemorySource, forget_broker, memory_broker
from patron.testing.driving import driven
from patron.testing.until import until

KEYS = 256
APART = 4096
"""So many partitions that no two of the keys share one, or the last of their messages would wait for each other."""
SLOW = 0.005
HEADERS = {
    "Content-Type": "application/json",
    "X-Correlation-Id": "5f0c2ad4-7c6c-4a39-9f5e-3b0f6f6f8a11",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
}
BODY = b'{"customer": "c1", "items": [{"sku": "A1", "quantity": 2}]}'


class Meter:
    """Counts calls of a processor, from the first on."""

    def __init__(self, work: Callable[[Any], Any], count: int) -> None:
        self._work = work
        self._count = count
        self._numbers = itertools.count(1)
        self.began = 0.0
        self.done = threading.Event()

    def __call__(self, item: Any) -> None:
        number = next(self._numbers)
        if number == 1:
            self.began = time.perf_counter()
        self._work(item)
        if number == self._count:
            self.done.set()

    def rate(self) -> float:
        """Items per second from the first call until now."""
        return self._count / (time.perf_counter() - self.began)


def consumed(source: Source, count: int, workers: int, work: Callable[[Message], Any]) -> float:
    """Messages per second, from the first that is processed until all are settled."""
    meter = Meter(work, count)

    # A function, for the engine looks at the parameters of its processor.
    def process(message: Message) -> None:
        meter(message)

    consumer = Consumer("bench", source, process, workers=workers)
    with driven(consumer):
        assert meter.done.wait(300), "not all messages were processed"
        until(lambda: consumer.info()["held"] == 0, 60, interval=0.001)
        return meter.rate()


def empty(message: Any) -> None:
    """The empty processor."""


def slow(message: Any) -> None:
    """A processor that waits for something."""
    time.sleep(SLOW)


def memory(
    count: int, workers: int, positional: bool, work: Callable[[Message], Any] = empty, partitions: int = 64
) -> float:
    """The engine on the memory source."""
    forget_broker("bench")
    broker = memory_broker("bench")
    broker.topic("orders", partitions)
    for number in range(count):
        broker.publish("orders", BODY, key=f"c{number % KEYS}", headers=HEADERS)
    return consumed(
        MemorySource("orders", positional=positional, partitions=partitions, broker="bench"),
        count,
        workers,
        work,
    )


def unordered(count: int, workers: int, work: Callable[[Message], Any]) -> float:
    """The engine on messages without a key."""
    forget_broker("bench")
    broker = memory_broker("bench")
    for _ in range(count):
        broker.publish("orders", BODY, headers=HEADERS)
    return consumed(MemorySource("orders", broker="bench"), count, workers, work)


def bare_queue(count: int, workers: int, work: Callable[[Any], Any]) -> float:
    """Threads that take from a `queue.Queue` and call the processor: no order, no ack, no failure policy."""
    items: queue.Queue[Any] = queue.Queue()
    for _ in range(count):
        items.put(BODY)
    for _ in range(workers):
        items.put(None)

    meter = Meter(work, count)

    def loop() -> None:
        while (item := items.get()) is not None:
            meter(item)
            items.task_done()

    threads = [threading.Thread(target=loop) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return meter.rate()


def embedded(count: int, workers: int, folder: Path, synchronous: Any) -> float:
    """The engine on the SQLite source."""
    from patron.sources.sqlite import SqliteSource

    source = SqliteSource(folder / f"q{time.monotonic_ns()}.db", "orders", synchronous=synchronous)
    publisher = source.publisher()
    try:
        from patron.sources.sqlite import Outgoing

        letters = [Outgoing("orders", BODY, f"c{number % KEYS}", HEADERS) for number in range(count)]
        for start in range(0, count, 1000):
            publisher.publish_many(letters[start : start + 1000])
    finally:
        publisher.close()
    return consumed(source, count, workers, empty)


def bare_sqlite(count: int, folder: Path, synchronous: str) -> float:
    """One connection that reads, processes and deletes 64 rows in one transaction, over and over."""
    path = folder / f"b{time.monotonic_ns()}.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute("CREATE TABLE queue (id INTEGER PRIMARY KEY, key TEXT, headers TEXT, body BLOB)")
    rows = [(f"c{number % KEYS}", json.dumps(HEADERS), BODY) for number in range(count)]
    with connection:
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO queue (key, headers, body) VALUES (?, ?, ?)", rows)
    began = time.perf_counter()
    left = count
    while left:
        connection.execute("BEGIN IMMEDIATE")
        batch = connection.execute("SELECT id, key, headers, body FROM queue ORDER BY id LIMIT 64").fetchall()
        for row in batch:
            json.loads(row[2])
            empty(row)
        connection.execute("DELETE FROM queue WHERE id <= ?", (batch[-1][0],))
        connection.execute("COMMIT")
        left -= len(batch)
    seconds = time.perf_counter() - began
    connection.close()
    return count / seconds


Case = tuple[str, str, Callable[[], float]]


def cases(count: int, folder: Path, only: set[str]) -> list[Case]:
    """Name, name of the bare case to compare with, and what to run."""
    found: list[Case] = []
    for workers in (1, 4, 16) if "memory" in only else ():
        bare = f"queue.Queue, {workers} workers"
        found += [
            (bare, bare, lambda w=workers: bare_queue(count, w, empty)),
            (f"memory queue, {workers} workers", bare, lambda w=workers: memory(count, w, False)),
            (f"memory log, {workers} workers", bare, lambda w=workers: memory(count, w, True)),
        ]
    for mode in ("full", "normal") if "sqlite" in only and _has_sqlite() else ():
        bare = f"bare sqlite3, {mode}, 1 thread"
        found.append((bare, bare, lambda m=mode: bare_sqlite(count, folder, m)))
        found += [
            (
                f"sqlite {mode}, {workers} workers",
                bare,
                lambda w=workers, m=mode: embedded(count, w, folder, m),
            )
            for workers in (1, 4, 16)
        ]
    if "slow" in only:
        few = min(count, 12_800)
        bare = "thread loop, 5 ms, 32 workers"
        found += [
            (bare, bare, lambda: bare_queue(few, 32, slow)),
            ("memory by key, 5 ms, 32 workers", bare, lambda: memory(few, 32, False, slow, APART)),
            ("memory unordered, 5 ms, 32 workers", bare, lambda: unordered(few, 32, slow)),
        ]
    return found


def _has_sqlite() -> bool:
    try:
        import patron.sources.sqlite  # noqa: F401
    except ImportError:
        return False
    return True


def report(found: list[Case], results: dict[str, list[float]]) -> None:
    """The table."""
    print(f"{'case':38} {'median/s':>10} {'slowest':>10} {'fastest':>10} {'of bare':>8}")
    for name, bare, _ in found:
        rates = results[name]
        pairs = zip(rates, results[bare], strict=True)
        ratio = statistics.median(rate / other for rate, other in pairs)
        print(
            f"{name:38} {statistics.median(rates):10,.0f} {min(rates):10,.0f} {max(rates):10,.0f} {ratio:8.3f}"
        )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--messages", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="memory,sqlite,slow")
    arguments = parser.parse_args()
    if unknown := set(arguments.only.split(",")) - {"memory", "sqlite", "slow"}:
        parser.error(f"--only has {sorted(unknown)}: use memory, sqlite and slow, joined by commas")
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name:
        folder = Path(name)
        sys.stderr.flush()
        saved = os.dup(2)
        os.dup2(os.open(folder / "log.jsonl", os.O_CREAT | os.O_WRONLY | os.O_APPEND), 2)
        observe.start(
            "bench",
            "1",
            log=observe.LogSettings(),
            trace=observe.TraceSettings(),
            correlation=CorrelationSettings(),
            slot=0,
            metrics_directory=folder,
        )
        found = cases(arguments.messages, folder, set(arguments.only.split(",")))
        results: dict[str, list[float]] = {case[0]: [] for case in found}
        try:
            for round_number in range(arguments.rounds + 1):
                for case, _, run in found:
                    rate = run()
                    # The first round warms up: imports, allocator, page cache.
                    if round_number:
                        results[case].append(rate)
        finally:
            observe.stop(1.0)
            os.dup2(saved, 2)
        print(
            f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {os.cpu_count()} processors"
        )
        print(f"{arguments.messages} messages, {arguments.rounds} rounds, metrics in mapped files")
        report(found, results)


if __name__ == "__main__":
    main()
