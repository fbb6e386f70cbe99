"""The SQLite source between processes, some of which are killed: nothing confirmed is lost, order holds."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from patron.errors import SourceError
from patron.sources.sqlite import Outgoing, SqliteSource
from patron.testing.until import until

LIMIT = 20  # messages that a consumer process holds at most
KEYS = 5  # of each publisher process


# What runs in the other processes: this file, with a role.


def publish_for_ever(source: SqliteSource, record: int) -> None:
    """Publish one by one and in batches, and write down what was confirmed."""
    publisher, number = source.publisher(), 0
    while True:
        size = random.choice([1, 1, 1, 10])
        batch = [(f"{os.getpid()}-{n % KEYS}", n) for n in range(number, number + size)]
        publisher.publish_many([Outgoing(source.topic, b"%d" % n, key) for key, n in batch])
        os.write(record, "".join(f"{key} {n}\n" for key, n in batch).encode())
        number += size


def consume_for_ever(source: SqliteSource, record: int) -> None:
    """Write down every message before it is acked."""
    subscription = source.open()
    while True:
        for message in (messages := subscription.poll(LIMIT, 1.0)):
            os.write(record, b"%s %s\n" % (message.key.encode(), message.body))
        cut = random.randint(0, len(messages))
        subscription.ack(messages[:cut])
        subscription.ack(messages[cut:])


def hold_for_ever(source: SqliteSource, record: int) -> None:
    """Take what there is, and tell so."""
    subscription = source.open()
    while not subscription.poll(100, 1.0):
        pass
    os.write(record, b"held\n")
    subscription.poll(0, 1000)


def fork_and_hold_for_ever(source: SqliteSource, record: int) -> None:
    """Take what there is, and have a child that lives longer; its pid is written down."""
    subscription = source.open()
    while not subscription.poll(100, 1.0):
        pass
    child = os.fork()
    if child == 0:
        time.sleep(1000)
    os.write(record, b"%d\n" % child)
    subscription.poll(0, 1000)


class Processes:
    """Other processes on one queue file, killed at the end of the test at the latest."""

    def __init__(self, source: SqliteSource, folder: Path) -> None:
        self.source = source
        self.folder = folder
        self.running: list[tuple[str, subprocess.Popen[bytes]]] = []

    def start(self, role: str) -> subprocess.Popen[bytes]:
        source = self.source
        arguments = [
            str(source.path),
            source.topic,
            source.driver,
            source.synchronous,
            str(source.checkpoint_pages),
        ]
        process = subprocess.Popen([sys.executable, __file__, role, str(self.folder / role), *arguments])
        self.running.append((role, process))
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        self.running = [entry for entry in self.running if entry[1] is not process]

    def kill_all(self) -> None:
        for _, process in self.running:
            process.kill()
            process.wait()
        self.running.clear()

    def lines(self, role: str) -> list[str]:
        """What the processes of *role* wrote down, whole lines only."""
        path = self.folder / role
        return path.read_text().split("\n")[:-1] if path.exists() else []


@pytest.fixture(params=["sqlite3", "apsw"])
def processes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Processes]:
    pytest.importorskip(request.param)
    # Few pages between checkpoints, so that many processes die in one.
    source = SqliteSource(tmp_path / "queue.db", "orders", driver=request.param, checkpoint_pages=30)
    found = Processes(source, tmp_path)
    yield found
    found.kill_all()


def test_leases_of_a_killed_process_are_taken_back_at_once(processes):
    publisher, subscription = processes.source.publisher(), processes.source.open()
    holder = None
    try:
        holder = processes.start("hold_for_ever")
        ids = publisher.publish_many([Outgoing("orders", b"%d" % n, f"k{n % 3}") for n in range(10)])
        until(lambda: processes.lines("hold_for_ever"))
        taken = [message.id for message in subscription.poll(100, 0.2)]
        holder.send_signal(signal.SIGSTOP)  # it hangs, and lives: what it holds is its own
        assert not set(taken) & {message.id for message in subscription.poll(100, 0.3)}
        processes.kill(holder)
        back = []
        while len(back) + len(taken) < len(ids):
            more = subscription.poll(100, 10)
            assert more
            back += more
        assert {message.deliveries for message in back} == {2}
    finally:
        subscription.close()
        publisher.close()


def test_a_child_that_outlives_its_parent_keeps_no_lease(processes):
    publisher, subscription = processes.source.publisher(), processes.source.open()
    child = 0
    try:
        holder = processes.start("fork_and_hold_for_ever")
        until(lambda: processes.source.path.exists())
        while not (lines := processes.lines("fork_and_hold_for_ever")):
            publisher.publish("orders", b"1")
            subscription.ack(subscription.poll(1, 0.05))
        child = int(lines[0])
        waiting = subscription.poll(100, 0.1)
        subscription.ack(waiting)
        processes.kill(holder)
        (message,) = subscription.poll(1, 10)
        assert message.deliveries == 2
    finally:
        if child:
            os.kill(child, signal.SIGKILL)
        subscription.close()
        publisher.close()


def test_an_idle_consumer_notices_a_message_of_another_process(processes):
    subscription = processes.source.open()
    try:
        processes.start("publish_for_ever")
        assert subscription.poll(1, 20)
    finally:
        subscription.close()


@pytest.mark.parametrize("synchronous", ["full", "normal"])
def test_nothing_confirmed_is_lost_and_order_holds_while_processes_are_killed(processes, synchronous):
    seconds = float(os.environ.get("PATRON_KILL_SECONDS", "4"))
    processes.source = SqliteSource(
        processes.source.path, "orders", synchronous, driver=processes.source.driver, checkpoint_pages=30
    )
    kills = 0
    for role in ("publish_for_ever", "consume_for_ever") * 2:
        processes.start(role)
    end = time.monotonic() + seconds
    until(lambda: processes.lines("consume_for_ever"))
    while time.monotonic() < end:
        time.sleep(random.uniform(0.02, 0.4))
        role, process = random.choice(processes.running)
        assert process.poll() is None, f"{role} ended by itself"
        processes.kill(process)
        processes.start(role)
        kills += 1
    processes.kill_all()
    processes.start("consume_for_ever")
    until(lambda: processes.source.topics() == {}, 60)
    processes.kill_all()
    check(processes, kills)


def check(processes: Processes, kills: int) -> None:
    confirmed = {tuple(line.split()) for line in processes.lines("publish_for_ever")}
    processed = [tuple(line.split()) for line in processes.lines("consume_for_ever")]
    assert confirmed
    assert confirmed - set(processed) == set(), "lost"
    assert len(processed) - len(set(processed)) <= (kills + 2) * LIMIT, "more duplicates than were in flight"
    numbers: dict[str, list[int]] = defaultdict(list)
    for key, number in dict.fromkeys(processed):
        numbers[key].append(int(number))
    assert all(found == sorted(found) for found in numbers.values()), "out of order"
    connection = sqlite3.connect(processes.source.path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("SELECT count(*) FROM patron_leases").fetchall() == [(0,)]
    connection.close()


def main(role: str, record: str, path: str, topic: str, driver: str, synchronous: str, pages: str) -> None:
    source = SqliteSource(Path(path), topic, synchronous, driver=driver, checkpoint_pages=int(pages))
    descriptor = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        globals()[role](source, descriptor)
    except SourceError as error:
        sys.exit(f"{role}: {error!r}")


if __name__ == "__main__":
    main(*sys.argv[1:])
