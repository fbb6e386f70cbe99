"""The pages below /debug/pprof/ give profiles to those who may have them, and clear answers to bad questions."""

from __future__ import annotations

import re
import socket
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from werkzeug.test import Client

from patron import Service
from patron.http import ApiKey, HttpSettings, build, get
from patron.profiling import Profiler
from patron.testing import Running, until

LOCAL = {"REMOTE_ADDR": "127.0.0.1"}
#: The client's deadline makes a profile of one second one of 0.1 s: for tests that do not look at its length.
SHORT = {"X-Request-Timeout-Ms": "600"}


def client(**options):
    settings = {key: options.pop(key) for key in ("debug", "admin_prefix", "host") if key in options}
    return Client(build(HttpSettings(**settings), name="shop", **options))


def ask(path, served=None, **options):
    return (served or client()).get(f"/debug/pprof/{path}", environ_base=LOCAL, **options)


class Asked:
    """An admin side of which only the profiler is asked."""

    def __init__(self, profiler):
        self._profiler = profiler

    def profiler(self):
        return self._profiler

    alive = ready = components = None


def test_a_cpu_profile_is_a_file_for_pprof(read_pprof):
    answer = ask("profile?seconds=1&hz=50")
    assert (answer.status_code, answer.content_type) == (200, "application/octet-stream")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="shop-cpu.pb.gz"'
    assert answer.headers["Cache-Control"] == "no-store"
    read = read_pprof(answer.data)
    assert read.kinds == [("samples", "count"), ("cpu", "nanoseconds")]
    assert read.message.period == 20_000_000
    assert 0.9e9 < read.message.duration_nanos < 30e9
    assert read.comments[0] == "service shop"


@pytest.mark.parametrize(
    ("query", "content_type", "start"),
    [
        ("debug=1", "text/plain", "cpu: "),
        ("format=text", "text/plain", "cpu: "),
        ("format=collapsed&mode=wall", "text/plain", ""),
        ("format=flamegraph", "text/html", "<!doctype html>"),
    ],
)
def test_a_profile_can_be_read_in_other_forms(query, content_type, start):
    answer = ask(f"profile?seconds=1&{query}", headers=SHORT)
    assert (answer.status_code, answer.mimetype) == (200, content_type)
    assert answer.text.startswith(start)


def test_the_flame_graph_may_run_its_own_script_and_no_other():
    answer = ask("profile?seconds=1&format=flamegraph", headers=SHORT)
    policy = answer.headers["Content-Security-Policy"]
    nonce = re.search(r"script-src 'nonce-([^']+)'", policy)[1]
    assert policy.startswith("default-src 'none'")
    assert f'<script nonce="{nonce}">' in answer.text
    assert nonce not in ask("profile?seconds=1&format=flamegraph", headers=SHORT).text


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("profile?seconds=0", "seconds is '0': use a number from 1 to 300"),
        ("profile?seconds=301", "from 1 to 300"),
        ("profile?seconds=nan", "seconds is 'nan'"),
        ("profile?seconds=inf", "seconds is 'inf'"),
        ("profile?seconds=", "seconds is ''"),
        ("profile?seconds=1_0", "seconds is '1_0'"),
        ("profile?seconds=%D9%A3", "seconds is '\\u0663'"),
        ("profile?hz=0", "hz is '0': use a number from 1 to 1000"),
        ("profile?hz=-5", "hz is '-5'"),
        ("profile?mode=gpu", "mode is 'gpu': use cpu, wall"),
        ("profile?format=pdf", "format is 'pdf': use pprof, text, collapsed, flamegraph"),
        ("profile?debug=3", "debug is '3'"),
        ("profile?debug=0.5", "use a whole number from 0 to 2"),
        ("profile?worker=first", "worker is 'first'"),
        ("profile?worker=0.5", "use a whole number"),
        ("profile?second=1", "unknown parameter 'second': use seconds, hz, mode"),
        ("profile?%0a%3Cb%3E=1", "unknown parameter '�<b>'"),
        ("profile?" + "&".join(f"a{n}=1" for n in range(50)), "the query cannot be read"),
        ("heap?frames=0", "frames is '0': use a number from 1 to 128"),
        ("heap?gc=yes", "gc is 'yes': use 0, 1"),
        ("threads?seconds=5", "unknown parameter 'seconds': use worker, format, debug"),
        ("cmdline?x=1", "unknown parameter 'x': there are none"),
    ],
)
def test_a_wrong_parameter_is_a_400_that_says_what_is_right(path, says):
    answer = ask(path)
    assert (answer.status_code, answer.content_type) == (400, "text/plain; charset=utf-8")
    assert says in answer.text
    assert answer.headers["X-Go-Pprof"] == "1"  # else go tool pprof would not show the text


