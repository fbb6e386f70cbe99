"""Deadlines, deferred answers and logged bodies in a real worker."""

from __future__ import annotations

import threading
import time
from http.client import HTTPConnection

import pytest

pytestmark = pytest.mark.server

MODULE = """
    import time
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path
    from patron import correlation
    from patron.errors import Conflict
    from patron.observe import submit_with_span
    from patron.reliability import remaining

    pool = None

    def hold(request):
        Path("held").touch()
        while not Path("release").exists():
            time.sleep(0.005)

    def quick(request):
        Path("ran").touch()
        return {"left": remaining()}

    def deferred(request):
        global pool
        pool = pool or ThreadPoolExecutor(1)
        return submit_with_span(pool, lambda: {"id": correlation.current(), "left": remaining()})

    def conflict(request):
        raise Conflict({"error": "taken"})
    """

CONFIG = """
    name: shop
    http:
      threads: 1
      log_bodies: ["409"]
      routes:
        - {method: GET, path: /hold, processor: shop:hold}
        - {method: GET, path: /quick, processor: shop:quick, timeout: 30s}
        - {method: GET, path: /deferred, processor: shop:deferred, timeout: 30s}
        - {method: GET, path: /conflict, processor: shop:conflict}
        - {method: GET, path: /cached, processor: shop:quick, cache: {max: 60s}}
    """


def test_a_request_that_waited_for_a_thread_for_too_long_is_a_504_and_does_not_run(service):
    service.write(MODULE, CONFIG)
    service.start()
    holding = threading.Thread(target=service.get, args=("/hold",), kwargs={"timeout": 30})
    holding.start()
    service.until((service.folder / "held").exists)
    answers = []
    late = threading.Thread(target=lambda: answers.append(service.get("/quick", X_Request_Timeout_Ms="50")))
    late.start()
    asked = time.monotonic()
    service.until(lambda: time.monotonic() > asked + 0.3)
    (service.folder / "release").touch()
    late.join(10)
    holding.join(10)
    assert [answer.status for answer in answers] == [504]
    assert not (service.folder / "ran").exists()


def test_on_a_connection_that_is_kept_each_request_has_its_own_time(service):
    service.write(MODULE, CONFIG)
    service.start()
    connection = HTTPConnection("127.0.0.1", service.port, timeout=10)
    try:
        for _ in range(3):
            connection.request("GET", "/quick", headers={"X-Request-Timeout-Ms": "2000"})
            answer = connection.getresponse()
            assert (answer.status, answer.read()[:10]) == (200, b'{"left":1.')
            asked = time.monotonic()
            service.until(lambda asked=asked: time.monotonic() > asked + 0.8)
    finally:
        connection.close()


def test_what_is_deferred_cached_or_refused_is_answered_and_logged_like_in_tests(service):
    service.write(MODULE, CONFIG)
    service.start()
    deferred = service.get("/deferred", X_Correlation_Id="abc", X_Request_Timeout_Ms="5000")
    assert deferred.status == 200
    assert deferred.body.startswith(b'{"id":"abc","left":4.')
    assert service.get("/conflict", X_Correlation_Id="def").status == 409
    line = service.lines("response body")[0]
    assert (line["body"], line["status"], line["correlationID"]) == ('{"error":"taken"}', 409, "def")
    assert all(service.get("/cached").headers["Age"] for _ in range(2))
    assert service.request("PUT", "/cached", b"{}").status == 405
