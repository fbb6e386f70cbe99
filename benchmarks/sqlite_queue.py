"""
How fast the SQLite source moves messages, beside a bare batched sqlite3 loop in the same run.

    python benchmarks/sqlite_queue.py [--seconds 3] [--driver sqlite3] [--folder /var/tmp]

Publishers and consumers are processes of their own. "through" is what was acknowledged by all
consumers in a second, while the publishers publish as fast as they can; they wait when the backlog
grows beyond 20,000.
"""

from __future__ import annotations

import sys

# This folder comes first on the path of a script, and its http.py would hide the standard library's.
sys.path.append(sys.path.pop(0).removesuffix("benchmarks"))

import argparse
import contextlib
import multiprocessing
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from patron.sources.sqlite import Outgoing, SqliteSource, sqlite_version

BODY = b'{"customer": "c1", "items": [{"sku": "A1", "quantity": 2}]}' * 4
BATCH = 100
BACKLOG = 20_000


def main() -> None:
    arguments = _arguments()
    for name in ("sqlite3", "apsw"):
        with contextlib.suppress(ImportError):
            print(sqlite_version(name))
    for synchronous in ("full", "normal"):
        print(f"\nsynchronous={synchronous}, {len(BODY)} bytes, batches of {BATCH}, msg/s")
        bare = _bare(arguments.folder, synchronous, arguments.seconds)
        print(f"  bare sqlite3 loop, one process, no leases    {bare:9,.0f}")
        for publishers, consumers in ((1, 1), (2, 1), (1, 2), (2, 2)):
            rate = _through(arguments, synchronous, publishers, consumers, BATCH)
            print(
                f"  through, {publishers} publishers, {consumers} consumers          {rate:9,.0f}   {rate / bare:.2f}"
            )
        print(
            f"  through, single publishes, 2 and 2           {_through(arguments, synchronous, 2, 2, 1):9,.0f}"
        )
        alone = _published_alone(arguments, synchronous)
        print(
            f"  publish alone, one message a commit          {alone[0]:9,.0f}   longest {alone[1] * 1000:.0f} ms"
        )
        threads = _published_by_threads(arguments, synchronous, 8)
        print(f"  publish, one message a call, 8 threads       {threads:9,.0f}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--driver", default="sqlite3")
    parser.add_argument(
        "--folder", default=None, help="where the file goes: a real disk, or FULL means nothing"
    )
    return parser.parse_args()


def _bare(folder: str | None, synchronous: str, seconds: float) -> float:
    """Insert a batch, read it, delete it: what sqlite3 can do without any promise."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        connection = sqlite3.connect(Path(name) / "bare.db", isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute(
            "CREATE TABLE queue (id INTEGER PRIMARY KEY AUTOINCREMENT, topic, key, headers, body, at)"
        )
        connection.execute("CREATE INDEX ordered ON queue (topic, id)")
        done, end, started = 0, time.monotonic() + seconds, time.monotonic()
        while time.monotonic() < end:
            connection.execute("BEGIN IMMEDIATE")
            rows = [("orders", f"c{n}", "{}", BODY, time.time()) for n in range(BATCH)]
            connection.executemany(
                "INSERT INTO queue (topic, key, headers, body, at) VALUES (?, ?, ?, ?, ?)", rows
            )
            connection.execute("COMMIT")
            found = connection.execute(
                "SELECT * FROM queue WHERE topic = 'orders' ORDER BY id LIMIT 100"
            ).fetchall()
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("DELETE FROM queue WHERE id = ?", [(row[0],) for row in found])
            connection.execute("COMMIT")
            done += len(found)
        connection.close()
        return done / (time.monotonic() - started)


def _through(
    arguments: argparse.Namespace, synchronous: str, publishers: int, consumers: int, batch: int
) -> float:
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        source = SqliteSource(Path(name) / "q.db", "orders", synchronous=synchronous, driver=arguments.driver)
        source.open().close()
        results = [_start(_consume, source, arguments.seconds) for _ in range(consumers)]
        writers = [_start(_publish, source, arguments.seconds, batch) for _ in range(publishers)]
        rates = [_result(*one) for one in results]
        for one in writers:
            _result(*one)
        return sum(rates)


def _start(work: Callable[..., None], *arguments: Any) -> tuple[Any, Any]:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(*arguments, sender))
    process.start()
    return process, receiver


def _result(process: Any, receiver: Any) -> Any:
    value = receiver.recv()
    process.join()
    return value


def _consume(source: SqliteSource, seconds: float, answer: Any) -> None:
    subscription = source.open()
    while not (messages := subscription.poll(BATCH, 1.0)):
        pass
    done, started, end = 0, time.monotonic(), time.monotonic() + seconds
    while time.monotonic() < end:
        subscription.ack(messages)
        done += len(messages)
        messages = subscription.poll(BATCH * 2, 0.2)
    answer.send(done / (time.monotonic() - started))
    subscription.close()


def _publish(source: SqliteSource, seconds: float, batch: int, answer: Any) -> None:
    publisher, counter = source.publisher(), source.open()
    sent, end = 0, time.monotonic() + seconds + 1.0
    while time.monotonic() < end:
        for _ in range(max(1, 1000 // batch)):
            publisher.publish_many([Outgoing("orders", BODY, f"c{sent + n}") for n in range(batch)])
            sent += batch
        while (counter.stats().lag or 0) > BACKLOG and time.monotonic() < end:
            time.sleep(0.002)
    answer.send(sent)
    counter.close()
    publisher.close()


def _published_alone(arguments: argparse.Namespace, synchronous: str) -> tuple[float, float]:
    """Publishes a second of one thread, and the longest of them, while another process publishes too."""
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        source = SqliteSource(Path(name) / "q.db", "orders", synchronous=synchronous, driver=arguments.driver)
        source.open().close()
        other = _start(_publish_singly, source, arguments.seconds + 1)
        mine = _start(_publish_singly, source, arguments.seconds)
        rate, longest = _result(*mine)
        rate_2, longest_2 = _result(*other)
        return rate + rate_2, max(longest, longest_2)


def _publish_singly(source: SqliteSource, seconds: float, answer: Any) -> None:
    publisher = source.publisher()
    done, longest, started, end = 0, 0.0, time.monotonic(), time.monotonic() + seconds
    while (before := time.monotonic()) < end:
        publisher.publish("orders", BODY, key="c1")
        longest, done = max(longest, time.monotonic() - before), done + 1
    answer.send((done / (time.monotonic() - started), longest))
    publisher.close()


def _published_by_threads(arguments: argparse.Namespace, synchronous: str, threads: int) -> float:
    import threading

    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        source = SqliteSource(Path(name) / "q.db", "orders", synchronous=synchronous, driver=arguments.driver)
        publisher, end, counts = source.publisher(), time.monotonic() + arguments.seconds, [0] * threads

        def work(number: int) -> None:
            while time.monotonic() < end:
                publisher.publish("orders", BODY, key="c1")
                counts[number] += 1

        workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        started = time.monotonic()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        publisher.close()
        return sum(counts) / (time.monotonic() - started)


if __name__ == "__main__":
    main()
