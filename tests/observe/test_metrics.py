"""Metric definitions, and the page, in one process."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import prometheus_client
import pytest

from patron.errors import ConfigError
from patron.observe import metrics

ORDERS = metrics.Counter("test_orders_total", "Orders, by customer.", ("customer",))
DEPTH = metrics.Gauge("test_depth", "How deep it is.")
SECONDS = metrics.Histogram("test_seconds", "How long it took.", buckets=(0.1, 1.0))


def page() -> str:
    return metrics.exposition()[0].decode()


def check(text: str) -> str:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60
    )
    return done.stdout + done.stderr


def test_a_definition_creates_nothing_until_it_is_bound() -> None:
    metrics.Counter("test_never_bound_total", "Never bound.")
    assert "test_never_bound" not in page()


def test_importing_and_defining_does_not_import_the_client_library() -> None:
    script = (
        "import sys; from patron.observe import metrics; metrics.Counter('a_total', 'A.');"
        "sys.exit('prometheus_client' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], timeout=60).returncode
        == 0
    )


def test_what_is_counted_is_on_the_page() -> None:
    ORDERS.bind(customer="c1").inc()
    ORDERS.bind(customer="c1").inc(2)
    DEPTH.bind().set(5)
    SECONDS.bind().observe(0.5)
    assert 'test_orders_total{customer="c1"} 3.0' in page()
    assert "test_depth 5.0" in page()
    assert 'test_seconds_bucket{le="1.0"} 1.0' in page()
    assert 'test_seconds_bucket{le="0.1"} 0.0' in page()


def test_binding_twice_gives_the_same_child() -> None:
    assert ORDERS.bind(customer="c1") is ORDERS.bind(customer="c1")
    assert ORDERS.bind(customer="c1") is not ORDERS.bind(customer="c2")


def test_threads_that_bind_at_once_share_one_child() -> None:
    barrier = threading.Barrier(8)

    def count() -> None:
        for number in range(50):
            barrier.wait()
            ORDERS.bind(customer=f"c{number}").inc()

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(f'test_orders_total{{customer="c{number}"}} 8.0' in page() for number in range(50))


@pytest.mark.parametrize("labels", [{}, {"client": "c1"}, {"customer": "c1", "more": "x"}])
def test_wrong_labels_are_an_error_that_names_the_right_ones(labels: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"test_orders_total has the labels \(customer\)"):
        ORDERS.bind(**labels)


def test_a_counter_must_be_called_total_and_every_metric_says_what_it_is() -> None:
    with pytest.raises(ConfigError, match="must be called orders_total"):
        metrics.Counter("orders", "Orders.")
    with pytest.raises(ConfigError, match="has no help"):
        metrics.Gauge("depth", "")


def test_two_different_definitions_of_one_name_are_an_error() -> None:
    ORDERS.bind(customer="c1")
    with pytest.raises(ConfigError, match="test_orders_total is defined twice, differently"):
        metrics.Counter("test_orders_total", "Something else.", ("customer",)).bind(customer="c1")


def test_the_users_own_metrics_and_the_process_itself_are_on_the_page_which_promtool_accepts() -> None:
    metrics.start()
    ORDERS.bind(customer='quote " and \n line feed').inc()
    SECONDS.bind().observe(0.5)
    own = prometheus_client.Counter("test_own_total", "The user's own.")
    try:
        own.inc()
        text = page()
        assert "test_own_total 1.0" in text
        assert "process_resident_memory_bytes" in text
        assert check(text) == ""
    finally:
        prometheus_client.REGISTRY.unregister(own)


def test_the_content_type_is_the_one_that_every_prometheus_reads() -> None:
    assert metrics.exposition()[1] == "text/plain; version=0.0.4; charset=utf-8"


def test_starting_again_in_the_same_way_keeps_what_was_bound() -> None:
    child = ORDERS.bind(customer="c1")
    metrics.start()
    child.inc()
    assert 'test_orders_total{customer="c1"} 1.0' in page()


def test_definitions_in_use_can_be_listed() -> None:
    ORDERS.bind(customer="c1")
    DEPTH.bind()
    listed = metrics.all_definitions()
    assert {DEPTH, ORDERS} <= set(listed)  # what other tests bound is there too
    assert [d.name for d in listed] == sorted(d.name for d in listed)