def test_a_worker_that_is_not_there_is_a_404():
    answer = ask("profile?seconds=1&worker=7")
    assert (answer.status_code, answer.text) == (404, "there is no worker 7: use one of 0, or all\n")
    assert ask("profile?seconds=1&worker=0", headers=SHORT).status_code == 200
    assert ask("threads?worker=all").status_code == 200


def test_the_heap_is_told_while_it_is_traced(read_pprof):
    answer = ask("heap")
    assert answer.status_code == 409
    assert "PYTHONTRACEMALLOC=16" in answer.text
    assert "heap?seconds=30" in answer.text
    tracemalloc.start(2)
    try:
        kept = bytearray(5_000_000)
        answer = ask("heap?gc=1")
    finally:
        tracemalloc.stop()
    read = read_pprof(answer.data)
    assert read.kinds == [("inuse_objects", "count"), ("inuse_space", "bytes")]
    assert read.text[read.message.default_sample_type] == "inuse_space"
    assert read.top().endswith("test_the_heap_is_told_while_it_is_traced")
    assert len(kept) <= read.flat()[read.top()]
    assert ask("heap?seconds=1&frames=2&format=text", headers=SHORT).text.startswith("inuse_space: ")


def test_threads_are_text_or_a_profile(read_pprof):
    assert "threads\n\nthread " in ask("threads").text
    for path in ("threads?debug=0", "goroutine"):
        read = read_pprof(ask(path).data)
        assert read.kinds == [("threads", "count")]
        assert "MainThread" in {labels["thread"] for _, _, labels in read.samples}
    assert "MainThread" in ask("goroutine?debug=2").text


def test_a_thread_with_a_strange_name_is_shown():
    go_on = threading.Event()
    thread = threading.Thread(target=go_on.wait, name="größe <b> \udc80 🐍")
    thread.start()
    try:
        assert "größe <b> ? 🐍" in ask("threads").text
        assert "\\u003cb>" in ask("threads?format=flamegraph").text
        assert "größe" in ask("threads?format=collapsed").text
    finally:
        go_on.set()
        thread.join()


def test_the_command_line_is_told():
    assert ask("cmdline").text == "\0".join(sys.orig_argv)


SAMPLES = "patron.profiling.sampler.sample"
WAITS = "patron.profiling.desk._Wait.__call__"


def test_one_profile_is_taken_at_a_time():
    profiler = Profiler()
    served = client(admin=Asked(profiler))
    with ThreadPoolExecutor() as pool:
        first = pool.submit(ask, "profile?seconds=60", served)
        until(lambda: SAMPLES in ask("threads?format=collapsed", served).text)
        for path in ("profile?seconds=1", "heap?seconds=1"):
            second = ask(path, served)
            left = second.headers["Retry-After"]
            assert 1 <= int(left) <= 60
            assert (second.status_code, second.text) == (
                409,
                f"worker 0 takes a profile already: try again in {left} s\n",
            )
        profiler.stop()
        assert first.result().status_code == 200
    assert ask("profile?seconds=1", served).status_code == 200


@pytest.mark.parametrize("path", ["profile?seconds=300", "profile?seconds=300&mode=wall", "heap?seconds=300"])
def test_a_profile_ends_when_its_client_has_gone(path):
    ours, theirs = socket.socketpair()
    served = client()
    with ours, theirs, ThreadPoolExecutor() as pool:
        answer = pool.submit(
            served.get, f"/debug/pprof/{path}", environ_base={**LOCAL, "gunicorn.socket": ours}
        )
        until(lambda: WAITS in ask("threads?format=collapsed", served).text)
        theirs.sendall(b"GET /another")
        assert ask("heap?seconds=1", served).status_code == 409
        theirs.close()
        assert answer.result().status_code == 200  # of the seconds that it was waited for


@pytest.mark.parametrize("path", ["profile?seconds=300", "heap?seconds=300", "threads", "cmdline", ""])
def test_a_head_request_takes_no_profile(path):
    answer = client().head(f"/debug/pprof/{path}", environ_base=LOCAL)
    assert (answer.status_code, answer.data) == (200, b"")


