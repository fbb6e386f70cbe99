"""
How many requests a second, beside bare WSGI, bare Flask, and Flask with other packages, in one run.

    python benchmarks/http.py [--only base cache observed] [--rounds 5] [--seconds 4] [--peers PYTHON]

Everything on means: correlation, metrics, unsampled trace, access log line to a file. The variants
are interleaved: each round measures each of them once, after a warm-up round that does not count.
The server is pinned to one core and the load to another, as long as there are two, so that the
numbers do not measure how threads wander between cores. Needs ``wrk``; a hit in Redis needs
``redis-server``; other packages need benchmarks/requirements.txt, which may be in an environment of
its own: its interpreter is *PYTHON*.
"""

from __future__ import annotations

import argparse
import contextlib
import json
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
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

APPS = Path(__file__).parent / "apps"
GTHREAD = "gunicorn.workers.gthread.ThreadWorker"
OURS = "http_apps.BareWorker"
#: How to find the versions of the packages that matter, in the interpreter that has them.
VERSIONS = """
import importlib.metadata as m, sys
for name in sys.argv[1:]:
    try: print(name, m.version(name))
    except m.PackageNotFoundError: pass
"""
PACKAGES = (
    *("patron", "gunicorn", "flask", "werkzeug", "prometheus-client", "redis", "flask-caching"),
    *(
        "prometheus-flask-exporter",
        "opentelemetry-sdk",
        "opentelemetry-instrumentation-flask",
        "python-json-logger",
    ),
)


@dataclass
class Variant:
    """One server that is measured; *modules* are what its interpreter must have, or *program* the machine."""

    name: str
    path: str
    worker_class: str = ""
    app: str = ""
    modules: tuple[str, ...] = ()
    program: str = ""
    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)  # microseconds of processor time for each request
    process: subprocess.Popen[bytes] | None = None
    port: int = 0

    def python(self, options: argparse.Namespace) -> str:
        return str(options.peers) if self.modules else sys.executable

    def command(self, options: argparse.Namespace) -> list[str]:
        if not self.app:
            return [sys.executable, str(APPS / "http_apps.py")]
        return [
            *(self.python(options), "-m", "gunicorn", "-k", self.worker_class, "--threads", "8"),
            *("-w", str(options.workers), "-b", f"127.0.0.1:{self.port}", "--keep-alive", "75"),
            *("--no-control-socket", "--log-level", "error", self.app),
        ]

    def lacks(self, options: argparse.Namespace) -> str:
        """What it needs and is not there, or nothing."""
        if self.program and shutil.which(self.program) is None:
            return self.program
        lines = "\n".join(f"import {module}" for module in self.modules)
        ran = subprocess.run([self.python(options), "-c", lines], capture_output=True, text=True, check=False)
        return ran.stderr.strip().rpartition("\n")[2]


@dataclass(frozen=True)
class Group:
    """A table: its variants, those that the others are compared with, and what is aimed at."""

    variants: tuple[Variant, ...]
    bases: tuple[Variant, ...]
    aims: tuple[tuple[Variant, Variant, float], ...] = ()


def groups() -> dict[str, Group]:
    bare_stock = Variant("bare WSGI, gunicorn's gthread", "/hello/world", GTHREAD, "http_apps:bare_wsgi")
    bare = Variant("bare WSGI, Patron's worker", "/hello/world", OURS, "http_apps:bare_wsgi")
    flask_stock = Variant("bare Flask, gunicorn's gthread", "/hello/world", GTHREAD, "http_apps:bare_flask")
    flask = Variant("bare Flask, Patron's worker", "/hello/world", OURS, "http_apps:bare_flask")
    processor = Variant("Patron processor, everything on", "/hello/world")
    view = Variant("Flask view under Patron, everything on", "/view/world")
    hit = Variant("Patron, hit in memory, everything on", "/cached/world")
    redis = Variant("Patron, hit in Redis, everything on", "/redis/world", program="redis-server")
    cached = Peer("http_peers:cached()", "/cached/world", ("flask_caching",))
    wired = (
        "flask_caching",
        "prometheus_flask_exporter",
        "opentelemetry.instrumentation.flask",
        "pythonjsonlogger",
    )
    by_hand = Peer("http_peers:observed()", "/hello/world", wired)
    both = Peer("http_peers:observed()", "/cached/world", wired)
    cached_stock = cached.on("flask-caching, gunicorn's gthread", GTHREAD)
    cached_ours = cached.on("flask-caching, Patron's worker", OURS)
    both_stock = both.on("flask-caching, by hand, gunicorn's gthread", GTHREAD)
    both_ours = both.on("flask-caching, by hand, Patron's worker", OURS)
    by_hand_stock = by_hand.on("Flask wired by hand, gunicorn's gthread", GTHREAD)
    by_hand_ours = by_hand.on("Flask wired by hand, Patron's worker", OURS)
    against = (
        (hit, both_stock, 3.0),
        (hit, both_ours, 3.0),
        (hit, cached_stock, 3.0),
        (hit, cached_ours, 3.0),
    )
    return {
        "base": Group((bare_stock, flask_stock, bare, flask, processor, view), (flask, flask_stock)),
        "cache": Group(
            (bare, hit, redis, cached_ours, cached_stock, both_ours, both_stock),
            (bare, cached_ours, cached_stock, both_ours, both_stock),
            ((hit, bare, 0.60), *against),
        ),
        "observed": Group(
            (processor, view, by_hand_ours, by_hand_stock),
            (by_hand_ours, by_hand_stock),
            ((processor, by_hand_stock, 1.5), (processor, by_hand_ours, 1.5)),
        ),
    }


