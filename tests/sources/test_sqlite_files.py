"""The SQLite source and its file: another program's, a full disk, a moved file, an old schema."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from patron.errors import ConfigError, ConnectionLost, NotASource, PublishFailed, StorageFull
from patron.sources.sqlite import (
    SqlitePublisher,
    SqliteSource,
    SqliteSubscription,
    SqliteVersion,
    sqlite_version,
)

pytest.importorskip("apsw")


@pytest.fixture(params=["sqlite3", "apsw"])
def driver(request: pytest.FixtureRequest) -> str:
    return request.param


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def refused(path: Path, driver: str, error: type[Exception] = NotASource) -> str:
    """What the source says of the file, which must not change by it."""
    before = contents(path.parent)
    source = SqliteSource(path, "orders", driver=driver)
    with pytest.raises(error) as of_subscription:
        source.open()
    publisher = source.publisher()
    with pytest.raises((error, PublishFailed)):
        publisher.publish("orders", b"1")
    publisher.close()
    assert contents(path.parent) == before
    assert str(path) in str(of_subscription.value)
    return str(of_subscription.value)


def foreign(path: Path, mode: str = "delete", application: int = 0) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA journal_mode = {mode}")
    connection.execute(f"PRAGMA application_id = {application}")
    connection.execute("CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT)")
    connection.execute("INSERT INTO customers (name) VALUES ('Ada')")
    connection.commit()
    return connection


def test_a_sqlite_file_of_another_program_is_refused_unchanged(tmp_path, driver):
    foreign(tmp_path / "their.db").close()
    assert "tables customers" in refused(tmp_path / "their.db", driver)


def test_one_in_wal_mode_is_refused_unchanged_too(tmp_path, driver):
    foreign(tmp_path / "their.db", "wal").close()
    assert "tables customers" in refused(tmp_path / "their.db", driver)


def test_one_that_its_program_has_open_with_everything_in_the_log_is_refused(tmp_path):
    theirs = foreign(tmp_path / "their.db", "wal")
    log = tmp_path / "their.db-wal"
    before = log.read_bytes(), (tmp_path / "their.db").read_bytes()
    with pytest.raises(NotASource, match="customers"):
        SqliteSource(tmp_path / "their.db", "orders").open()
    assert (log.read_bytes(), (tmp_path / "their.db").read_bytes()) == before
    theirs.close()


def test_an_empty_sqlite_file_with_the_mark_of_another_program_is_refused(tmp_path, driver):
    connection = foreign(tmp_path / "their.db", application=0x1234)
    connection.execute("DROP TABLE customers")
    connection.commit()
    connection.close()
    assert "application id 0x1234" in refused(tmp_path / "their.db", driver)


def test_a_file_that_is_no_sqlite_file_is_refused_unchanged(tmp_path, driver):
    (tmp_path / "notes.txt").write_bytes(b"Dear diary, today I was taken for a queue. " * 100)
    assert "not a SQLite file" in refused(tmp_path / "notes.txt", driver)


def test_a_directory_is_refused(tmp_path, driver):
    (tmp_path / "folder").mkdir()
    assert "is a directory" in refused(tmp_path / "folder", driver)


def test_adopt_keeps_the_queue_beside_the_tables_of_another_program(tmp_path, driver):
    foreign(tmp_path / "their.db", application=0x1234).close()
    SqliteSource(tmp_path / "their.db", "orders", driver=driver, adopt=True).open().close()
    source = SqliteSource(tmp_path / "their.db", "orders", driver=driver)  # ours now, and still theirs
    source.open().close()
    connection = source.connect()
    assert list(connection.execute("SELECT name FROM customers")) == [("Ada",)]
    assert list(connection.execute("PRAGMA application_id")) == [(0x1234,)]
    connection.close()


def test_an_empty_file_and_a_missing_folder_become_a_queue(tmp_path, driver):
    (tmp_path / "empty.db").touch()
    for path in (tmp_path / "empty.db", tmp_path / "a" / "b" / "new ?#%41.db"):
        publisher = SqliteSource(path, "orders", driver=driver).publisher()
        assert publisher.publish("orders", b"1") == "1"
        publisher.close()
        assert path.stat().st_size


def test_users_own_tables_live_in_our_file(tmp_path, driver):
    source = SqliteSource(tmp_path / "queue.db", "orders", driver=driver)
    connection = source.connect()
    connection.execute("CREATE TABLE outcomes (id TEXT PRIMARY KEY)")
    connection.execute("PRAGMA user_version = 7")
    connection.close()
    source.open().close()


def test_a_file_of_a_newer_patron_is_refused(tmp_path, driver):
    source = SqliteSource(tmp_path / "queue.db", "orders", driver=driver)
    connection = source.connect()
    connection.execute("UPDATE patron_meta SET value = 99 WHERE name = 'schema'")
    connection.close()
    assert "schema 99, this Patron knows 1: upgrade" in refused(tmp_path / "queue.db", driver, ConfigError)


def test_a_file_that_was_replaced_while_open_is_noticed(tmp_path, driver):
    source = SqliteSource(tmp_path / "queue.db", "orders", driver=driver)
    publisher, subscription = source.publisher(), source.open()
    publisher.publish("orders", b"1")
    (tmp_path / "queue.db").rename(tmp_path / "old.db")
    with pytest.raises(PublishFailed, match="moved, deleted or replaced"):
        publisher.publish("orders", b"2")
    with pytest.raises(ConnectionLost, match="moved, deleted or replaced"):
        poll_for_ever(subscription)
    subscription.close()
    publisher.close()


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that other users may read: the folders of pytest are private."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def poll_for_ever(subscription: SqliteSubscription) -> None:
    while True:
        subscription.poll(1, 0.01)


def test_what_cannot_be_written_is_a_mistake_in_the_settings(public_folder):
    if os.geteuid() != 0:
        pytest.skip("needs root, to be somebody else for a moment")
    source = SqliteSource(public_folder / "queue.db", "orders")
    source.open().close()
    code = (
        "import os, sqlite3, sys; from patron.sources.sqlite import SqliteSource; os.seteuid(65534)\n"
        "try: SqliteSource(sys.argv[1], 'orders').open()\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    (public_folder / "closed").mkdir(mode=0o700)
    (public_folder / "shared").mkdir()
    (public_folder / "shared").chmod(0o777)
    (public_folder / "shared" / "root.db").write_bytes((public_folder / "queue.db").read_bytes())
    for path, culprit in (
        (public_folder / "queue.db", f"folder {public_folder}"),
        (public_folder / "sub" / "new.db", f"folder {public_folder}"),
        (public_folder / "closed" / "new.db", f"folder {public_folder}/closed"),
        (public_folder / "shared" / "root.db", f"file {public_folder}/shared/root.db"),
    ):
        shown = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60
        )
        assert shown.stdout.startswith("ConfigError"), shown
        assert str(path) in shown.stdout
        assert f"user 65534 may not write to the {culprit}: let it, or choose another" in shown.stdout


def test_a_file_at_its_limit_refuses_whole_messages_and_takes_them_again_later(tmp_path, driver):
    source = SqliteSource(tmp_path / "queue.db", "orders", driver=driver, max_bytes=400_000)
    fills_and_empties(source)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.decode()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_refuses_whole_messages_and_takes_them_again_later(small_disk, driver):
    source = SqliteSource(small_disk / "queue.db", "orders", driver=driver)
    fills_and_empties(source)


def test_a_log_that_fills_the_disk_is_copied_so_that_consumers_go_on(small_disk, driver):
    source = SqliteSource(small_disk / "queue.db", "orders", driver=driver)
    publisher, connection = source.publisher(), source.connect()
    for number in range(5):
        publisher.publish("orders", b"%d" % number)
    connection.execute("CREATE TABLE mine (body BLOB)")
    connection.execute("INSERT INTO mine VALUES (randomblob(20000))")
    connection.close()
    publisher.close()  # the last one copies the log, so that the file has room for all that follows
    subscription, connection = source.open(), source.connect()
    for size in (20_000, 10):  # down to the last page
        with pytest.raises(StorageFull):
            write_for_ever(source, connection, size)
    assert drained(subscription) == [b"0", b"1", b"2", b"3", b"4"]
    subscription.close()
    connection.close()


def write_for_ever(source: SqliteSource, connection: Any, size: int) -> None:
    while True:
        with source.transaction(connection):
            connection.execute("UPDATE mine SET body = randomblob(?)", (size,))


def fills_and_empties(source: SqliteSource) -> None:
    publisher, subscription = source.publisher(), source.open()
    try:
        refuses_and_takes_again(publisher, subscription)
    finally:
        subscription.close()
        publisher.close()
    connection = source.connect()
    assert list(connection.execute("PRAGMA integrity_check")) == [("ok",)]
    connection.close()


def refuses_and_takes_again(publisher: SqlitePublisher, subscription: SqliteSubscription) -> None:
    kept = 0
    with contextlib.suppress(StorageFull):
        while True:
            publisher.publish("orders", b"%6d" % kept + b"x" * 5000, key=f"k{kept % 3}")
            kept += 1
    assert kept > 20
    with pytest.raises(StorageFull, match="no space left"):
        publisher.publish("orders", b"\xff" * 60_000)
    found = drained(subscription)
    assert sorted(int(body[:6]) for body in found) == list(range(kept))
    for number in range(10):
        publisher.publish("orders", b"%6d" % number, key="k")
    assert len(drained(subscription)) == 10


def drained(subscription: SqliteSubscription) -> list[bytes]:
    """Everything that is there, acked."""
    found: list[bytes] = []
    while messages := subscription.poll(10, 0.05):
        subscription.ack(messages)
        found += [message.body for message in messages]
    return found


def test_settings_are_checked_all_at_once():
    with pytest.raises(ConfigError) as caught:
        SqliteSource("q.db", "", synchronous="off", poll_interval=0, lane_limit=0, max_bytes=5)
    assert len(caught.value.problems) == 5


def test_the_version_says_whether_sqlite_has_the_fix_of_the_wal_reset_bug():
    assert sqlite_version() == SqliteVersion("sqlite3", sqlite3.sqlite_version, sqlite_version().fixed)
    assert sqlite_version("apsw").fixed


@pytest.mark.parametrize(
    ("version", "fixed"),
    [
        *[("3.44.6", True), ("3.50.7", True), ("3.51.3", True), ("3.54.1.0", True)],
        *[("3.40.1", False), ("3.45.0", False), ("3.50.6", False), ("3.51.2", False)],
    ],
)
def test_which_versions_have_the_fix(monkeypatch, version, fixed):
    monkeypatch.setattr(sqlite3, "sqlite_version", version)
    assert sqlite_version().fixed is fixed


def test_a_sqlite_that_is_too_old_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.31.1")
    with pytest.raises(ConfigError, match=r"3\.31\.1 of sqlite3 is too old"):
        SqliteSource(tmp_path / "queue.db", "orders").open()


def test_two_libraries_never_open_one_file_in_one_process(tmp_path):
    one, other = (SqliteSource(tmp_path / "queue.db", "orders", driver=name) for name in ("sqlite3", "apsw"))
    subscription = one.open()
    with pytest.raises(ConfigError, match="open by sqlite3 in this process, so apsw would destroy it"):
        other.open()
    subscription.close()
    other.open().close()
    one.open().close()
