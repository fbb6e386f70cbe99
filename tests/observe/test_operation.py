"""Operations: what is current meanwhile, what is counted when they end, and what failed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from patron import correlation
from patron.correlation import CorrelationSettings
from patron.errors import ConfigError
from patron.observe import (
    Instrument,
    MetricSet,
    capture,
    current_operation,
    metrics,
    operation,
    span,
    submit_with_span,
    traced,
)

HANDLED = metrics.Counter("test_handled_total", "Handled.", ("method", "status"))
SECONDS = metrics.Histogram("test_handled_seconds", "Took.", ("method", "status"), buckets=(1.0, 2.0))


def instrument(kind: str = "server") -> Instrument:
    return Instrument(
        kind, "http", "/orders", metrics=MetricSet(HANDLED, SECONDS, "status"), labels={"method": "GET"}
    )


def samples() -> list[str]:
    page = metrics.exposition()[0].decode()
    return [line for line in page.splitlines() if line.startswith("test_handled_")]


def test_what_comes_in_brings_its_id_which_is_current_until_the_end() -> None:
    running = instrument().start({"x-correlation-id": "abc"})
    assert running.correlation_id == correlation.current() == "abc"
    assert current_operation() is running
    running.finish()
    assert correlation.current() is None
    assert current_operation() is None


def test_what_comes_in_without_an_id_gets_its_own_even_inside_of_something_else() -> None:
    with correlation.use("outer"):
        with instrument("consumer").start() as running:
            assert correlation.current() == running.correlation_id != "outer"
        assert correlation.current() == "outer"


@pytest.mark.parametrize("kind", ["client", "producer", "internal"])
def test_what_goes_out_keeps_the_id_and_is_a_child_of_what_is_being_done(kind: str) -> None:
    with (
        operation("server", "http", "/", {"X-Correlation-Id": "abc"}) as outer,
        operation(kind, "sql", "db") as inner,
    ):
        assert inner.correlation_id == "abc"
        assert inner.context.trace_id == outer.context.trace_id
        assert inner.context.parent_id == outer.context.span_id


def test_what_goes_out_on_its_own_gets_an_id_that_it_sends() -> None:
    with operation("client", "http", "there") as running:
        assert correlation.outgoing()["X-Correlation-Id"] == running.correlation_id
    assert correlation.current() is None


def test_forwarded_headers_last_as_long_as_their_operation() -> None:
    correlation.configure(CorrelationSettings(forward=("X-App",)))
    with operation("server", "http", "/", {"x-app": "shop 1"}):
        assert correlation.outgoing()["X-App"] == "shop 1"
        with operation("consumer", "kafka", "orders", {}):
            assert "X-App" not in correlation.outgoing(), "another message came in, without the header"
        assert correlation.outgoing()["X-App"] == "shop 1"
    assert correlation.forwarded() == {}


def test_the_outcome_and_the_time_are_counted_when_it_ends_once() -> None:
    running = instrument().start()
    running.outcome = "201"
    seconds = running.finish()
    assert running.finish() == seconds >= 0
    assert 'test_handled_total{method="GET",status="201"} 1.0' in samples()
    assert 'test_handled_seconds_count{method="GET",status="201"} 1.0' in samples()


def test_a_batch_counts_each_of_its_messages() -> None:
    instrument("consumer").start(count=7).finish()
    assert 'test_handled_total{method="GET",status="succeeded"} 7.0' in samples()
    assert 'test_handled_seconds_count{method="GET",status="succeeded"} 1.0' in samples()


def test_what_leaves_the_block_makes_it_failed_and_goes_on() -> None:
    with capture() as seen, pytest.raises(ZeroDivisionError), instrument().start():
        1 / 0
    assert 'test_handled_total{method="GET",status="failed"} 1.0' in samples()
    assert isinstance(seen.operations[0].error, ZeroDivisionError)
    assert seen.spans[0].tags["error"] is True


def test_an_outcome_that_was_set_is_kept_when_it_fails() -> None:
    running = instrument().start()
    running.outcome = "503"
    running.fail(OSError("no"))
    running.finish()
    assert running.outcome == "503"


def test_labels_that_are_missing_are_an_error_when_the_instrument_is_made() -> None:
    with pytest.raises(ConfigError, match="must give test_handled_total the labels method"):
        Instrument("server", "http", "/", metrics=MetricSet(HANDLED, None, "status"))


def test_operations_of_many_threads_do_not_see_each_other() -> None:
    shared = instrument()
    wrong: list[str] = []

    def work(me: str) -> None:
        for _ in range(300):
            with shared.start({"X-Correlation-Id": me}), span("inner"):
                if correlation.current() != me:
                    wrong.append(me)

    threads = [threading.Thread(target=work, args=(f"t{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert 'test_handled_total{method="GET",status="succeeded"} 2400.0' in samples()


def test_another_thread_may_end_it_and_the_first_one_lets_go_with_detach() -> None:
    running = instrument().start({"X-Correlation-Id": "abc"})
    running.detach()
    assert correlation.current() is None
    assert current_operation() is None

    def elsewhere() -> str | None:
        with running.use():
            seen = correlation.current()
            assert current_operation() is running
        assert current_operation() is None
        running.finish()
        return seen

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(elsewhere).result() == "abc"
    assert 'test_handled_total{method="GET",status="succeeded"} 1.0' in samples()


def test_submitted_work_carries_the_id_and_is_a_child_of_the_span() -> None:
    def work(factor: int, *, by: int) -> tuple[int, str | None, int]:
        with span("inside") as inner:
            return factor * by, correlation.current(), inner.context.parent_id

    with (
        ThreadPoolExecutor(1) as pool,
        operation("server", "http", "/", {"X-Correlation-Id": "abc"}) as outer,
    ):
        assert submit_with_span(pool, work, 6, by=7).result() == (42, "abc", outer.context.span_id)
        assert pool.submit(correlation.current).result() is None


def test_a_traced_function_is_a_span_each_time_and_stays_itself() -> None:
    @traced
    def price(net: int) -> int:
        """With tax."""
        return net * 2

    @traced(name="checkout")
    def buy() -> int:
        return price(2)

    with capture() as seen:
        assert buy() == 4
    assert (price.__name__, price.__doc__) == ("price", "With tax.")
    assert [each.name.rpartition(".")[2] for each in seen.spans] == ["checkout", "price"]
    assert seen.spans[1].context.parent_id == seen.spans[0].context.span_id


def test_a_span_has_the_tags_of_its_operation() -> None:
    with capture() as seen:
        made = Instrument("client", "http", "api", name="GET api", tags={"http.method": "GET"})
        with correlation.use("abc"), made.start() as running:
            running.tag("http.status_code", 200)
    assert seen.spans[0].name == "GET api"
    assert seen.spans[0].tags == {
        "component": "http",
        "version": "dev",
        "correlationID": "abc",
        "span.kind": "client",
        "http.method": "GET",
        "http.status_code": 200,
    }
    assert seen.spans[0].seconds is not None


def test_a_span_has_the_forwarded_headers_as_far_as_they_may_be_shown() -> None:
    correlation.configure(CorrelationSettings(forward=("X-App", "X-User")))
    correlation.show_through(
        lambda carried: {name: value for name, value in carried.items() if name != "X-User"}
    )
    try:
        with capture() as seen, operation("server", "http", "/", {"X-App": "shop", "X-User": "ann"}):
            assert correlation.outgoing()["X-User"] == "ann"
    finally:
        correlation.show_through(None)
    assert seen.spans[0].tags["X-App"] == "shop"
    assert "X-User" not in seen.spans[0].tags
    assert "correlationID" in seen.spans[0].tags


def test_nothing_is_captured_after_the_block() -> None:
    with capture() as seen, operation("client", "sql", "db"):
        pass
    with operation("client", "sql", "db"):
        pass
    assert len(seen.operations) == len(seen.spans) == 1
