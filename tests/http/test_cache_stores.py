"""No failure of the store is a failure of a request, and nothing that is not ours is served."""

from __future__ import annotations

import math
import struct
import zlib

import pytest
from cache_world import Clock, Plain, balanced, operations, world
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import Client
from werkzeug.wrappers import Response as Reply

from patron.cache import LRUStore, RedisStore
from patron.errors import CacheError, ConfigError
from patron.http import Response, RouteCache, build, cached, cached_app, get, put
from patron.http.caching.entry import Damaged, Entry, Kept, decoded, encoded
from patron.observe import capture
from patron.resources import use
from patron.testing import until


class Broken:
    """A store of which some methods fail."""

    def __init__(self, inner, *broken, error=CacheError("gone")):
        self._inner, self._broken, self._error = inner, broken, error

    def __getattr__(self, name):
        if name in self._broken:
            raise self._error
        return getattr(self._inner, name)


@pytest.mark.parametrize("error", [CacheError("gone"), OSError(5), TypeError("?"), MemoryError()], ids=repr)
def test_a_store_that_fails_is_as_if_it_were_empty(error):
    with world() as w:
        w.store = Broken(w.store, "get", "set", "delete", error=error)
        answers = [w.get() for _ in range(3)]
        assert [a.json for a in answers] == [{"run": 1}, {"run": 2}, {"run": 3}]
        assert w.counts() == {"miss": 3, "not_cacheable:store": 3, "error:get": 3, "error:set": 3}
        assert answers[0].headers["Age"] == "0"


def test_what_could_not_be_stored_is_shared_with_those_who_wait_nevertheless():
    with world() as w:
        w.store = Broken(w.store, "set")
        assert w.get(If_None_Match="*").status_code == 304


def test_a_store_that_comes_back_is_used_again():
    with world() as w:
        good = w.store
        w.get()
        w.store = Broken(good, "get", "set")
        assert w.get().json == {"run": 2}
        w.store = good
        assert w.get().json == {"run": 1}


def test_an_entry_that_cannot_be_removed_is_no_failure():
    with world() as w:
        w.get()
        w.clock.now += 10
        w.store = Broken(w.store, "delete")
        w.processor = lambda request: Response({}, 410)
        assert w.get(Cache_Control="no-cache").status_code == 410
        assert w.counts()["error:delete"] == 1


def test_what_has_gone_is_not_served_from_the_store_any_more():
    with world() as w:
        w.get()
        w.processor = lambda request: Response({}, 410)
        assert w.get(Cache_Control="no-cache").status_code == 410
        assert w.get().status_code == 410


def test_the_log_says_that_the_store_failed_now_and_then():
    with capture() as seen, world() as w:
        w.store = Broken(w.store, "get")
        for _ in range(50):
            w.get()
        lines = [line for line in seen.lines if line["msg"] == "route cache store failed"]
        assert len(lines) == 1
        assert lines[0]["operation"] == "get"
        assert lines[0]["route"] == "/it/<name>"


def test_a_store_outside_of_the_process_is_given_bytes_and_seconds():
    with world(max=30, stale_if_error=60) as w:
        w.store = store = Plain()
        first = w.get()
        w.clock.now += 2
        again = w.get()
        assert (again.data, again.headers["Age"], w.runs) == (first.data, "2", 1)
        assert store.ttls == [90]
        [(key, value)] = store.kept.items()
        assert type(value) is bytes
        assert key.startswith("world:/it/<name>:")
        assert "a" * 3 not in key


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:7],
        lambda data: b"",
        lambda data: data + b"x",
        lambda data: data[:40] + b"\0" + data[41:],
        lambda data: data[:-2] + b"9" + data[-1:],
        lambda data: b"PRC9" + data[4:],
        lambda data: b'{"Response":{"Bytes":"aGVsbG8="},"LastValid":1}',
        lambda data: b"\x80\x04\x95.",
        lambda data: "text",
        lambda data: 7,
    ],
)
def test_an_entry_that_is_damaged_or_not_ours_is_a_miss_and_an_error(damage):
    with world() as w:
        w.store = store = Plain()
        w.get()
        [(key, value)] = store.kept.items()
        store.kept[key] = damage(value)
        assert w.get().json == {"run": 2}
        assert w.get().json == {"run": 2}
        assert w.counts() == {"miss": 2, "added": 2, "hit": 1, "error:decode": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"status": "foo"},
        {"status": ""},
        {"status": "304 Not Modified"},
        {"headers": [["A", "b\r\nX-Evil: c"]]},
        {"headers": [["A", "€"]]},
        {"headers": [["A B", "c"]]},
        {"headers": [["Content-Length", "99"]]},
        {"born": math.nan},
        {"born": math.inf},
        {"lifetime": math.nan},
        {"lifetime": math.inf},
        {"window": math.inf},
    ],
    ids=str,
)
def test_an_entry_that_could_not_be_sent_or_would_last_for_ever_is_damaged_though_its_checksum_is_right(
    change,
):
    good = entry([("A", "b")], b"hello")
    for name, value in change.items():
        setattr(good, name, value)
    with pytest.raises(Damaged):
        decoded(bytes(encoded(good)))


def entry(headers=(), body=b"") -> Entry:
    return Entry("200 OK", list(headers), body, born=1.5, lifetime=2.5, window=3.5, etag='"x"', modified=None)


LATIN = st.text(st.characters(max_codepoint=255, categories=("L", "N", "P", "Zs")), max_size=20)


NAMES = st.from_regex(r"X-[A-Za-z0-9]{1,9}", fullmatch=True)


