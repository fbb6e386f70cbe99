"""A private Redis, from the Debian package redis-server."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

from brokers.processes import Server, ServerProcess, Unavailable, free_port


class RedisServer(Server):
    """A Redis that is there, with its first database for the tests."""

    name = "redis"

    def url_at(self, port: int) -> str:
        return f"redis://{self.host}:{port}/0"

    def say(self, *words: str) -> bytes:
        """The first bytes of what it answers to a command, without any driver."""
        with socket.create_connection((self.host, self.port), 5) as link:
            link.sendall(" ".join(words).encode() + b"\r\n")
            return link.recv(65536)


class Redis(ServerProcess, RedisServer):
    """Redis in a process of its own, which keeps nothing on disk; up in a tenth of a second."""

    name = "redis"

    def __init__(self, folder: Path, *options: str) -> None:
        binary = shutil.which("redis-server")
        if binary is None:
            raise Unavailable("redis-server is not installed (Debian: redis-server)")
        super().__init__(folder, free_port())
        self.socket = folder / "redis.sock"
        self._binary = binary
        self._options = options

    def command(self) -> Sequence[str]:
        settings = ("--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", "redis.sock")
        return (self._binary, *settings, "--save", "", "--appendonly", "no", *self._options)

    def ready(self) -> bool:
        return self.say("PING")[:1] in (b"+", b"-")

    def freeze(self) -> None:
        """Let it hang: connections are accepted by the kernel, and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)
