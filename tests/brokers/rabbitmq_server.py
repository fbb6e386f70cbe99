"""A private RabbitMQ, from the Debian package rabbitmq-server."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from brokers.processes import STOP, Server, ServerProcess, Unavailable, free_port

#: Not the one in /usr/sbin, which changes to the user rabbitmq.
BINARY = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


class RabbitMQServer(Server):
    """A RabbitMQ that is there, with the user guest."""

    name = "rabbitmq"

    def url_at(self, port: int) -> str:
        return f"amqp://guest:guest@{self.host}:{port}/"


class RabbitMQ(ServerProcess, RabbitMQServer):
    """RabbitMQ in a process of its own, with an Erlang port mapper of its own; up in about six seconds."""

    name = "rabbitmq"

    def __init__(self, folder: Path) -> None:
        if not BINARY.exists() or shutil.which("epmd") is None:
            raise Unavailable("rabbitmq-server is not installed (Debian: rabbitmq-server)")
        super().__init__(folder, free_port())
        self.mapper: subprocess.Popen[bytes] | None = None
        self.mapper_port, self.distribution_port = free_port(), free_port()
        (folder / "rabbitmq.conf").write_text(
            "disk_free_limit.absolute = 50MB\nlog.console.level = warning\n"
        )
        (folder / "enabled_plugins").write_text("[].\n")
        (folder / "home").mkdir(exist_ok=True)

    def command(self) -> Sequence[str]:
        return (str(BINARY),)

    def environment(self) -> Mapping[str, str]:
        return {
            "HOME": str(self.folder / "home"),
            "RABBITMQ_NODENAME": f"patron{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(self.distribution_port),
            "ERL_EPMD_PORT": str(self.mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "+S 2:2 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}"
            ),
        }

    def spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        if self.mapper is None:
            # The server would start one as a daemon, which outlives it.
            command = ["epmd", "-address", "127.0.0.1", "-port", str(self.mapper_port)]
            self.mapper = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        (self.folder / "pid").unlink(missing_ok=True)
        return super().spawn(log)

    def ready(self) -> bool:
        import pika
        from pika.exceptions import AMQPError

        try:
            pika.BlockingConnection(pika.URLParameters(self.url)).close()
        except AMQPError:
            return False
        return True

    def _signal(self, process: subprocess.Popen[bytes], number: int) -> None:
        # SIGTERM is for the Erlang machine alone: the script around it would run rabbitmqctl.
        if number == signal.SIGTERM and (pid := self._machine()) is not None:
            os.kill(pid, number)
        else:
            super()._signal(process, number)

    def kill(self) -> None:
        machine = self._machine()
        super().kill()
        # What we waited for is the script around it.
        deadline = time.monotonic() + STOP
        while machine is not None and _lives(machine) and time.monotonic() < deadline:
            time.sleep(0.01)

    def _machine(self) -> int | None:
        try:
            return int((self.folder / "pid").read_text())
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        super().close()
        if self.mapper is not None:
            self.mapper.kill()
            self.mapper.wait()
            self.mapper = None


def _lives(pid: int) -> bool:
    """Whether a process runs; one that nobody waited for is dead all the same."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
