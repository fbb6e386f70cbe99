"""What the tests of the Flask plug-in share: applications that end with their test, and Flask's own sources."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from brokers.requirements import missing

from patron import correlation, observe
from patron import resources as registry
from patron.observe import metrics, trace

CACHE = Path.home() / ".cache" / "patron-tests"


@pytest.fixture(autouse=True)
def _nothing_stays_in_the_process() -> Iterator[None]:
    """What the first request of an application settles for its process goes with the test."""
    yield
    trace.stop(1.0)
    observe.log.stop()
    correlation.configure(correlation.CorrelationSettings())
    registry.install({})
    metrics.reset()


@pytest.fixture(scope="session")
def flask_sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Flask's source distribution, unpacked: the release that is installed, with its examples and its tests."""
    name = f"flask-{version('flask')}"
    archive = CACHE / f"{name}.tar.gz"
    if not archive.exists():
        _download(f"flask=={version('flask')}")
    folder = tmp_path_factory.mktemp("sources")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / name


def _download(requirement: str) -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--no-binary", "flask", "--no-deps", "-d", str(CACHE)]
    tried = subprocess.run([*command, requirement], capture_output=True, text=True, check=False)
    if tried.returncode:
        missing("flask-tutorial", f"no source distribution of {requirement}: {tried.stderr[-500:]}")
