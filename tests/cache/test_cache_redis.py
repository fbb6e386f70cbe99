"""The store in Redis: the contract, own keys only, outages, forks, secrets."""

from __future__ import annotations

import multiprocessing
import socket
import threading
import time
import uuid
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

import pytest
from brokers.redis_server import Redis, RedisServer

from patron.cache import RedisStore, Store, open_store
from patron.cache.metrics import METRICS
from patron.errors import CacheError, ConfigError, MissingExtra
from patron.observe import metrics
from patron.testing import capture, until
from patron.testing.stores import StoreContract


class TestRedisStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _server(self, redis: RedisServer) -> None:
        self.server = redis

    def store(self) -> Store:
        # A long time-out: this machine may be busy, and the contract is not about outages.
        return RedisStore(self.server.url, self.prefix, timeout=10, connect_timeout=10)


@pytest.fixture
def prefix() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


def test_purge_touches_the_keys_of_its_own_prefix_only(redis: RedisServer, prefix: str) -> None:
    stores = {
        name: RedisStore(redis.url, f"{prefix}{name}", timeout=10)
        for name in ("", "2", "*", "?", "[2]", "-a")
    }
    for store in stores.values():
        store.set("key", b"value", 60)
    for chosen in ("*", "?", "[2]", ""):
        stores[chosen].purge()
        assert stores.pop(chosen).get("key") is None
        assert [store.get("key") for store in stores.values()] == [b"value"] * len(stores)


def test_purge_includes_the_prefixes_that_continue_its_own(redis: RedisServer, prefix: str) -> None:
    service, cache = RedisStore(redis.url, prefix), RedisStore(redis.url, f"{prefix}:cache")
    cache.set("key", b"value", 60)
    service.purge()
    assert cache.get("key") is None


def test_a_unix_socket_is_a_way_in(own_redis: Redis) -> None:
    store = RedisStore(f"unix://{own_redis.socket}?db=1", timeout=10)
    store.set("key", b"value", 60)
    assert store.get("key") == b"value"
    store.close()


def test_the_connection_is_closed_with_the_last_store_that_uses_it(own_redis: Redis) -> None:
    first, second = (RedisStore(own_redis.url, name, timeout=10) for name in "ab")
    first.set("key", b"value", 60)
    second.set("key", b"value", 60)
    assert _connections(own_redis) == 1
    first.close()
    assert second.get("key") == b"value"
    second.close()
    until(lambda: _connections(own_redis) == 0)
    with pytest.raises(CacheError, match="the store is closed"):
        first.get("key")


def _connections(server: Redis) -> int:
    listed = server.say("CLIENT", "LIST").decode()
    return sum("cmd=client" not in line for line in listed.splitlines() if "id=" in line)


def test_nothing_is_connected_before_the_first_call() -> None:
    store = RedisStore("redis://127.0.0.1:1/0")
    store.close()


def test_a_dead_redis_is_a_cache_error_and_the_next_calls_do_not_even_try() -> None:
    store = RedisStore("redis://:hunter2@127.0.0.1:1/0")
    with pytest.raises(CacheError, match=r"redis at redis://127.0.0.1:1/0: GET failed: .*"):
        store.get("key")
    refused = 0
    for call in (lambda: store.get("key"), lambda: store.set("key", b"", 1), store.purge):
        with pytest.raises(CacheError) as caught:
            call()
        refused += "not asked" in str(caught.value)
    assert refused
    store.close()


def test_a_redis_that_hangs_costs_its_time_out_once_in_a_while_and_comes_back_by_itself(
    own_redis: Redis,
) -> None:
    store, patient = RedisStore(own_redis.url, timeout=0.1), RedisStore(own_redis.url, timeout=10)
    patient.set("key", b"value", 60)
    own_redis.freeze()
    with capture() as seen:
        for _ in range(500):
            with pytest.raises(CacheError):
                store.get("key")
        asked = len(seen.operations)
        assert asked < 100, "the others were not even asked"
        own_redis.thaw()
        until(lambda: _get(store) == b"value")
    until(lambda: all(_get(store) == b"value" for _ in range(50)))
    store.close()
    patient.close()


