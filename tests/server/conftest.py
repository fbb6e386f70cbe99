"""Real services in real processes: the harness that the tests of this folder share."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest
from brokers.processes import free_port


class ServiceProcess:
    """A service in a process group of its own, with what it wrote and how it ended."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.log = folder / "log.txt"
        self.process: subprocess.Popen[bytes] | None = None

    def write(self, module: str, config: str) -> None:
        """Write the user's module and the configuration."""
        (self.folder / "shop.py").write_text(textwrap.dedent(module))
        (self.folder / "config.yaml").write_text(textwrap.dedent(config))

    def start(self, *command: str, env: Mapping[str, str] | None = None, wait: bool = True) -> ServiceProcess:
        """Start it; the default command is ``python -m patron run config.yaml``."""
        arguments = command or (sys.executable, "-m", "patron", "run", "config.yaml")
        variables = {
            **{k: v for k, v in os.environ.items() if not k.startswith("PATRON_")},
            "PATRON_HTTP_DEFAULT_PORT": str(self.port),
            "PYTHONPATH": f"{self.folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
            **(env or {}),
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                arguments, cwd=self.folder, env=variables, stdout=log, stderr=log, start_new_session=True
            )
        if wait:
            self.until_ready()
        return self

    def start_gunicorn(
        self, *options: str, config: str = "python:patron.gunicorn", **kwargs: Any
    ) -> ServiceProcess:
        """Start it by the user's own gunicorn command."""
        env = {"PATRON_CONFIG": "config.yaml", **kwargs.pop("env", {})}
        command = (sys.executable, "-m", "gunicorn", "-c", config, *options, "patron.wsgi:app")
        return self.start(*command, env=env, **kwargs)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def workers(self) -> list[int]:
        """The process ids of the arbiter's children."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def request(
        self, method: str, path: str, body: bytes | None = None, timeout: float = 10, **headers: str
    ) -> HTTPResponse:
        """One request on a connection of its own; the answer is read."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
            answer = connection.getresponse()
            answer.body = answer.read()  # type: ignore[attr-defined]
            return answer
        finally:
            connection.close()

    def get(self, path: str, **kwargs: Any) -> HTTPResponse:
        return self.request("GET", path, **kwargs)

    def json(self, path: str) -> Any:
        return json.loads(self.get(path).body)  # type: ignore[attr-defined]

    def until_ready(self, timeout: float = 15) -> None:
        """Wait for the first 200 of ``/ready``; fails with the log when the process ends before."""
        self.until(self._ready, timeout, "ready")

    def _ready(self) -> bool:
        try:
            return self.get("/ready").status == 200
        except OSError:
            assert self.process is not None
            if self.process.poll() is not None:
                pytest.fail(f"the service ended with {self.process.returncode}:\n{self.output()}")
            return False

    def until(self, true: Callable[[], object], timeout: float = 15, what: str = "") -> None:
        """Wait until *true* holds; fails with the log when it takes too long."""
        deadline = time.monotonic() + timeout
        while not true():
            if time.monotonic() > deadline:
                pytest.fail(f"not {what or true} within {timeout} s:\n{self.output()}")
            time.sleep(0.02)

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def lines(self, message: str) -> list[dict[str, Any]]:
        """The JSON log lines with this *message*."""
        # What stands behind the last line end is being written: a reader may see a line in two parts.
        whole = self.output().rpartition("\n")[0].splitlines()
        parsed = [json.loads(line) for line in whole if line.startswith("{")]
        return [line for line in parsed if line.get("msg") == message]

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float = 20) -> int:
        """The exit status."""
        assert self.process is not None
        return self.process.wait(timeout)

    def kill_group(self) -> None:
        """End whatever is left."""
        if self.process is None:
            return
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(10)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    """A service that is not started yet; everything of it is ended after the test."""
    yield from _service(tmp_path)


@pytest.fixture(scope="module")
def shared_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """As `service`, for all the tests of a module that leave it as it was."""
    yield from _service(tmp_path_factory.mktemp("shared"))


def _service(folder: Path) -> Iterator[ServiceProcess]:
    process = ServiceProcess(folder, free_port())
    yield process
    process.kill_group()
    for leftover in Path("/dev/shm").glob("patron-*"):
        if not _held(leftover):
            shutil.rmtree(leftover, ignore_errors=True)


def _held(directory: Path) -> bool:
    from patron.server.run import _is_dead

    try:
        return not _is_dead(directory / "lock")
    except OSError:
        return True
