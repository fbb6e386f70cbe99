"""
How fast consumers on real brokers are, beside the bare driver's tightest loop and beside other frameworks.

    python benchmarks/consumers.py [--only kafka,confluent,rabbitmq,sqs,slow,peers] [--messages 100000] [--rounds 5]
                                   [--peers PYTHON]

Each message has 1 KiB, the processor is empty (in *slow* it sleeps 5 ms), and everybody settles a message
after it was processed: at least once. Patron is a real service with everything on: HTTP, correlation id and
unsampled trace read from every message, metrics, log to a file. Every consumer is a process of its own,
started for one measurement, and what it processed is counted: each message once, and all settled, or the
run fails. The clock runs from the first message until the last is settled.

Each round runs every case once, so that a busy moment of the machine meets all of them, and ratios are the
median of those within each round. Consumers are pinned to one core, brokers to another, where there are two.

Brokers are started, or taken from PATRON_TEST_KAFKA_URL and PATRON_TEST_RABBITMQ_URL. SQS is a server on
loopback with canned answers. Packages: benchmarks/requirements.txt; --peers names the interpreter that has
the other frameworks, when it is not this one.
"""

from __future__ import annotations

import sys

# This folder comes first on the path of a script, and its http.py would hide the standard library's.
sys.path.append(sys.path.pop(0).removesuffix("benchmarks"))

import argparse
import importlib.metadata
import json
import os
import platform
import re
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
APPS = HERE / "apps"
sys.path += [str(APPS), str(HERE.parent / "tests")]

GROUPS = ("kafka", "confluent", "rabbitmq", "sqs", "slow", "peers")
TIMEOUT = 120.0
PREFETCH = 256
PEER_SHARE = 0.05
SLOW_MESSAGES = 12_800
PACKAGES = ("kafka-python", "crc32c", "confluent-kafka", "pika", "boto3")
PEER_PACKAGES = {
    "aiokafka": ("faststream", "aiokafka"),
    "confluent": ("faststream", "confluent-kafka"),
    "rabbit": ("faststream", "aio-pika"),
    "kombu": ("kombu", "amqp"),
    "dramatiq": ("dramatiq", "pika"),
}


@dataclass
class Case:
    """One consumer that is measured."""

    name: str
    group: str
    system: str
    script: str
    base: str = ""
    "The case that it is compared with: for Patron the bare loop, for another framework Patron."
    aim: str = ""
    share: float = 1.0
    "Of --messages; slow consumers get fewer."
    spec: dict[str, Any] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def count(self, messages: int) -> int:
        """How many messages it gets."""
        count = int(messages * self.share)
        return min(count, SLOW_MESSAGES) if self.spec.get("slow") else count


def cases() -> list[Case]:
    """All of them, what is compared side by side."""
    return [*kafka(), *confluent(), *rabbitmq(), *sqs(), *slow(), *peers()]


def kafka() -> list[Case]:
    bare = "kafka-python, bare"

    def ours(name: str, **spec: Any) -> Case:
        aim = "0.80" if "batch" in spec else "0.50"
        return Case(f"Patron, kafka-python, {name}", "kafka", "kafka", "patron", bare, aim, spec=spec)

    return [
        Case(bare, "kafka", "kafka", "bare", bare, spec={"loop": "kafka-python", "wait": True}),
        ours("1 worker", workers=1),
        ours("8 workers", workers=8),
        ours("batches of 500", workers=1, batch=500),
    ]


def confluent() -> list[Case]:
    bare = "confluent, bare"

    def ours(name: str, aim: str = "", **spec: Any) -> Case:
        spec["driver"] = "confluent"
        return Case(f"Patron, confluent, {name}", "confluent", "kafka", "patron", bare, aim, spec=spec)

    return [
        Case(bare, "confluent", "kafka", "bare", bare, spec={"loop": "confluent"}),
        ours("1 worker", "60,000/s", workers=1),
        ours("8 workers", "60,000/s", workers=8),
        ours("batches of 500", workers=1, batch=500),
    ]


def rabbitmq() -> list[Case]:
    bare = "pika, bare, acks of 64"

    def loop(name: str, loop: str, prefetch: int = PREFETCH) -> Case:
        spec = {"loop": loop, "prefetch": prefetch}
        return Case(name, "rabbitmq", "rabbitmq", "bare", bare, share=0.3, spec=spec)

    def ours(name: str, **spec: Any) -> Case:
        return Case(
            f"Patron, RabbitMQ, {name}", "rabbitmq", "rabbitmq", "patron", bare, "0.80", 0.3, spec=spec
        )

    return [
        loop(bare, "pika-many"),
        loop("pika, bare, acks of 64, prefetch 5000", "pika-many", 5000),
        loop("pika, bare, ack of each", "pika-each"),
        ours("1 worker", workers=1),
        ours("8 workers", workers=8),
        ours("batches of 100", workers=1, batch=100),
    ]


