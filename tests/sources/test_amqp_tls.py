"""amqps: the certificate of the broker is checked, ours is shown, and messages go both ways."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from brokers.rabbitmq_server import RabbitMQServer

from patron.clients.amqp import AmqpPublisher
from patron.errors import ConnectionLost, PublishFailed
from patron.sources.amqp import AmqpSource
from patron.testing.until import until

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates"),
]


class TlsDoor:
    """What a broker with TLS looks like from outside: speaks TLS, and forwards to the broker."""

    def __init__(self, context: ssl.SSLContext, target: tuple[str, int]) -> None:
        self._context = context
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.clients: list[object] = []
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, name="door")]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError):
                client = self._context.wrap_socket(plain, server_side=True)
                self.clients.append(client.getpeercert())
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                for pair in ((client, server), (server, client)):
                    thread = threading.Thread(target=self._pump, args=pair, name="door")
                    self._threads.append(thread)
                    thread.start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)
        for each in self._sockets:
            each.close()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    """A certificate for localhost that signs itself, and its key."""
    files = str(tmp_path / "certificate.pem"), str(tmp_path / "key.pem")
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=localhost",
        "-days",
        "2",
    ]
    command += ["-addext", "subjectAltName=DNS:localhost", "-out", files[0], "-keyout", files[1]]
    subprocess.run(command, check=True, capture_output=True)
    return files


@pytest.fixture
def door(rabbitmq: RabbitMQServer, certificate: tuple[str, str]) -> Iterator[Callable[..., TlsDoor]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    context.load_verify_locations(certificate[0])
    context.verify_mode = ssl.CERT_OPTIONAL
    opened = TlsDoor(context, (rabbitmq.host, rabbitmq.port))
    yield opened
    opened.close()


def test_messages_go_both_ways_and_our_certificate_is_shown(
    door: TlsDoor, certificate: tuple[str, str]
) -> None:
    url = f"amqps://guest:guest@localhost:{door.port}/"
    files = {"ca_file": certificate[0], "cert_file": certificate[0], "key_file": certificate[1]}
    source = AmqpSource(f"patron-{uuid.uuid4().hex[:12]}", url, create=True, queue_type="classic", **files)
    source.prepare([])
    body = bytes(range(256)) * 4096
    with AmqpPublisher(url, **files) as publisher:
        publisher.publish("", source.queue, body)
    subscription = source.open()
    received = []
    until(lambda: received.extend(subscription.poll(1, 0.1)) or received, 10)
    assert received[0].body == body
    subscription.ack(received)
    subscription.close()
    assert all(door.clients)
    connection = source._connect()
    connection.channel().call("queue_delete", queue=source.queue)
    connection.close()


def test_a_broker_that_nobody_vouches_for_is_refused(door: TlsDoor, certificate: tuple[str, str]) -> None:
    with pytest.raises(ConnectionLost, match="CERTIFICATE_VERIFY_FAILED"):
        AmqpSource("q", f"amqps://localhost:{door.port}/").open()
    with pytest.raises(ConnectionLost, match="CERTIFICATE_VERIFY_FAILED"):
        AmqpSource("q", f"amqps://127.0.0.1:{door.port}/", ca_file=certificate[0]).open()
    publisher = AmqpPublisher(f"amqps://localhost:{door.port}/", timeout=1.0)
    with publisher, pytest.raises(PublishFailed, match="CERTIFICATE_VERIFY_FAILED"):
        publisher.publish("", "q", {})
