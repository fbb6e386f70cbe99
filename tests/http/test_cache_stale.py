"""The old entry in the place of a failure, marked as what it is."""

from __future__ import annotations

import pytest
from cache_world import Plain, balanced, world

from patron.errors import BadRequest, ServiceUnavailable
from patron.http import Response
from patron.observe import capture

STALE = '110 patron "Response is Stale"'
FAILED = '111 patron "Revalidation Failed"'


def raises(error):
    def processor(request):
        raise error

    return processor


FAILURES = [
    lambda request: Response({"error": 1}, 500),
    lambda request: Response({"error": 1}, 503),
    raises(ServiceUnavailable()),
    raises(RuntimeError("secret")),
    raises(SystemExit(1)),
]


@pytest.mark.parametrize("failure", FAILURES)
def test_an_entry_that_expired_is_served_when_the_processor_fails(failure):
    with world(max=30, stale_if_error=60) as w:
        first = w.get()
        w.clock.now += 89
        w.processor = failure
        answer = w.get()
        assert (answer.status_code, answer.data) == (200, first.data)
        assert answer.headers["Warning"] == f"{STALE}, {FAILED}"
        assert (answer.headers["Age"], answer.headers["Cache-Control"]) == ("89", "max-age=30")
        assert w.counts() == {"miss": 1, "added": 1, "replaced:expired": 1, "failed:error": 1, "stale": 1}


def test_it_is_not_served_beyond_its_window():
    with world(max=30, stale_if_error=60) as w:
        w.get()
        w.clock.now += 90
        w.processor = lambda request: Response({"error": 1}, 503)
        answer = w.get()
        assert (answer.status_code, answer.json) == (503, {"error": 1})
        assert "Warning" not in answer.headers
        assert balanced(w.counts())


def test_a_store_that_forgets_too_late_makes_no_difference():
    with world(max=30, stale_if_error=60) as w:
        w.store = Plain()
        w.get()
        w.clock.now += 90
        w.processor = lambda request: Response({"error": 1}, 503)
        assert w.get().status_code == 503
        assert w.get(Cache_Control="max-stale, only-if-cached").status_code == 504


def test_without_a_window_a_failure_is_a_failure():
    with world(max=30) as w:
        w.get()
        w.clock.now += 10
        w.processor = lambda request: Response({"error": 1}, 503)
        assert w.get(Cache_Control="no-cache").status_code == 503
        assert w.get().status_code == 200  # of which the entry takes no harm


def test_an_entry_that_is_fresh_is_not_called_stale():
    with world(max=30, stale_if_error=60) as w:
        w.get()
        w.clock.now += 10
        w.processor = raises(RuntimeError())
        answer = w.get(Cache_Control="no-cache")
        assert (answer.status_code, answer.headers["Warning"]) == (200, FAILED)


@pytest.mark.parametrize("failure", [raises(BadRequest()), lambda request: Response({}, 404)])
def test_an_answer_of_another_kind_is_no_failure(failure):
    with world(max=30, stale_if_error=60) as w:
        w.get()
        w.clock.now += 31
        w.processor = failure
        assert w.get().status_code in (400, 404)
        assert w.counts()["not_cacheable:status"] == 1


def test_what_must_be_revalidated_is_never_served_stale():
    with world(max=30, stale_if_error=60) as w:
        w.processor = lambda request: Response({"a": 1}, headers={"Cache-Control": "must-revalidate"})
        w.get()
        w.clock.now += 31
        w.processor = raises(RuntimeError())
        assert w.get().status_code == 500


def test_a_stale_entry_is_enough_for_a_client_that_has_it():
    with world(max=30, stale_if_error=60) as w:
        tag = w.get().headers["ETag"]
        w.clock.now += 31
        w.processor = raises(RuntimeError())
        answer = w.get(If_None_Match=tag)
        assert (answer.status_code, answer.headers["Warning"]) == (304, f"{STALE}, {FAILED}")


def test_a_client_may_take_stale_ones_without_asking_the_processor():
    with world(max=30, stale_if_error=60) as w:
        w.get()
        w.clock.now += 40
        answer = w.get(Cache_Control="max-stale=10")
        assert (answer.json, answer.headers["Warning"]) == ({"run": 1}, STALE)
        assert w.get(Cache_Control="max-stale=9").json == {"run": 2}
        assert w.counts()["hit:max_stale"] == 1


def test_the_failure_is_in_the_log_nevertheless():
    with capture() as seen, world(max=30, stale_if_error=60) as w:
        w.get()
        w.clock.now += 31
        w.processor = raises(RuntimeError("disk on fire"))
        assert w.get().status_code == 200
        lines = [line for line in seen.lines if line["msg"] == "request failed"]
        assert len(lines) == 1


def test_when_the_processor_works_again_its_answer_is_served():
    with world(max=30, stale_if_error=60) as w:
        w.get()
        w.clock.now += 31
        w.processor = raises(RuntimeError())
        w.get()
        w.processor = lambda request: {"run": w.runs}
        answer = w.get()
        assert (answer.json, "Warning" in answer.headers) == ({"run": 3}, False)
