"""
Mistakes of the Go original's route cache (its v0.43 to v0.74), none of which is made here.

Each test says in its first line what the original did.
"""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from cache_world import balanced, world

from patron.http import ApiKey, Response
from patron.observe import metrics


def test_every_status_was_kept_and_replayed_as_200():
    with world() as w:
        w.processor = lambda request: Response({"run": w.runs}, 500 if w.runs == 1 else 203)
        assert [w.get().status_code for _ in range(3)] == [500, 203, 203]


def test_of_a_body_that_was_written_in_pieces_only_as_much_was_kept_as_the_last_piece_has():
    with world() as w:
        w.app.flask.after_request(_in_pieces)
        assert [w.get().data for _ in range(2)] == [b"hello-world-tail"] * 2
        assert w.runs == 1


def _in_pieces(response):
    response.response = [b"hello-world-", b"", b"tail", b""]
    response.headers.remove("Content-Length")
    return response


def test_of_headers_with_several_values_only_the_first_was_replayed():
    with world() as w:
        w.processor = lambda request: Response({}, headers={"Link": ["<a>", "<b>"]})
        assert [w.get().headers.getlist("Link") for _ in range(2)] == [["<a>", "<b>"]] * 2


def test_only_if_cached_without_an_entry_ran_the_handler():
    with world() as w:
        assert (w.get(Cache_Control="only-if-cached").status_code, w.runs) == (504, 0)


def test_only_if_cached_with_an_entry_that_was_too_old_ran_the_handler_and_threw_its_answer_away():
    with world() as w:
        w.get()
        w.clock.now += 10
        assert w.get(Cache_Control="only-if-cached, max-age=5").status_code == 504
        assert w.runs == 1


def test_of_one_user_the_answer_was_given_to_another():
    with world(options={"authenticator": ApiKey({"ann": "1", "bob": "2"})}) as w:
        w.processor = lambda request: request.principal.name
        assert [w.get(Authorization=f"Apikey {key}").json for key in "12"] == ["ann", "bob"]


def test_a_json_answer_was_given_to_a_client_of_another_type():
    with world() as w:
        w.processor = lambda request: Response(request.accepted, content_type="text/plain")
        types = ("application/json", "application/x-protobuf")
        assert [w.get(Accept=each).text for each in types] == list(types)


def test_a_query_in_another_order_was_another_entry():
    with world() as w:
        assert w.get("/it/a?a=1&b=2").json == w.get("/it/a?b=2&a=1").json


def test_an_age_below_a_second_was_no_cache_at_all():
    with world(max=0.5) as w:
        assert [w.get().json for _ in range(2)] == [{"run": 1}] * 2


def test_a_space_before_a_directive_hid_it():
    with world() as w:
        w.get()
        w.clock.now += 25
        assert w.get(Cache_Control="max-age=29, min-fresh=10").json == {"run": 2}


def test_the_tag_was_unquoted_and_no_hash_of_the_answer():
    with world() as w:
        w.processor = lambda request: "same"
        first = w.get().headers["ETag"]
        w.clock.now += 31
        assert w.get().headers["ETag"] == first
        assert re.fullmatch(r'"[0-9a-f]{32}"', first)


def test_a_client_that_had_the_answer_was_sent_it_again():
    with world() as w:
        tag = w.get().headers["ETag"]
        assert w.get(If_None_Match=tag).status_code == 304


def test_the_warning_was_no_warning_as_the_standard_has_it():
    with world(min=5) as w:
        w.get()
        assert re.fullmatch(r'199 \S+ "[^"]+"', w.get(Cache_Control="max-age=0").headers["Warning"])


def test_a_failing_handler_was_not_replaced_by_the_old_answer():
    with world(stale_if_error=30) as w:
        w.get()
        w.clock.now += 31
        w.processor = lambda request: Response({}, 500)
        assert w.get().json == {"run": 1}


def test_a_lower_max_fresh_of_0_was_no_bound():
    with world(max=30, min=30) as w:
        w.get()
        w.clock.now += 29
        answer = w.get(Cache_Control="min-fresh=10")
        assert (answer.json, answer.headers["Warning"]) == ({"run": 1}, '199 patron "min-fresh lowered to 0"')


def test_the_metrics_had_one_series_for_each_path():
    with world() as w:
        for name in "abc":
            w.get(f"/it/{name}")
        page = metrics.exposition()[0].decode()
        assert (
            re.findall(r'^http_cache_\w+_total{.*route="([^"]+)"} 3', page, re.MULTILINE)
            == ["/it/<name>"] * 2
        )


def test_the_age_of_what_was_replaced_was_always_0():
    with world(stale_if_error=60) as w:
        w.get()
        w.clock.now += 45
        w.get()
        page = metrics.exposition()[0].decode()
        assert 'http_cache_handler_expiration_seconds_sum{route="/it/<name>"} 45.0' in page


def test_additions_were_not_what_misses_and_evictions_say_when_the_store_failed():
    with world() as w:
        set_, w.store.set = w.store.set, lambda *args: 1 / 0
        w.get()
        w.store.set = set_
        w.get()
        counts = w.counts()
        assert counts == {"miss": 2, "not_cacheable:store": 1, "error:set": 1, "added": 1}
        assert balanced(counts)


def test_many_at_once_all_ran_the_handler():
    with world() as w:
        together = Barrier(4)

        def slow(request):
            time.sleep(0.2)
            return {"run": w.runs}

        def ask():
            together.wait(10)
            return w.get().json["run"]

        w.processor = slow
        with ThreadPoolExecutor(4) as pool:
            assert [a.result() for a in [pool.submit(ask) for _ in range(4)]] == [1, 1, 1, 1]