@dataclass(frozen=True)
class Peer:
    """An application of other packages, which any worker may run."""

    app: str
    path: str
    modules: tuple[str, ...]

    def on(self, name: str, worker: str) -> Variant:
        return Variant(name, self.path, worker, self.app, self.modules)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(variant: Variant, options: argparse.Namespace, folder: Path, redis: str) -> None:
    variant.port = free_port()
    environ = {
        **os.environ,
        "PYTHONPATH": str(APPS),
        "BENCHMARK_PORT": str(variant.port),
        "BENCHMARK_WORKERS": str(options.workers),
        "BENCHMARK_REDIS": redis if variant.program == "redis-server" else "",
    }
    with (folder / f"{variant.port}.log").open("wb") as log:
        variant.process = subprocess.Popen(
            variant.command(options), env=environ, stdout=log, stderr=log, preexec_fn=pinner(options, 0)
        )
    wait_for(variant, folder)


def wait_for(variant: Variant, folder: Path) -> None:
    """Wait until it answers what every variant answers."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            if json.loads(fetched(variant).partition(b"\r\n\r\n")[2]) == {"hello": "world"}:
                return
        time.sleep(0.05)
    raise SystemExit(f"{variant.name} does not start: {(folder / f'{variant.port}.log').read_text()[-2000:]}")


def fetched(variant: Variant) -> bytes:
    """One answer, as it came."""
    with socket.create_connection(("127.0.0.1", variant.port), timeout=5) as client:
        client.sendall(f"GET {variant.path} HTTP/1.0\r\n\r\n".encode())
        return b"".join(iter(lambda: client.recv(65536), b""))


def pinner(options: argparse.Namespace, core: int):  # type: ignore[no-untyped-def]  # a preexec function or None
    cores = sorted(os.sched_getaffinity(0))
    if options.no_pin or len(cores) < 2 or options.workers > 1:
        return None
    return lambda: os.sched_setaffinity(0, {cores[core]})


def measure(variant: Variant, options: argparse.Namespace, seconds: float) -> tuple[float, float]:
    """Requests a second, and the processor time in microseconds that each of them took of the server."""
    url = f"http://127.0.0.1:{variant.port}{variant.path}"
    command = ["wrk", "-t1", f"-c{options.connections}", f"-d{seconds:g}s", url]
    before = cpu_seconds(variant)
    output = subprocess.run(
        command, capture_output=True, text=True, check=True, preexec_fn=pinner(options, 1)
    ).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        raise SystemExit(f"{variant.name}: {output}")
    count, rate = re.search(r"(\d+) requests in[\s\S]*Requests/sec:\s+([\d.]+)", output).groups()  # type: ignore[union-attr]
    return float(rate), (cpu_seconds(variant) - before) / int(count) * 1e6


def cpu_seconds(variant: Variant) -> float:
    """What the server and its workers have used so far."""
    assert variant.process is not None
    pid = variant.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    stats = [Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split() for each in (pid, *children)]
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")


def stop(variant: Variant) -> None:
    if variant.process is not None:
        variant.process.send_signal(signal.SIGTERM)
        variant.process.wait(30)


@contextlib.contextmanager
def redis_server(options: argparse.Namespace, folder: Path) -> Iterator[str]:
    """The URL of a server of this run's own, on the core of the load; nothing when there is none."""
    program = shutil.which("redis-server")
    if program is None:
        yield ""
        return
    port = free_port()
    command = [program, "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=pinner(options, 1))
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(10)


def table(name: str, group: Group) -> None:
    """The rates, what a request costs, and the ratios of the rates to each base."""
    bases = [base for base in group.bases if base.rates]
    heads = "".join(f"{f'to ({number})':>9}" for number in range(1, len(bases) + 1))
    print(f"\n{name:44}{'req/s':>9}{'lowest':>9}{'highest':>9}{'CPU us':>9}{heads}")
    for v in (v for v in group.variants if v.rates):
        mark = f" ({bases.index(v) + 1})" if v in bases else ""
        rates = f"{statistics.median(v.rates):9.0f}{min(v.rates):9.0f}{max(v.rates):9.0f}"
        ratios = "".join(f"{statistics.median(each_round(v.rates, base.rates)):9.2f}" for base in bases)
        print(f"{v.name + mark:44}{rates}{statistics.median(v.costs):9.0f}{ratios}")
    for v, base, aim in group.aims:
        if v.rates and base.rates:
            print(f"  {v.name} / {base.name}: {compared(v, base)} (aim {aim:.2f})")


def compared(variant: Variant, base: Variant) -> str:
    """The ratio of the rates with its spread, and that of the processor time, which other load disturbs less."""
    rates, costs = each_round(variant.rates, base.rates), each_round(base.costs, variant.costs)
    by_cpu = statistics.median(costs)
    return f"{statistics.median(rates):.2f}, {min(rates):.2f} to {max(rates):.2f}, by CPU {by_cpu:.2f}"


def each_round(values: list[float], others: list[float]) -> list[float]:
    """The ratios within each round: what drifts from round to round cancels out."""
    return [a / b for a, b in zip(values, others, strict=True)]


def versions(python: Path | str) -> str:
    listed = subprocess.run([python, "-c", VERSIONS, *PACKAGES], capture_output=True, text=True, check=True)
    return ", ".join(listed.stdout.splitlines())


def describe(options: argparse.Namespace) -> None:
    """Say what is measured, and where."""
    wrk = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout.split(" [")[0]
    redis = (
        subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=False).stdout
        if shutil.which("redis-server")
        else ""
    )
    print(f"Python {platform.python_version()}; {wrk}; {' '.join(redis.split()[:3])}; {os.cpu_count()} cores")
    print(versions(sys.executable))
    if options.peers != Path(sys.executable):
        print(f"others: {versions(options.peers)}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(groups()), help="these tables (default: all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--no-pin", action="store_true", help="let server and load wander over the cores")
    parser.add_argument(
        "--peers", type=Path, default=Path(sys.executable), help="the interpreter that has the other packages"
    )
    return parser.parse_args()


def chosen(tables: dict[str, Group], options: argparse.Namespace) -> list[Variant]:
    """The variants of the tables, each once, without those that cannot run here."""
    found = []
    for variant in {id(v): v for group in tables.values() for v in group.variants}.values():
        if missing := variant.lacks(options):
            print(f"not measured: {variant.name} ({missing})", file=sys.stderr)
        else:
            found.append(variant)
    return found


def main() -> None:
    options = arguments()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed (Debian: apt-get install wrk)")
    describe(options)
    tables = {name: group for name, group in groups().items() if name in (options.only or groups())}
    measured = chosen(tables, options)
    with tempfile.TemporaryDirectory() as folder, redis_server(options, Path(folder)) as redis:
        try:
            for variant in measured:
                start(variant, options, Path(folder), redis)
            rounds(measured, options)
        finally:
            for variant in measured:
                stop(variant)
    for name, group in tables.items():
        table(name, group)


def rounds(measured: list[Variant], options: argparse.Namespace) -> None:
    """Measure each variant once in each round; the first one does not count."""
    for number in range(options.rounds + 1):
        for variant in measured:
            rate, cost = measure(variant, options, 1.0 if number == 0 else options.seconds)
            if number:
                variant.rates.append(rate)
                variant.costs.append(cost)
        print(f"round {number}/{options.rounds} done", file=sys.stderr)


if __name__ == "__main__":
    main()
