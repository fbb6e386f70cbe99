"""Observing is one state of the whole process, so each test here ends with the state it began with."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from patron import correlation
from patron.observe import log, metrics, trace

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    trace.stop(1.0)
    log.on_fatal(None)
    log.stop()
    metrics.reset()
    correlation.configure(correlation.CorrelationSettings())


@pytest.fixture
def process() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start ``process(script, *arguments)``: a Python of its own, killed when the test is over."""
    started: list[subprocess.Popen[bytes]] = []

    def start(script: str, *arguments: object, **streams: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", script, *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        started.append(subprocess.Popen(command, env=environment, cwd=ROOT, **streams))
        return started[-1]

    yield start
    for each in started:
        each.kill()
        each.wait()
        for stream in (each.stdin, each.stdout, each.stderr):
            if stream is not None:
                stream.close()