def sqs() -> list[Case]:
    found = []
    for receivers in (1, 4):
        bare = f"boto3, bare, {receivers} receiving"
        spec = {"receivers": receivers}
        found += [
            Case(bare, "sqs", "sqs", "bare", bare, share=0.1, spec={**spec, "loop": "boto3"}),
            Case(
                f"Patron, SQS, {receivers} receiving",
                "sqs",
                "sqs",
                "patron",
                bare,
                "0.90",
                0.1,
                {**spec, "workers": 1},
            ),
        ]
    return found


def slow() -> list[Case]:
    spec = {"slow": True, "workers": 32, "partitions": 64}
    found = []
    for system, driver, loop in (
        ("kafka", "kafka-python", "kafka-threads"),
        ("rabbitmq", "pika", "pika-threads"),
    ):
        bare = f"{driver}, bare, 32 threads, 5 ms"
        found.append(Case(bare, "slow", system, "bare", bare, spec={**spec, "loop": loop}))
        orders = ("none", "lane", "key") if system == "kafka" else ("lane",)
        for order in orders:
            name = f"Patron, {driver}, 32 workers, 5 ms" + (f", order: {order}" if system == "kafka" else "")
            aim = "0.97" if order == orders[0] else ""
            found.append(Case(name, "slow", system, "patron", bare, aim, spec={**spec, "order": order}))
    return found


def peers() -> list[Case]:
    kp, cf, mq = "Patron, kafka-python, ", "Patron, confluent, ", "Patron, RabbitMQ, "

    def peer(name: str, system: str, base: str, peer: str, **spec: Any) -> Case:
        return Case(name, "peers", system, "peer", base, "5x", PEER_SHARE, {"peer": peer, **spec})

    found = []
    for name, system, kind, ours in (
        ("FastStream, aiokafka", "kafka", "aiokafka", kp),
        ("FastStream, confluent", "kafka", "confluent", cf),
        ("FastStream, aio-pika", "rabbitmq", "rabbit", mq),
    ):
        base = ours + "1 worker"
        found += [
            peer(name, system, base, kind),
            peer(f"{name}, tuned", system, base, kind, tuned=True),
            peer(f"{name}, observed", system, base, kind, observed=True),
        ]
        if system == "kafka":
            default = peer(f"{name}, acks first (its default)", system, base, kind, first=True)
            batches = peer(f"{name}, batches of 500", system, ours + "batches of 500", kind, batch=500)
            # Its default loses what a killed process had: no equal, so nothing is aimed at.
            found += [replace(default, aim=""), replace(batches, share=0.5)]
    return [
        *found,
        peer("kombu", "rabbitmq", mq + "1 worker", "kombu"),
        peer("dramatiq, 1 thread", "rabbitmq", mq + "1 worker", "dramatiq", workers=1, load="dramatiq"),
        peer("dramatiq, 8 threads", "rabbitmq", mq + "8 workers", "dramatiq", workers=8, load="dramatiq"),
        peer(
            "dramatiq, 8 threads, observed",
            "rabbitmq",
            mq + "8 workers",
            "dramatiq",
            workers=8,
            load="dramatiq",
            observed=True,
        ),
    ]


def chosen(only: set[str], pattern: str) -> list[Case]:
    """The cases of these groups, and what they are compared with; or just those that match *pattern*."""
    every = cases()
    if pattern:
        return [case for case in every if re.search(pattern, case.name)]
    wanted = {case.name for case in every if case.group in only}
    while more := {case.base for case in every if case.name in wanted} - wanted:
        wanted |= more
    return [case for case in every if case.name in wanted]


