"""Publishing on the SQLite source: the outbox, threads, forks, locks."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from patron import correlation
from patron.errors import ConfigError, PublishFailed, SourceError
from patron.sources.sqlite import Outgoing, SqlitePublisher, SqliteSource
from patron.testing.until import until


@pytest.fixture(params=["sqlite3", "apsw"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> SqliteSource:
    return SqliteSource(tmp_path / "queue.db", "orders", driver=request.param)


@pytest.fixture
def publisher(source: SqliteSource) -> Iterator[SqlitePublisher]:
    publisher = source.publisher()
    yield publisher
    publisher.close()


def found(source: SqliteSource) -> list[bytes]:
    return [message.body for message in source.browse()]


def test_publish_in_is_there_when_the_user_commits_and_wakes_the_consumer(source, publisher):
    connection, subscription = source.connect(), source.open()
    connection.execute("CREATE TABLE paid (id TEXT)")
    connection.execute("BEGIN")
    connection.execute("INSERT INTO paid VALUES ('o1')")
    id_ = publisher.publish_in(connection, "orders", b"o1", key="k", headers={"a": "b"})
    assert subscription.poll(1, 0.05) == ()
    connection.execute("COMMIT")
    (message,) = subscription.poll(1, 10)
    assert (message.id, message.body, message.key, message.headers) == (id_, b"o1", "k", {"a": "b"})
    subscription.close()
    connection.close()


def test_inside_an_operation_every_way_of_publishing_carries_its_correlation_id(source, publisher):
    connection = source.connect()
    with correlation.use("order-17"):
        publisher.publish("orders", b"one")
        publisher.publish_many([Outgoing("orders", b"two"), Outgoing("orders", b"three", headers={"a": "b"})])
        connection.execute("BEGIN")
        publisher.publish_in(connection, "orders", b"four", headers={"x-correlation-id": "its-own"})
        connection.execute("COMMIT")
    publisher.publish("orders", b"outside")
    connection.close()
    carried = {message.body: message.headers for message in source.browse()}
    assert carried == {
        b"one": {"X-Correlation-Id": "order-17"},
        b"two": {"X-Correlation-Id": "order-17"},
        b"three": {"X-Correlation-Id": "order-17", "a": "b"},
        b"four": {"x-correlation-id": "its-own"},
        b"outside": {},
    }


def test_publish_in_never_was_when_the_user_rolls_back(source, publisher):
    connection = source.connect()
    connection.execute("BEGIN")
    publisher.publish_in(connection, "orders", b"1")
    publisher.publish_in(connection, "orders", b"2", delay=0.01)
    connection.execute("ROLLBACK")
    publisher.publish("orders", b"3")
    assert found(source) == [b"3"]
    connection.close()


def test_a_transaction_is_all_or_nothing_and_waits_for_its_turn(source, publisher):
    connection, other = source.connect(), source.connect()
    connection.execute("CREATE TABLE paid (id TEXT PRIMARY KEY)")
    with source.transaction(connection):
        connection.execute("INSERT INTO paid VALUES ('o1')")
        publisher.publish_in(connection, "orders", b"o1")

    def pay_twice() -> None:
        with source.transaction(connection):
            publisher.publish_in(connection, "orders", b"o2")
            connection.execute("INSERT INTO paid VALUES ('o1')")

    with pytest.raises((sqlite3.IntegrityError, apsw.ConstraintError)):
        pay_twice()
    other.execute("BEGIN IMMEDIATE")
    ender = threading.Timer(0.2, other.execute, ("COMMIT",))
    ender.start()
    with source.transaction(connection):
        publisher.publish_in(connection, "orders", b"o4")
    ender.join()
    assert found(source) == [b"o1", b"o4"]
    assert list(connection.execute("PRAGMA busy_timeout")) == [(5000,)]
    connection.close()
    other.close()


def test_a_transaction_that_never_gets_its_turn_says_so(tmp_path):
    source = SqliteSource(tmp_path / "queue.db", "orders", busy_timeout=0.1)
    connection, other = source.connect(), source.connect()
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(SourceError, match=r"locked for 0\.1 s"), source.transaction(connection):
        raise AssertionError("not reached")
    other.close()
    connection.close()


def test_publish_in_takes_a_plain_connection_of_the_user_and_stops_its_checkpoints(tmp_path):
    source = SqliteSource(tmp_path / "queue.db", "orders")
    publisher = source.publisher()
    publisher.publish("orders", b"1")
    connection = sqlite3.connect(tmp_path / "queue.db")
    connection.row_factory = sqlite3.Row
    with connection:
        publisher.publish_in(connection, "orders", b"2")
    assert connection.execute("PRAGMA wal_autocheckpoint").fetchone()[0] == 0
    connection.close()
    assert found(source) == [b"1", b"2"]
    publisher.close()


def test_publish_in_takes_a_connection_that_attached_the_file(tmp_path):
    source = SqliteSource(tmp_path / "queue.db", "orders")
    publisher = source.publisher()
    publisher.publish("orders", b"1")
    connection = sqlite3.connect(tmp_path / "mine.db")
    connection.execute("ATTACH ? AS 'my \"queue\"'", (str(tmp_path / "queue.db"),))
    with connection:
        assert publisher.publish_in(connection, "orders", b"2") == "2"
    connection.close()
    assert found(source) == [b"1", b"2"]
    publisher.close()


def test_publish_in_refuses_another_file_and_another_library(source, publisher, tmp_path):
    publisher.publish("orders", b"1")
    if source.driver == "sqlite3":
        same, other = sqlite3.connect(tmp_path / "other.db"), apsw.Connection(str(tmp_path / "other.db"))
    else:
        same, other = apsw.Connection(str(tmp_path / "other.db")), sqlite3.connect(tmp_path / "other.db")
    with pytest.raises(ConfigError, match="needs a connection to"):
        publisher.publish_in(same, "orders", b"2")
    with pytest.raises(ConfigError, match="two SQLite libraries on one file"):
        publisher.publish_in(other, "orders", b"2")
    same.close()
    other.close()


def test_publish_many_is_all_or_nothing_and_gives_ids_in_order(source, publisher):
    ids = publisher.publish_many([Outgoing("orders", b"%d" % n) for n in range(1200)])
    assert ids == [str(n) for n in range(1, 1201)]
    mixed = publisher.publish_many(
        [Outgoing("orders", b"a"), Outgoing("orders", b"b", delay=9), Outgoing("x", b"c")]
    )
    assert mixed == ["1201", "d1", "1202"]
    with pytest.raises(PublishFailed):
        publisher.publish_many([Outgoing("orders", b"1"), Outgoing("orders", b"2", key="\ud800")])
    assert len(source.browse(limit=5000)) == 1201


@pytest.mark.parametrize("wrong", [{"topic": "\ud800"}, {"key": "a\0b"}, {"topic": "a\0b"}])
def test_what_cannot_be_stored_is_refused(publisher, wrong):
    with pytest.raises(PublishFailed):
        publisher.publish(**{"topic": "orders", "body": b"", **wrong})


def test_threads_share_one_publisher_and_each_gets_its_own_ids(source, publisher):
    ids: list[tuple[str, bytes]] = []

    def work(number: int) -> None:
        for n in range(50):
            body = b"%d-%d" % (number, n)
            ids.append((publisher.publish("orders", body, key=str(number)), body))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = {message.id: message.body for message in source.browse(limit=1000)}
    assert len(ids) == 400
    assert kept == dict(ids)


def test_one_bad_message_does_not_spoil_those_that_wait_with_it(tmp_path):
    source = SqliteSource(tmp_path / "queue.db", "orders", max_bytes=400_000, busy_timeout=30)
    publisher, blocker = source.publisher(), source.connect()
    publisher.publish("orders", b"first")
    outcomes: dict[str, object] = {}

    def work(name: str, body: bytes) -> None:
        try:
            outcomes[name] = publisher.publish("orders", body)
        except Exception as error:
            outcomes[name] = error

    blocker.execute("BEGIN IMMEDIATE")  # while it holds the lock, the others gather
    bodies = {"leader": b"1", "small": b"2", "huge": b"x" * 2_000_000, "tiny": b"3"}
    threads = [threading.Thread(target=work, args=item) for item in bodies.items()]
    for thread in threads:
        thread.start()
        time.sleep(0.02)
    blocker.execute("COMMIT")
    for thread in threads:
        thread.join()
    assert type(outcomes.pop("huge")).__name__ == "StorageFull"
    assert all(isinstance(outcome, str) for outcome in outcomes.values()), outcomes
    assert sorted(found(source)) == [b"1", b"2", b"3", b"first"]
    blocker.close()
    publisher.close()


def test_a_lock_that_is_held_too_long_fails_the_publish_and_not_the_next(tmp_path):
    source = SqliteSource(tmp_path / "queue.db", "orders", busy_timeout=0.1)
    publisher, blocker = source.publisher(), source.connect()
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(PublishFailed, match=r"locked for 0\.1 s"):
        publisher.publish("orders", b"1")
    blocker.execute("ROLLBACK")
    publisher.publish("orders", b"2")
    assert found(source) == [b"2"]
    blocker.close()
    publisher.close()


def in_a_child(work: Callable[[], object]) -> str:
    """What *work* returned or raised in a forked child, which dies when it is stuck."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        try:
            os.write(writer, repr(work()).encode())
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