@pytest.mark.parametrize("path", ["", "profile?seconds=1", "heap", "threads", "goroutine", "cmdline"])
def test_the_pages_are_as_closed_as_the_rest_of_debug(path):
    url = f"/debug/pprof/{path}"
    assert client().get(url, environ_base={"REMOTE_ADDR": "10.0.0.1"}).status_code == 404
    assert client(debug="closed").get(url, environ_base=LOCAL).status_code == 404
    guarded = client(debug_authenticator=ApiKey(["k"]))
    assert guarded.get(url, environ_base=LOCAL).status_code == 401
    assert guarded.get(url, headers={"Authorization": "Apikey k", **SHORT}).status_code in (200, 409)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:50000", 200),
        ("LOCALHOST.", 200),
        ("shop.localhost", 200),
        ("127.0.0.1:50000", 200),
        ("[::1]:50000", 200),
        ("192.168.1.7", 200),
        (socket.gethostname(), 200),
        ("shop.internal:50000", 200),
        ("", 200),
        ("evil.example:50000", 404),
        ("localhost.evil.example", 404),
        ("evil-localhost", 404),
        ("127.0.0.1.evil.example", 404),
    ],
)
def test_debug_is_not_there_for_a_page_whose_own_name_means_this_machine(host, status):
    """A browser on this machine sends the name that it asked for, whatever address that name has now."""
    served = client(host="shop.internal")
    environ = {**LOCAL, "HTTP_HOST": host}
    assert served.get("/debug/pprof/cmdline", environ_overrides=environ).status_code == status
    assert served.get("/alive", environ_overrides=environ).status_code in (200, 503)
    guarded = client(debug_authenticator=ApiKey(["k"]))
    key = {"Authorization": "Apikey k"}
    assert guarded.get("/debug/pprof/cmdline", environ_overrides=environ, headers=key).status_code == 200


@pytest.mark.parametrize("prefix", ["", "/-"])
def test_every_link_of_the_index_works(prefix):
    served = client(admin_prefix=prefix)
    index = served.get(f"{prefix}/debug/pprof/", environ_base=LOCAL).text
    links = re.findall(r'href="([^"]+)"', index.replace("&amp;", "&"))
    assert len(links) > 12
    for link in links:
        assert link.startswith(f"{prefix}/debug/pprof/")
        assert served.head(link, environ_base=LOCAL).status_code == 200, link


def test_the_index_knows_where_the_application_is_mounted_and_escapes_its_name():
    served = Client(build(name='<script>alert("x")</script>'))
    index = served.get("/debug/pprof/", base_url="http://localhost/shop", environ_base=LOCAL).text
    assert 'href="/shop/debug/pprof/heap"' in index
    assert "<script>" not in index


def test_the_index_has_links_for_every_worker():
    profiler = Profiler(Path("/nowhere"), 1, lambda: {0: 100, 1: 101, 4: 104})
    index = ask("", client(admin=Asked(profiler))).text
    assert 'href="/debug/pprof/profile?seconds=5&amp;format=flamegraph&amp;worker=4"' in index
    assert "worker 4 (pid 104)" in index
    assert "worker=all" in index


def test_a_deadline_makes_the_profile_shorter(read_pprof):
    answer = ask("profile?seconds=20", headers={"X-Request-Timeout-Ms": "800"})
    assert answer.status_code == 200
    assert read_pprof(answer.data).message.duration_nanos < 10e9


def test_the_stop_of_the_service_ends_a_profile_that_runs(read_pprof):
    service = Service("shop", routes=[get("/", lambda request: 1)])
    with ThreadPoolExecutor() as pool:
        with Running(service) as running:
            pages = f"{running.url}/debug/pprof"
            answer = pool.submit(requests.get, f"{pages}/profile?seconds=20", timeout=60)
            until(lambda: SAMPLES in requests.get(f"{pages}/threads?format=collapsed", timeout=10).text)
        assert answer.result().status_code == 200
    assert read_pprof(answer.result().content).message.duration_nanos < 10e9


def test_nothing_runs_while_no_profile_is_taken():
    before = threading.active_count()
    served = client()
    ask("", served)
    ask("profile?seconds=1", served, headers=SHORT)
    assert threading.active_count() == before
    assert not tracemalloc.is_tracing()
