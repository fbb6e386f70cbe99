"""Moto's server in a process of its own: SQS and SNS as far as tests need them, in memory."""

from __future__ import annotations

import importlib.util
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from brokers.processes import Server, ServerProcess, Unavailable, free_port

#: What boto3 asks for; moto takes anything.
VARIABLES: Mapping[str, str] = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "eu-west-1",
}


class SqsServer(Server):
    """An endpoint of SQS and SNS that is there."""

    name = "sqs"

    def url_at(self, port: int) -> str:
        return f"http://{self.host}:{port}"


class Moto(ServerProcess, SqsServer):
    """Moto's server; up in half a second. What it held is gone after a stop."""

    name = "sqs"

    def __init__(self, folder: Path) -> None:
        if importlib.util.find_spec("moto") is None:
            raise Unavailable("moto is not installed (pip install 'moto[server]')")
        super().__init__(folder, free_port())

    def command(self) -> Sequence[str]:
        return (sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port))

    def environment(self) -> Mapping[str, str]:
        return VARIABLES

    def ready(self) -> bool:
        with socket.create_connection((self.host, self.port), timeout=1):
            return True


class ExactMoto(Moto):
    """With FIFO groups as exact as those of SQS: see moto_exact.py."""

    def command(self) -> Sequence[str]:
        script = str(Path(__file__).with_name("moto_exact.py"))
        return (sys.executable, script, "-H", "127.0.0.1", "-p", str(self.port))