def test_a_publisher_that_was_made_before_the_fork_opens_in_the_child(source, publisher):
    assert in_a_child(lambda: publisher.publish("orders", b"child")) == "'1'"
    publisher.publish("orders", b"parent")
    assert found(source) == [b"child", b"parent"]


def test_a_child_refuses_what_its_parent_had_open_and_leaves_it_whole(source, publisher):
    publisher.publish("orders", b"1")
    said = in_a_child(lambda: publisher.publish("orders", b"child"))
    assert said.startswith("ConfigError")
    assert "was open when this process was forked" in said
    assert in_a_child(publisher.close) == "None"
    assert "was open when this process was forked" in in_a_child(source.open)
    publisher.publish("orders", b"2")
    assert found(source) == [b"1", b"2"]


def test_a_child_that_is_forked_while_a_thread_publishes_is_not_stuck(source, publisher):
    publisher.publish("orders", b"first")
    blocker = source.connect()
    blocker.execute("BEGIN IMMEDIATE")
    thread = threading.Thread(target=publisher.publish, args=("orders", b"thread"))
    thread.start()
    until(publisher._turn.locked)
    assert "was open when" in in_a_child(lambda: publisher.publish("orders", b"child"))
    blocker.execute("COMMIT")
    thread.join()
    blocker.close()


def test_a_closed_publisher_says_so(publisher):
    publisher.close()
    publisher.close()
    with pytest.raises(PublishFailed, match="closed"):
        publisher.publish("orders", b"1")