@given(st.lists(st.tuples(NAMES, LATIN), max_size=5), st.binary(max_size=200))
def test_an_entry_comes_out_of_its_bytes_as_it_was(headers, body):
    one = entry(headers, body)
    other = decoded(bytes(encoded(one)))
    assert [getattr(other, name) for name in Entry.__slots__] == [
        getattr(one, name) for name in Entry.__slots__
    ]


@given(st.binary(max_size=100))
def test_no_bytes_make_it_fail_in_another_way(data):
    checked = struct.pack(">4sII", b"PRC2", zlib.crc32(data), len(data)) + data
    for foreign in (data, checked):
        with pytest.raises(Damaged):
            decoded(foreign)


def test_the_memory_store_gives_the_decoded_entry_back():
    store = LRUStore()
    one = entry()
    store.set("a", encoded(one), 10)
    found = store.get("a")
    assert type(found) is Kept
    assert decoded(found) is one


def test_what_a_full_memory_store_removes_is_counted_apart():
    before = operations()
    app = build(routes=[get("/x/<name>", lambda request: {}, cache=RouteCache(max=30, size=2))])
    app.start({})
    for number in range(5):
        assert Client(app).get(f"/x/{number}").status_code == 200
    counts = dict(operations() - before)
    assert counts == {"miss": 5, "added": 5, "evicted:capacity": 3}
    assert balanced(counts)
    app.close()


def test_other_settings_find_nothing_of_what_was_kept_before():
    store = Plain()
    for settings in (
        RouteCache(30, store="s"),
        RouteCache(20, store="s"),
        RouteCache(30, store="s", vary=("A",)),
    ):
        app = build(routes=[get("/x", lambda request: {}, cache=settings)])
        app.start({"s": store})
        Client(app).get("/x")
    assert len(store.kept) == 3


def test_two_services_on_one_store_share_nothing():
    store = Plain()
    for name in ("one", "two"):
        route = get("/x", lambda request, name: {"service": name}, cache=RouteCache(30, store="s"))
        app = build(routes=[route], name=name)
        app.start({"s": store, "name": name})
        assert Client(app).get("/x").json == {"service": name}


def test_two_services_with_the_cache_as_a_middleware_share_nothing_either():
    with use({"s": Plain()}):
        for name in ("one", "two"):
            settings = RouteCache(30, store="s")
            route = get("/x", lambda request, name: {"service": name}, middlewares=(cached(settings),))
            mounts = {"/m": cached_app(settings)(Reply(name))}
            app = build(routes=[route], mounts=mounts, name=name)
            app.start({"name": name})
            for _ in range(2):
                assert Client(app).get("/x").json == {"service": name}
                assert Client(app).get("/m/x").text == name


def test_an_entry_from_a_clock_that_is_ahead_is_new():
    with world() as w:
        w.get()
        w.clock.now -= 100
        answer = w.get()
        assert (answer.json, answer.headers["Age"]) == ({"run": 1}, "0")


def test_the_clock_of_the_tests_stands_still():
    clock = Clock()
    assert clock() == clock()


def test_what_a_cache_says_of_itself_has_no_password_and_a_wrong_address_is_refused_at_once() -> None:
    assert "secret" not in repr(RouteCache(max=1, store="redis://:secret@localhost:6379/0"))
    with pytest.raises(ConfigError, match=r"store .*") as refused:
        RouteCache(max=1, store="redis://:secret@localhost:port/0")
    assert "secret" not in str(refused.value)


def test_keys_in_redis_have_the_name_of_the_service_once(own_redis) -> None:
    routes = [get("/x", lambda request: {}, cache=RouteCache(30, store=own_redis.url))]
    app = build(routes=routes, name="shop")
    app.start({})
    until(lambda: Client(app).get("/x").status_code == 200 and own_redis.say("DBSIZE") == b":1\r\n")
    assert own_redis.say("KEYS", "*").split(b"\r\n")[2].startswith(b"shop:cache:/x:")
    app.close()


@pytest.mark.parametrize(
    "commands",
    [
        ["CONFIG SET maxmemory 1"],
        ["REPLICAOF 127.0.0.1 1"],
    ],
    ids=["a full one", "a replica"],
)
def test_a_redis_that_only_reads_serves_what_it_has_and_keeps_no_request_from_its_answer(own_redis, commands):
    runs: list[int] = []
    route = get("/x/<name>", lambda r: {"run": runs.append(1) or len(runs)}, cache=RouteCache(30, store="s"))
    store = RedisStore(own_redis.url, timeout=10, connect_timeout=10)
    app = build(routes=[route])
    app.start({"s": store})
    client = Client(app)
    assert client.get("/x/a").json == {"run": 1}
    for command in commands:
        assert own_redis.say(*command.split()) == b"+OK\r\n"
    before = operations()
    asked = ("/x/a", "/x/b", "/x/b", "/x/a")
    assert [client.get(path).json["run"] for path in asked] == [1, 2, 3, 1]
    counts = operations() - before
    assert counts == {"hit": 2, "miss": 2, "not_cacheable:store": 2, "error:set": 2}
    assert balanced(counts)
    store.close()


def test_what_was_flushed_in_redis_is_made_anew(own_redis):
    runs: list[int] = []
    routes = [
        get("/x", lambda r: {"run": runs.append(1) or len(runs)}, cache=RouteCache(30, store="s")),
        put("/x", lambda r: None),
    ]
    store = RedisStore(own_redis.url, timeout=10, connect_timeout=10)
    app = build(routes=routes)
    app.start({"s": store})
    client = Client(app)
    assert [client.get("/x").json["run"] for _ in range(2)] == [1, 1]
    assert client.put("/x").status_code == 204
    assert client.get("/x").json == {"run": 2}
    own_redis.say("FLUSHALL")  # the entry, and the mark that says that the one before is old
    assert [client.get("/x").json["run"] for _ in range(2)] == [3, 3]
    store.close()
