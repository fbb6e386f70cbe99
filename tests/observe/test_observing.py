"""Observing as a whole: started and stopped once per process, with the hook for error trackers."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from patron import correlation, observe
from patron.correlation import CorrelationSettings
from patron.observe import LogSettings, TraceSettings, log, metrics, operation, report_error


def start(**more: Any) -> None:
    settings = {"log": LogSettings(), "trace": TraceSettings(), "correlation": CorrelationSettings(), **more}
    observe.start("shop", "1.4.0", **settings)


def test_one_id_is_on_the_lines_in_what_is_sent_and_in_the_metrics_page_counts(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    start(slot=3, metrics_directory=tmp_path, correlation=CorrelationSettings(header="X-Flow-Id"))
    with operation("consumer", "kafka", "orders", {"x-flow-id": "R1"}):
        log.info("order stored")
        assert correlation.outgoing()["X-Flow-Id"] == "R1"
    metrics.Counter("test_done_total", "Done.").bind().inc()
    assert (tmp_path / "counter_3.db").exists()
    assert json.loads(capfd.readouterr().err)["correlationID"] == "R1"


def test_starting_starts_no_thread_and_stopping_joins_the_one_that_spans_need() -> None:
    pytest.importorskip("jaeger_client")
    before = set(threading.enumerate())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as agent:
        agent.bind(("127.0.0.1", 0))
        start(trace=TraceSettings("127.0.0.1", agent.getsockname()[1], "const", 1.0))
        assert set(threading.enumerate()) == before
        with operation("server", "http", "/"):
            pass
        assert [thread.name for thread in set(threading.enumerate()) - before] == ["patron-spans"]
        observe.stop(5.0)
        assert set(threading.enumerate()) == before
        assert agent.recv(1 << 17)


def test_stopping_what_was_never_started_and_stopping_twice_is_fine() -> None:
    observe.stop(0.0)
    start()
    observe.stop(0.0)
    observe.stop(0.0)


def test_the_error_reporter_gets_what_is_reported_with_the_correlation_id() -> None:
    got: list[tuple[BaseException, Mapping[str, Any]]] = []
    start(error_reporter=lambda error, context: got.append((error, context)))
    failure = ValueError("bad")
    with correlation.use("abc"):
        report_error(failure, route="/orders")
    assert got == [(failure, {"correlationID": "abc", "route": "/orders"})]
    observe.stop(1.0)
    report_error(failure)
    assert len(got) == 1


def test_an_error_reporter_that_raises_is_logged_and_does_no_harm(capfd: pytest.CaptureFixture[str]) -> None:
    def broken(error: BaseException, context: Mapping[str, Any]) -> None:
        raise ConnectionError("tracker is down")

    start(error_reporter=broken)
    report_error(ValueError("bad"))
    written = json.loads(capfd.readouterr().err)
    assert (written["lvl"], written["msg"], written["error"]) == (
        "warn",
        "error reporter failed",
        "ConnectionError: tracker is down",
    )
