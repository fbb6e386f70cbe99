"""A server of a test: a process in a folder of its own, which can be stopped, killed, and started again on its data."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

START = 90.0
STOP = 30.0


class Unavailable(Exception):
    """A server cannot be had on this machine; the message says what is missing."""


def free_port() -> int:
    """
    A port of 127.0.0.1 that nobody uses, now and as long as a server is down.

    It lies below the range of which the kernel gives ports to clients: another connection cannot take it while
    the server restarts, nor can a client that tries to connect meet itself on it. Test processes side by side
    (pytest-xdist) draw from ranges of their own, so that none takes what another was given a moment ago.
    """
    first = 12000 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 4 * 5000
    for port in random.sample(range(first, first + 5000), 200):
        if port not in _given:
            with contextlib.suppress(OSError), socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
                _given.add(port)
                return port
    raise Unavailable(f"no free port between {first} and {first + 5000}")


# Ports that this process gave away: their servers may not listen yet.
_given: set[int] = set()


class Server:
    """What tests see of a server: where it is, and whether it is the real one."""

    name = ""

    def __init__(self, port: int, *, host: str = "127.0.0.1", real: bool = True) -> None:
        self.host = host
        self.port = port
        self.real = real

    @property
    def url(self) -> str:
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        """The url that reaches this server through a proxy on *port*."""
        raise NotImplementedError

    def behind_proxy(self) -> tuple[int, int | None]:
        """The port that a proxy forwards to, and the one that it has to listen on (None: any)."""
        return self.port, None


class ServerProcess(Server):
    """A server that we start. Owned by one thread."""

    def __init__(self, folder: Path, port: int, *, real: bool = True) -> None:
        super().__init__(port, real=real)
        self.folder = folder
        self.log = folder / "log.txt"
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def command(self) -> Sequence[str]:
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        return {}

    def ready(self) -> bool:
        """Whether it answers; an OSError or False means not yet."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self, *, wait: bool = True) -> None:
        """Start it on what is in its folder, and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = self.spawn(log)
        if wait:
            self.wait_ready()

    def spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command(),
            cwd=self.folder,
            env={**os.environ, **self.environment()},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def wait_ready(self, timeout: float = START) -> None:
        """Wait until it answers; an error with the end of its log when it does not."""
        deadline = time.monotonic() + timeout
        while not self._answers():
            assert self.process is not None
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended with {self.process.returncode}:\n{self.tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self.name} did not answer within {timeout} s:\n{self.tail()}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            return self.ready()
        except OSError:
            return False

    def tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])

    def stop(self) -> None:
        """Stop it orderly; it can be started again."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """``kill -9``; it can be started again."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """``kill -9``, and start again on the same data and port."""
        self.kill()
        self.start()

    def _end(self, number: int) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        self._signal(process, number)
        try:
            process.wait(STOP)
        except subprocess.TimeoutExpired:
            self._signal(process, signal.SIGKILL)
            process.wait(STOP)

    def _signal(self, process: subprocess.Popen[bytes], number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)

    def close(self) -> None:
        """Stop it for good, without ceremony: its data are not needed any more."""
        self.kill()


def cache() -> Path:
    """A folder that outlives the run, for what is downloaded."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "patron-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
