"""The service whose losses are counted: ``patron run`` in a process group of its own, and what it recorded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from brokers.processes import free_port

#: The user's module. A line is written by one call, to a file opened with O_APPEND, so that ``kill -9`` loses none.
MODULE = """
import os
import random
import time

RECORDS = os.open("records.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
ERRORS = float(os.environ["LOSS_ERRORS"])
SECONDS = float(os.environ["LOSS_SECONDS"])


def record(what, message):
    lane, number = message.body.decode().split()
    line = f"{what} {lane} {number} {os.getpid()} {message.deliveries} {time.monotonic():.6f}\\n"
    os.write(RECORDS, line.encode())


def process(message):
    if random.random() < ERRORS:
        raise RuntimeError("a random error")
    if SECONDS:
        record("begin", message)
        time.sleep(SECONDS)
    record("end", message)
"""


@dataclass
class Record:
    """One line: *what* is ``begin`` or ``end`` of processing message *number* of *lane*; *at* is in seconds."""

    what: str
    lane: str
    number: int
    pid: int
    deliveries: int
    at: float


@dataclass
class Jump:
    """*record* was processed for the first time although number *missing* of its lane was not yet."""

    record: Record
    before: Record | None
    missing: int

    def __str__(self) -> str:
        return f"{self.record} after {self.before}, not {self.missing}"


@dataclass
class Records:
    """What the service recorded, read as far as it has got."""

    path: Path
    lines: list[Record] = field(default_factory=list)
    ends: Counter[tuple[str, int]] = field(default_factory=Counter)
    _read: int = 0

    def update(self) -> int:
        """Read on; returns how many different messages were processed."""
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            file.seek(self._read)
            whole, newline, _ = file.read().rpartition(b"\n")
            self._read += len(whole) + len(newline)
            for line in whole.decode().splitlines():
                self._add(line)
        return len(self.ends)

    def _add(self, line: str) -> None:
        what, lane, number, pid, deliveries, at = line.split()
        record = Record(what, lane, int(number), int(pid), int(deliveries), float(at))
        self.lines.append(record)
        if what == "end":
            self.ends[record.lane, record.number] += 1

    @property
    def duplicates(self) -> int:
        """How often a message was processed beyond once."""
        return self.ends.total() - len(self.ends)

    def repeats(self) -> list[tuple[Record, Record]]:
        """Each processing beyond the first, with the one before it."""
        last: dict[tuple[str, int], Record] = {}
        found = []
        for record in self._ends():
            before = last.get((record.lane, record.number))
            if before is not None:
                found.append((before, record))
            last[record.lane, record.number] = record
        return found

    @property
    def most_deliveries(self) -> int:
        return max((record.deliveries for record in self.lines), default=0)

    def begun(self) -> Counter[tuple[str, int]]:
        return Counter((each.lane, each.number) for each in self.lines if each.what == "begin")

    def disorder(self) -> list[Jump]:
        """
        The messages that were processed for the first time although one before them in their lane was not yet.

        That is the order which redelivery leaves: after a crash a lane goes back and repeats, but it
        never goes past something that was not processed.
        """
        following: dict[str, int] = defaultdict(int)
        last: dict[str, Record] = {}
        wrong = []
        for record in self._ends():
            if record.number >= following[record.lane]:
                if record.number > following[record.lane]:
                    wrong.append(Jump(record, last.get(record.lane), following[record.lane]))
                following[record.lane] = record.number + 1
            last[record.lane] = record
        return wrong

    def leaps(self) -> list[str]:
        """Where one process left something out between two messages of a lane: a repeat has no gaps either."""
        last: dict[tuple[str, int], Record] = {}
        wrong = []
        for record in self._ends():
            before = last.get((record.lane, record.pid))
            if before is not None and record.number > before.number + 1:
                wrong.append(f"{record} after {before}")
            last[record.lane, record.pid] = record
        return wrong

    def _ends(self) -> Sequence[Record]:
        return [record for record in self.lines if record.what == "end"]


class LossService:
    """One process group with one worker process, 8 threads by default, reading *source*."""

    def __init__(
        self,
        folder: Path,
        source: Mapping[str, Any],
        *,
        errors: float = 0.0,
        seconds: float = 0.0,
        name: str = "service",
        environment: Mapping[str, str] = {},
        **settings: Any,
    ) -> None:
        self.folder = folder
        self.log = folder / f"{name}.log"
        self.port = free_port()
        self.config = folder / f"{name}.yaml"
        self.variables = {**environment, "LOSS_ERRORS": str(errors), "LOSS_SECONDS": str(seconds)}
        self.process: subprocess.Popen[bytes] | None = None
        consumer = {"name": "losses", "source": source, "processor": "losing:process", "workers": 8}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "losing.py").write_text(MODULE)
        # JSON is YAML.
        described = {"name": "losses", "consumers": [{**consumer, **settings}]}
        self.config.write_text(json.dumps(described, indent=1))

    def start(self, *, wait: bool = False) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "patron", "run", str(self.config)],
                cwd=self.folder,
                env={
                    **{k: v for k, v in os.environ.items() if not k.startswith("PATRON_")},
                    **self.variables,
                    "PATRON_HTTP_DEFAULT_PORT": str(self.port),
                    "PYTHONPATH": f"{self.folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if wait:
            self.wait_ready()

    def wait_ready(self, timeout: float = 60) -> None:
        deadline = time.monotonic() + timeout
        while not self.ready():
            if time.monotonic() > deadline or not self.running:
                raise RuntimeError(f"the service is not ready:\n{self.tail()}")
            time.sleep(0.05)

    def ready(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/ready")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def workers(self) -> Sequence[int]:
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def kill_worker(self) -> None:
        """``kill -9`` of the worker process; its arbiter starts another one."""
        for pid in self.workers():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill(self) -> None:
        """``kill -9`` of the whole process group."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def terminate(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def stop(self, timeout: float = 60) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        self.terminate()
        return self.process.wait(timeout)

    def tail(self, lines: int = 20) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