class Bench:
    """One run: its brokers, its folder, its interpreters."""

    def __init__(self, options: argparse.Namespace, folder: Path, stack: ExitStack) -> None:
        self.options = options
        self.folder = folder
        self._stack = stack
        self._brokers: dict[str, Any] = {}
        self._number = 0
        cores = sorted(os.sched_getaffinity(0))
        self.pinned = not options.no_pin and len(cores) >= 2
        self._core = cores[1] if self.pinned else None
        if self.pinned:
            # Brokers inherit it.
            os.sched_setaffinity(0, {cores[0]})

    def start(self, systems: set[str]) -> None:
        """Start, or find, the brokers."""
        for system in sorted(systems):
            broker = STARTS[system](self.folder / system, self._stack)
            self._stack.callback(broker.close)
            self._brokers[system] = broker

    def versions(self) -> list[str]:
        """What the brokers are."""
        return [broker.version() for broker in self._brokers.values()]

    def measure(self, case: Case, count: int) -> dict[str, Any]:
        """Fill, consume, check."""
        self._number += 1
        result = self.folder / f"{self._number}.json"
        broker = self._brokers[case.system]
        spec = {"count": count, "partitions": 8, "load": "", "prefetch": PREFETCH, **case.spec}
        if case.script == "patron" and "prefetch" not in case.spec:
            del spec["prefetch"]
        spec |= {"result": str(result), "system": case.system, "port": _free_port()}
        broker.fill(spec)
        process = self._spawn(case, spec)
        try:
            with self._profiled(case, process):
                measured = self._wait(case, process, result)
        finally:
            _stop(process)
        _check(case, count, measured, broker.left(spec))
        broker.empty(spec)
        return measured

    def _spawn(self, case: Case, spec: dict[str, Any]) -> subprocess.Popen[bytes]:
        python = self.options.peers if case.script == "peer" else sys.executable
        script = APPS / f"{case.script}_consumers.py"
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent)} if case.script == "patron" else None
        with self._log(case).open("wb") as log:
            return subprocess.Popen(
                [python, str(script), json.dumps(spec)],
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=log,
                preexec_fn=(lambda: os.sched_setaffinity(0, {self._core}))
                if self._core is not None
                else None,
            )

    @contextmanager
    def _profiled(self, case: Case, process: subprocess.Popen[bytes]) -> Iterator[None]:
        """Sample the stacks of Patron's side, when that is wanted; it costs some speed."""
        if not self.options.profile or case.script != "patron":
            yield
            return
        target = Path(self.options.profile) / self._log(case).with_suffix(".txt").name
        sampler = ["py-spy", "record", "--subprocesses", "--gil", "-f", "raw", "-r", "200", "-o", str(target)]
        time.sleep(1)
        spy = subprocess.Popen(
            [*sampler, "-p", str(process.pid)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            yield
        finally:
            spy.send_signal(signal.SIGINT)
            spy.wait()

    def _log(self, case: Case) -> Path:
        return self.folder / f"{case.name.replace(' ', '-').replace(',', '')}.log"

    def _wait(self, case: Case, process: subprocess.Popen[bytes], result: Path) -> dict[str, Any]:
        deadline = time.monotonic() + TIMEOUT
        while not result.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                why = (
                    "did not end in time"
                    if process.returncode is None
                    else f"ended with {process.returncode}"
                )
                raise SystemExit(f"{case.name} {why}:\n{self._log(case).read_text(errors='replace')[-3000:]}")
            time.sleep(0.05)
        return dict(json.loads(result.read_text()))


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Those who do not end by themselves are told to; who does not listen either is killed."""
    try:
        process.wait(1)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _check(case: Case, count: int, measured: dict[str, Any], left: int) -> None:
    if (measured["processed"], measured["distinct"], left) != (count, count, 0):
        raise SystemExit(
            f"{case.name}: of {count} messages {measured['distinct']} were processed, "
            f"in {measured['processed']} calls, and {left} were not settled"
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_kafka(folder: Path, stack: ExitStack) -> Any:
    from loads import Kafka

    if url := os.environ.get("PATRON_TEST_KAFKA_URL"):
        return Kafka(url)
    from brokers.kafka_server import Kafka as Server

    server = Server(folder)
    stack.callback(server.close)
    server.start()
    return Kafka(server.url)


def start_rabbitmq(folder: Path, stack: ExitStack) -> Any:
    from loads import RabbitMQ

    if url := os.environ.get("PATRON_TEST_RABBITMQ_URL"):
        return RabbitMQ(url)
    from brokers.rabbitmq_server import RabbitMQ as Server

    server = Server(folder)
    stack.callback(server.close)
    server.start()
    return RabbitMQ(server.url)


def start_sqs(folder: Path, stack: ExitStack) -> Any:
    from loads import Sqs

    return Sqs()


STARTS = {"kafka": start_kafka, "rabbitmq": start_rabbitmq, "sqs": start_sqs}


def without_missing(found: list[Case], python: str) -> list[Case]:
    """The cases whose packages are there; says which are not."""
    there = _peer_versions(python)
    missing = {
        peer: [package for package in packages if not there.get(package)]
        for peer, packages in PEER_PACKAGES.items()
    }
    left = []
    for case in found:
        if case.script == "peer" and (names := missing[case.spec["peer"]]):
            print(f"NOT MEASURED: {case.name}: {python} has no {' and no '.join(names)}")
        else:
            left.append(case)
    return left


def _peer_versions(python: str) -> dict[str, str]:
    packages = sorted({package for packages in PEER_PACKAGES.values() for package in packages})
    script = (
        "import importlib.metadata as m, json, sys\n"
        "def v(name):\n"
        "    try: return m.version(name)\n"
        "    except m.PackageNotFoundError: return ''\n"
        "print(json.dumps({name: v(name) for name in sys.argv[1:]}))"
    )
    said = subprocess.run([python, "-c", script, *packages], capture_output=True, text=True, check=True)
    return dict(json.loads(said.stdout))


def report(found: list[Case]) -> None:
    """The table: to bare for Patron, how much faster Patron is for the others."""
    by_name = {case.name: case for case in found}
    heads = ("median/s", "slowest", "fastest", "CPU us", "of bare", "by CPU", "Patron is", "aim")
    print(f"\n{'case':56}" + "".join(f"{head:>10}" for head in heads))
    for case in found:
        ratio = ratio_of(case, by_name[case.base]) if case.base in by_name else None
        of_bare = f"{ratio:.2f}" if ratio and case.script != "peer" else ""
        by_cpu = f"{cpu_ratio(case, by_name[case.base]):.2f}" if of_bare else ""
        ahead = f"{1 / ratio:.1f}x" if ratio and case.script == "peer" else ""
        rates = [f"{rate:,.0f}" for rate in (statistics.median(case.rates), min(case.rates), max(case.rates))]
        cells = [*rates, f"{statistics.median(case.cpu):.1f}", of_bare, by_cpu, ahead, case.aim]
        print(f"{case.name:56}" + "".join(f"{cell:>10}" for cell in cells))


def ratio_of(case: Case, base: Case) -> float:
    """The median of the ratios within each round: what drifts from round to round cancels out."""
    return statistics.median(a / b for a, b in zip(case.rates, base.rates, strict=True))


def cpu_ratio(case: Case, base: Case) -> float:
    """The same of CPU time: it says less about the clock, and is less disturbed by what else the machine does."""
    return statistics.median(b / a for a, b in zip(case.cpu, base.cpu, strict=True))


def versions(systems: set[str], options: argparse.Namespace, peers_too: bool) -> str:
    listed = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES if _has(name))
    lines = [f"Python {platform.python_version()}, patron {importlib.metadata.version('patron')}, {listed}"]
    if peers_too:
        there = _peer_versions(options.peers)
        lines.append(
            "others: " + ", ".join(f"{name} {version}" for name, version in there.items() if version)
        )
    return "\n".join(lines)


def _has(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(GROUPS), help="groups, joined by commas")
    parser.add_argument("--case", default="", metavar="REGEX", help="just the cases whose name has it")
    parser.add_argument("--messages", type=int, default=100_000, help="of the fastest; others get a share")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--peers", default=sys.executable, metavar="PYTHON", help="interpreter with the others"
    )
    parser.add_argument("--json", metavar="FILE", help="write all measurements there")
    parser.add_argument(
        "--no-pin", action="store_true", help="let brokers and consumers wander over the cores"
    )
    parser.add_argument(
        "--profile", metavar="FOLDER", help="write py-spy's raw stacks of Patron's side there"
    )
    options = parser.parse_args()
    if unknown := set(options.only.split(",")) - set(GROUPS):
        parser.error(f"--only has {sorted(unknown)}: use {', '.join(GROUPS)}, joined by commas")
    return options


def main() -> None:
    options = arguments()
    found = without_missing(chosen(set(options.only.split(",")), options.case), options.peers)
    systems = {case.system for case in found}
    print(versions(systems, options, any(case.script == "peer" for case in found)))
    with tempfile.TemporaryDirectory(prefix="patron-bench-") as folder, ExitStack() as stack:
        bench = Bench(options, Path(folder), stack)
        bench.start(systems)
        print("brokers: " + ", ".join(bench.versions()), flush=True)
        load = os.getloadavg()
        for number in range(options.rounds + 1):
            for case in found:
                # The first round warms up: the broker's code, page cache, compiled modules.
                measured = bench.measure(
                    case, max(500, case.count(options.messages) // (1 if number else 10))
                )
                print(f"{number}/{options.rounds} {case.name}: {measured['rate']:,.0f}", file=sys.stderr)
                if number:
                    case.rates.append(measured["rate"])
                    case.cpu.append(measured["cpu"])
    where = "consumers on one core, what is started on another" if bench.pinned else "not pinned"
    print(f"{os.cpu_count()} processors, {where}; load before {load[0]:.1f}, after {os.getloadavg()[0]:.1f}")
    print(f"{options.messages} messages (others: less), {options.rounds} rounds")
    report(found)
    if options.json:
        rows = [{"name": c.name, "base": c.base, "aim": c.aim, "rates": c.rates, "cpu": c.cpu} for c in found]
        Path(options.json).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