def test_a_redis_that_was_restarted_is_found_again_by_itself(own_redis: Redis) -> None:
    store = RedisStore(own_redis.url, timeout=10)
    store.set("key", b"value", 60)
    own_redis.kill()
    with pytest.raises(CacheError):
        store.get("key")
    own_redis.start()
    until(lambda: _set(store))
    assert store.get("key") == b"value"
    store.close()


def test_a_restart_that_nobody_saw_costs_no_failure(own_redis: Redis) -> None:
    """The pool looks at a connection before it gives it out."""
    store = RedisStore(own_redis.url, timeout=10)
    store.set("key", b"value", 60)
    own_redis.restart()
    assert store.get("key") is None
    store.close()


def _get(store: Store) -> bytes | None:
    try:
        return store.get("key")
    except CacheError:
        return None


def _set(store: Store) -> bool:
    try:
        store.set("key", b"value", 60)
    except CacheError:
        return False
    return True


def test_an_outage_is_logged_when_it_begins_and_when_it_ends(
    own_redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    store = RedisStore(own_redis.url, timeout=10)
    store.get("key")
    own_redis.kill()
    for _ in range(20):
        _get(store)
    own_redis.start()
    until(lambda: _set(store))
    store.close()
    assert caplog.text.count("redis failed") == 1
    assert caplog.text.count("redis works again") == 1


def test_what_redis_refuses_is_an_error_that_stops_nothing_else(redis: RedisServer, prefix: str) -> None:
    store = RedisStore(redis.url, prefix, timeout=10)
    store.set("text", b"value", 60)
    for _ in range(3):
        with pytest.raises(CacheError, match=r"EVAL(SHA)? failed: .*WRONGTYPE"):
            store.run(f"return redis.call('LPUSH', KEYS[1], '{prefix}')", ["text"])
    assert store.get("text") == b"value"
    store.close()


def test_an_answer_in_no_protocol_of_redis_is_a_failure_of_the_store() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with listener.accept()[0] as connection:
                while connection.recv(4096):
                    connection.sendall(b"$no number\r\n")

        server = threading.Thread(target=answer)
        server.start()
        store = RedisStore(f"redis://127.0.0.1:{listener.getsockname()[1]}", timeout=10)
        with pytest.raises(CacheError, match="GET failed"):
            store.get("key")
        store.close()
        server.join()


class Trickling:
    """A way to *server* that lets its answers through byte by byte, with a pause after each; for one connection."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self.pause = 0.0

    def __enter__(self) -> Self:
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        return self

    def _accept(self) -> None:
        with (
            self._listener.accept()[0] as self._here,
            socket.create_connection((self._server.host, self._server.port)) as there,
            suppress(OSError),
        ):
            here = self._here
            here.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._threads.append(threading.Thread(target=self._answer, args=(there, here)))
            self._threads[1].start()
            while command := here.recv(65536):
                there.sendall(command)
            there.shutdown(socket.SHUT_RDWR)
            self._threads[1].join()

    def _answer(self, there: socket.socket, here: socket.socket) -> None:
        with suppress(OSError):
            while byte := there.recv(1):
                here.sendall(byte)
                self._over.wait(self.pause)

    def __exit__(self, *error: object) -> None:
        self._over.set()
        with suppress(OSError):  # the client has closed it, as it should
            self._here.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()


def test_an_answer_that_trickles_costs_one_time_out_and_not_one_for_each_piece(redis: RedisServer) -> None:
    """Each piece comes soon enough, and it would be 20 seconds until all were there."""
    fill = RedisStore(redis.url, "trickling", timeout=10, connect_timeout=10)
    fill.set("key", b"x" * 400, 60)
    with Trickling(redis) as way:
        store = RedisStore(way.url, "trickling", timeout=1, connect_timeout=10)
        store.get("nothing")  # it is connected
        way.pause = 0.05
        with pytest.raises(CacheError, match="GET failed: Timeout reading from"):
            store.get("key")
        store.close()
    fill.close()


def test_an_answer_in_pieces_is_one_answer_and_each_one_has_its_own_time(redis: RedisServer) -> None:
    with Trickling(redis) as way:
        store = RedisStore(way.url, "trickling", timeout=10, connect_timeout=10)
        store.set("key", b"hello" * 50, 60)
        assert [store.get("key") for _ in range(5)] == [b"hello" * 50] * 5
        store.close()


def test_a_script_is_sent_again_when_redis_forgot_it(redis: RedisServer, prefix: str) -> None:
    store = RedisStore(redis.url, prefix, timeout=10)
    script = "return {KEYS[1], ARGV[1]}"
    expected = [f"{prefix}:key".encode(), b"\xff"]
    assert store.run(script, ["key"], [b"\xff"]) == expected
    redis.say("SCRIPT", "FLUSH")
    assert store.run(script, ["key"], [b"\xff"]) == expected
    store.close()


def test_a_fork_uses_connections_of_its_own(redis: RedisServer, prefix: str) -> None:
    store = RedisStore(redis.url, prefix, timeout=10)
    store.set("parent", b"p" * 1000, 60)
    store.set("child", b"c" * 1000, 60)

    def child(answers: Connection) -> None:
        answers.send([store.get("child") for _ in range(300)].count(b"c" * 1000))

    here, there = multiprocessing.get_context("fork").Pipe()
    process = multiprocessing.get_context("fork").Process(target=child, args=(there,))
    process.start()
    assert [store.get("parent") for _ in range(300)] == [b"p" * 1000] * 300
    assert here.recv() == 300
    process.join()
    here.close()
    there.close()
    store.close()


def test_a_fork_finds_out_for_itself_whether_redis_is_there() -> None:
    store = RedisStore("redis://127.0.0.1:1/0", "fork")
    with pytest.raises(CacheError):
        store.get("key")
    context = multiprocessing.get_context("fork")
    said = context.SimpleQueue()

    def child() -> None:
        try:
            store.get("key")
        except CacheError as error:
            said.put(str(error))

    process = context.Process(target=child)
    process.start()
    assert "GET failed" in said.get()
    process.join()
    said.close()
    store.close()


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://:hunter2@host", "use redis://, rediss://, unix://"),
        ("redis://:hunter2@", "name the host"),
        ("redis://:hunter2@host:x", "the port is a number"),
        ("redis://:hunter2@host:70000", "the port is a number"),
        ("redis://:hunter2@host/first", "'first' is no database"),
        ("redis://:hunter2@host?db=x", "db is 'x': use a number"),
        ("redis://:hunter2@host?socket_timeout=soon", "socket_timeout is 'soon': use seconds above 0"),
        ("redis://:hunter2@host?no_such_option=1", "an option in the URL is unknown: .*no_such_option"),
        ("redis://:hunter2@host?max_connections=many", "an option in the URL is wrong: .*max_connections"),
        ("rediss://:hunter2@host?ssl_cert_reqs=maybe", "an option in the URL is wrong: .*maybe"),
        ("redis://:hun/ter2@host", "special characters in a password are percent-encoded"),
        ("redis://:1/hun?ter2@host", "special characters in a password are percent-encoded"),
        ("redis://:1?db=hun#ter2@host", "special characters in a password are percent-encoded"),
        ("unix://:hunter2@", "name the socket"),
    ],
)
def test_a_wrong_url_is_refused_when_built_and_never_shown_with_its_password(url: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        RedisStore(url)
    assert "hun" not in str(caught.value)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_time_out_is_seconds_above_0(seconds: float) -> None:
    with pytest.raises(ConfigError, match=r"timeout is .*: use seconds above 0"):
        RedisStore("redis://host", timeout=seconds)


def test_an_empty_prefix_is_refused_since_purge_would_take_everything() -> None:
    with pytest.raises(ConfigError, match="the prefix is empty"):
        RedisStore("redis://host", "")


def test_a_password_is_in_no_text_nor_span_nor_log(
    own_redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    own_redis.say("CONFIG", "SET", "requirepass", "hunter2")
    right = RedisStore(own_redis.url.replace("://", "://:hunter2@"), timeout=10)
    wrong = RedisStore(own_redis.url.replace("://", "://app:hunter3@"), timeout=10)
    with capture() as seen:
        right.set("key", b"value", 60)
        with pytest.raises(CacheError) as caught:
            wrong.get("key")
    assert "redis failed" in caplog.text
    assert (
        "hunter"
        not in f"{right!r} {wrong!r} {caught.value} {caught.value.__cause__} {caplog.text} {seen.operations}"
    )
    right.close()
    wrong.close()


def test_a_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "redis", None)
    with pytest.raises(MissingExtra, match=r'pip install "patron\[redis\]"'):
        RedisStore("redis://host-of-this-test")


def test_commands_are_counted_by_name_and_success(redis: RedisServer, prefix: str) -> None:
    store = RedisStore(redis.url, prefix, timeout=10)
    with capture() as seen:
        store.set("key", b"value", 60)
        store.get("key")
        with pytest.raises(CacheError):
            store.run("no lua", ["key"])
    store.close()
    assert [(each.kind, each.system, each.name, each.outcome) for each in seen.operations] == [
        ("client", "redis", "set", "true"),
        ("client", "redis", "get", "true"),
        ("client", "redis", "evalsha", "false"),
        ("client", "redis", "eval", "false"),
    ]
    page = metrics.exposition()[0].decode()
    assert 'client_redis_cmd_duration_seconds_count{command="eval",success="false"}' in page
    assert METRICS[0] in metrics.all_definitions()


def test_while_one_call_waits_for_a_hanging_redis_the_others_do_not(own_redis: Redis) -> None:
    """After the first failure a single thread tries at a time."""
    store = RedisStore(own_redis.url, timeout=0.2)
    own_redis.freeze()
    with pytest.raises(CacheError):
        store.get("key")
    asked: list[str] = []

    def work() -> None:
        for _ in range(20):
            try:
                store.get("key")
            except CacheError as error:
                asked.append(str(error))
            time.sleep(0.01)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tried = [text for text in asked if "not asked" not in text]
    assert len(asked) == 160
    assert len(tried) <= 40
    own_redis.thaw()
    store.close()


def test_a_setting_becomes_a_store(redis: RedisServer, prefix: str, tmp_path: Path) -> None:
    memory, shared = open_store("memory", size=1), open_store(redis.url, prefix=prefix)
    assert repr(memory) == "<LRUStore 0 entries>"
    assert repr(shared) == f"<RedisStore {redis.url} prefix={prefix!r}>"
    shared.close()


def test_a_resource_that_is_a_store_is_used_and_not_closed() -> None:
    owned = open_store("memory")
    store = open_store("answers", {"answers": owned})
    store.set("key", b"value", 60)
    store.close()
    assert owned.get("key") == b"value"


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("answers", r"'answers' is no resource of the service \(there are: db\): use \"memory\""),
        ("db", "the resource is a dict, which has not all of get, set, delete, purge and close"),
        ("", "store is ''"),
        (5, "store is 5"),
        ("memcached://host", "use redis://, rediss://, unix://"),
    ],
)
def test_a_setting_that_is_no_store_is_refused_with_what_there_is(spec: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        open_store(spec, {"db": {}})


@pytest.mark.parametrize("spec", ["redis:/:hunter2@host", "redis//:hunter2@host/0", ":hunter2@host"])
def test_a_misspelled_url_is_refused_without_its_password(spec: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(spec, {})
    assert "'...@host" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_every_metric_stands_on_the_page_of_stores() -> None:
    page = (Path(__file__).parents[2] / "docs" / "stores.md").read_text()
    assert [each.name for each in METRICS if f"| `{each.name}` |" not in page] == []
