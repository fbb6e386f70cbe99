"""The quick start as a process."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def harness() -> ModuleType:
    """The process harness of tests/server, under a name that does not collide with this file's."""
    path = ROOT / "tests" / "server" / "conftest.py"
    spec = importlib.util.spec_from_file_location("server_harness", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def shop(tmp_path: Path, harness: ModuleType) -> Iterator[object]:
    """The quick start, not started yet, with its database in a folder of the test."""

    class Shop(harness.ServiceProcess):  # type: ignore[misc,name-defined]
        database = tmp_path / "shop.db"

        def run(self, wait: bool = True, **env: str) -> Shop:
            config = str(ROOT / "examples" / "quickstart" / "config.yaml")
            command = (harness.sys.executable, "-m", "patron", "run", config)
            self.start(*command, env={"SHOP_DATABASE": str(self.database), **env}, wait=wait)
            return self

    process = Shop(tmp_path, harness.free_port())
    yield process
    process.kill_group()
