"""A periodic component in several worker processes, of which one is killed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import ServiceProcess

pytestmark = pytest.mark.server

MODULE = """
    import os, time

    def note(file, what):
        with open(file, "a") as lines:
            lines.write(f"{time.monotonic()} {os.getpid()} {what}\\n")

    def alone():
        note("alone.txt", "begin")
        time.sleep(0.02)
        note("alone.txt", "end")

    def everywhere():
        note("everywhere.txt", "begin")
"""
CONFIG = """
    name: clock
    workers: 2
    grace: 5
    periodic:
      - {name: alone, function: "shop:alone", every: 50ms, one_worker: true}
      - {name: everywhere, function: "shop:everywhere", every: 50ms}
"""


def read(path: Path) -> list[tuple[float, int, str]]:
    """The times, process ids and events that were noted."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [(float(line.split()[0]), int(line.split()[1]), line.split()[2]) for line in lines]


def pids(path: Path) -> set[int]:
    return {pid for _, pid, _ in read(path)}


def overlaps(events: list[tuple[float, int, str]]) -> list[int]:
    """Process ids that began while another one ran that is known to have ended."""
    found, open_runs = [], set[int]()
    for position, (_, pid, what) in enumerate(events):
        if what == "end":
            open_runs.discard(pid)
            continue
        found += [other for other in open_runs if (other, "end") in [e[1:] for e in events[position:]]]
        open_runs.add(pid)
    return found


def phases(service: ServiceProcess) -> dict[int, str]:
    """Process id → what its component does."""
    components = service.json("/debug/components")["components"]
    return {c["worker"]: c["phase"] for c in components if c["name"] == "alone"}


def test_one_worker_runs_it_and_another_takes_over_when_that_is_killed(service: ServiceProcess) -> None:
    alone, everywhere = service.folder / "alone.txt", service.folder / "everywhere.txt"
    service.write(MODULE, CONFIG)
    service.start()
    service.until(lambda: len(pids(everywhere)) == 2 and len(read(alone)) > 20)
    (first,) = pids(alone)
    assert first in service.workers()

    os.kill(first, signal.SIGKILL)
    killed = time.monotonic()
    service.until(lambda: len(pids(alone)) == 2)
    (second,) = pids(alone) - {first}
    assert min(at for at, pid, _ in read(alone) if pid == second) > killed

    service.until_ready()
    service.until(lambda: len(service.workers()) == 2 and len(pids(everywhere)) == 3)
    before = len(read(alone))
    service.until(lambda: len(read(alone)) > before + 20)
    assert pids(alone) == {first, second}
    assert overlaps(read(alone)) == []

    service.until(lambda: phases(service).pop(second, "") in ("waiting", "running"))
    service.until(lambda: "standing by" in phases(service).values())
    page = service.get("/metrics").body.decode()  # type: ignore[attr-defined]
    assert 'component_periodic_runs_total{name="alone",status="succeeded"}' in page

    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert read(alone)[-1][2] == "end"
