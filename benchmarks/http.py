"""
How many requests a second, beside bare WSGI and bare Flask, in one run.

    python benchmarks/http.py [--rounds 5] [--seconds 4] [--connections 16] [--workers 1]

Everything on means: correlation, metrics, unsampled trace, access log line to a file. The variants
are interleaved: each round measures each of them once, after a warm-up round that does not count.
The server is pinned to one core and the load to another, as long as there are two, so that the
numbers do not measure how threads wander between cores. Needs ``wrk``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

APPS = Path(__file__).parent / "apps"
GTHREAD = "gunicorn.workers.gthread.ThreadWorker"
OURS = "http_apps.BareWorker"


@dataclass
class Variant:
    """One server that is measured."""

    name: str
    path: str
    worker_class: str = ""
    app: str = ""
    rates: list[float] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    port: int = 0

    def command(self, options: argparse.Namespace) -> list[str]:
        if not self.app:
            return [sys.executable, str(APPS / "http_apps.py")]
        return [
            *(sys.executable, "-m", "gunicorn", "-k", self.worker_class, "--threads", "8"),
            *("-w", str(options.workers), "-b", f"127.0.0.1:{self.port}", "--keep-alive", "75"),
            *("--no-control-socket", "--log-level", "error", f"http_apps:{self.app}"),
        ]


def variants() -> list[Variant]:
    return [
        Variant("bare WSGI, gunicorn's gthread", "/hello/world", GTHREAD, "bare_wsgi"),
        Variant("bare Flask, gunicorn's gthread", "/hello/world", GTHREAD, "bare_flask"),
        Variant("bare WSGI, Patron's worker", "/hello/world", OURS, "bare_wsgi"),
        Variant("bare Flask, Patron's worker", "/hello/world", OURS, "bare_flask"),
        Variant("Patron processor, everything on", "/hello/world"),
        Variant("Flask view under Patron, everything on", "/view/world"),
    ]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(variant: Variant, options: argparse.Namespace, folder: Path) -> None:
    variant.port = free_port()
    environ = {
        **os.environ,
        "PYTHONPATH": str(APPS),
        "BENCHMARK_PORT": str(variant.port),
        "BENCHMARK_WORKERS": str(options.workers),
    }
    with (folder / f"{variant.port}.log").open("wb") as log:
        variant.process = subprocess.Popen(
            variant.command(options), env=environ, stdout=log, stderr=log, preexec_fn=pinner(options, 0)
        )
    wait_for(variant, folder)


def wait_for(variant: Variant, folder: Path) -> None:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", variant.port), timeout=1) as client:
                client.sendall(f"GET {variant.path} HTTP/1.0\r\n\r\n".encode())
                if b" 200 " in client.recv(200):
                    return
        except OSError:
            pass
        time.sleep(0.05)
    raise SystemExit(f"{variant.name} does not start: {(folder / f'{variant.port}.log').read_text()[-2000:]}")


def pinner(options: argparse.Namespace, core: int):  # type: ignore[no-untyped-def]  # a preexec function or None
    cores = sorted(os.sched_getaffinity(0))
    if options.no_pin or len(cores) < 2 or options.workers > 1:
        return None
    return lambda: os.sched_setaffinity(0, {cores[core]})


def measure(variant: Variant, options: argparse.Namespace, seconds: float) -> float:
    url = f"http://127.0.0.1:{variant.port}{variant.path}"
    command = ["wrk", "-t1", f"-c{options.connections}", f"-d{seconds:g}s", url]
    output = subprocess.run(
        command, capture_output=True, text=True, check=True, preexec_fn=pinner(options, 1)
    ).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        raise SystemExit(f"{variant.name}: {output}")
    return float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1])  # type: ignore[index]


def stop(variant: Variant) -> None:
    if variant.process is not None:
        variant.process.send_signal(signal.SIGTERM)
        variant.process.wait(30)


def table(measured: list[Variant]) -> None:
    flask = next(v for v in measured if v.name == "bare Flask, Patron's worker")
    stock = next(v for v in measured if v.name == "bare Flask, gunicorn's gthread")
    print(f"\n{'':42}{'req/s':>9}{'lowest':>9}{'highest':>9}{'to Flask':>10}{'to Flask on gthread':>21}")
    for v in measured:
        print(
            f"{v.name:42}{statistics.median(v.rates):9.0f}{min(v.rates):9.0f}{max(v.rates):9.0f}"
            f"{ratio(v, flask):10.2f}{ratio(v, stock):21.2f}"
        )


def ratio(variant: Variant, base: Variant) -> float:
    """The median of the ratios within each round: what drifts from round to round cancels out."""
    return statistics.median(a / b for a, b in zip(variant.rates, base.rates, strict=True))


def versions() -> str:
    packages = ("patron", "gunicorn", "flask", "werkzeug", "prometheus-client")
    listed = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    wrk = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout.split("\n")[0]
    return f"Python {platform.python_version()}, {listed}; {wrk}; {os.cpu_count()} cores"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--no-pin", action="store_true", help="let server and load wander over the cores")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed (Debian: apt-get install wrk)")
    print(versions())
    measured = variants()
    with tempfile.TemporaryDirectory() as folder:
        try:
            for variant in measured:
                start(variant, options, Path(folder))
            for number in range(options.rounds + 1):
                for variant in measured:
                    rate = measure(variant, options, 1.0 if number == 0 else options.seconds)
                    if number:
                        variant.rates.append(rate)
                print(f"round {number}/{options.rounds} done", file=sys.stderr)
        finally:
            for variant in measured:
                stop(variant)
    table(measured)


if __name__ == "__main__":
    main()
