"""
What one observed operation costs, beside the bare Prometheus calls in it.

The last table puts our value class beside prometheus-client's own, with one thread and with eight.
"""

from __future__ import annotations

import sys

# This folder comes first on the path of a script, and its http.py would hide the standard library's.
sys.path.append(sys.path.pop(0).removesuffix("benchmarks"))

import argparse
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from patron import correlation
from patron.observe import Instrument, MetricSet, log, metrics
from patron.observe.jsonlog import JsonLines, LineWriter
from patron.observe.sink import FileSink

COUNTER = metrics.Counter(
    "bench_handled_total", "Counted by the benchmark.", ("method", "path", "status_code")
)
SECONDS = metrics.Histogram(
    "bench_handled_seconds", "Timed by the benchmark.", ("method", "path", "status_code")
)
LABELS = {"method": "GET", "path": "/orders/{id}"}
HEADERS = {
    "Host": "localhost:50000",
    "User-Agent": "wrk",
    "Accept": "*/*",
    "X-Correlation-Id": "7f1c6a52-5d0e-4f0b-9c1e-2a9d0c9b7e11",
    "Uber-Trace-Id": "1f2e3d4c5b6a7988:1122334455667788:0:0",
}


def main() -> None:
    """Run every variant in turn, several rounds, and print the medians."""
    arguments = _arguments()
    print(
        f"python {platform.python_version()}, prometheus-client {version('prometheus-client')}, "
        f"{arguments.calls} calls x {arguments.rounds} rounds"
    )
    with tempfile.TemporaryDirectory() as directory:
        for mode, where in (("single", None), ("multi", Path(directory))):
            metrics.start(1, where)
            _print(mode, _measure(_variants(Path(directory)), arguments.calls, arguments.rounds))
        _contended(arguments.calls, arguments.rounds)


def _variants(directory: Path) -> dict[str, Callable[[], object]]:
    labels = {**LABELS, "status_code": "200"}
    inc, observe = COUNTER.bind(**labels).inc, SECONDS.bind(**labels).observe
    server = Instrument(
        "server", "http", "/orders", metrics=MetricSet(COUNTER, SECONDS, "status_code"), labels=LABELS
    )
    inside = Instrument("internal", "bench", "inside")

    def bare() -> None:
        inc()
        observe(0.003)

    def operation(headers: dict[str, str] | None) -> None:
        started = server.start(headers)
        started.outcome = "200"
        started.finish()

    sink = FileSink((directory / "log").open("wb").fileno())
    log.setup(
        lambda fields: LineWriter(JsonLines(fields, sink.limit), sink),
        {"srv": "bench", "ver": "1", "host": "h"},
    )

    def line() -> None:
        log.info(
            "request", method="GET", route="/orders/{id}", status=200, seconds=0.003, bytes=117, remote="::1"
        )

    return {
        "bare inc + observe": bare,
        "operation, no headers": lambda: operation(None),
        "operation, 5 headers": lambda: operation(HEADERS),
        "inner operation, no metrics": lambda: inside.start().finish(),
        "outgoing headers": correlation.outgoing,
        "log line to a file": line,
        "log line suppressed": lambda: log.debug("nothing", a=1),
    }


def _contended(calls: int, rounds: int) -> None:
    """Microseconds for each observed value: ours and prometheus-client's, alone and with eight threads."""
    from prometheus_client import Histogram, values

    ours = SECONDS.bind(**LABELS, status_code="200").observe
    kept = values.ValueClass
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: 2)
    stock = Histogram("bench_stock_seconds", "Timed by prometheus-client alone.", registry=None).observe
    values.ValueClass = kept
    print(f"\n{'observe, multi-process':<34} {'us/call':>8} {'min':>7} {'max':>7}")
    for threads in (1, 8):
        for name, observe in (("prometheus-client", stock), ("patron", ours)):
            found = [_threaded(observe, threads, calls // threads) / calls * 1e6 for _ in range(rounds)]
            label = f"{name}, {threads} thread(s)"
            print(f"{label:<34} {statistics.median(found):8.2f} {min(found):7.2f} {max(found):7.2f}")


def _threaded(observe: Callable[[float], object], threads: int, calls: int) -> float:
    def work() -> None:
        for _ in range(calls):
            observe(0.003)

    running = [threading.Thread(target=work) for _ in range(threads)]
    started = time.perf_counter()
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return time.perf_counter() - started


def _measure(variants: dict[str, Callable[[], object]], calls: int, rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in variants}
    for each in range(rounds + 1):
        for name, call in variants.items():
            seconds = _time(call, calls)
            if each:  # the first round warms up
                found[name].append(seconds / calls * 1e6)
    return found


def _time(call: Callable[[], object], calls: int) -> float:
    """Seconds of processor time, which other processes on the machine disturb least."""
    started = time.process_time()
    for _ in range(calls):
        call()
    return time.process_time() - started


def _print(mode: str, found: dict[str, list[float]]) -> None:
    base = statistics.median(found["bare inc + observe"])
    print(f"\n{mode}-process{'':<20} {'us/call':>8} {'min':>7} {'max':>7} {'ratio':>7}")
    for name, values in found.items():
        median = statistics.median(values)
        print(f"{name:<34} {median:8.2f} {min(values):7.2f} {max(values):7.2f} {median / base:7.2f}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


if __name__ == "__main__":
    main()
