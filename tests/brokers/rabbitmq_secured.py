"""A private RabbitMQ with TLS, for who shows a certificate that it trusts."""

from __future__ import annotations

from pathlib import Path

from brokers.certificates import Authority
from brokers.processes import free_port
from brokers.rabbitmq_server import RabbitMQ

__all__ = ["SecuredRabbitMQ"]

# https://www.rabbitmq.com/docs/ssl
_SETTINGS = """
listeners.ssl.1 = 127.0.0.1:{port}
ssl_options.cacertfile = {authority}
ssl_options.certfile = {certificate}
ssl_options.keyfile = {key}
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
"""


class SecuredRabbitMQ(RabbitMQ):
    """RabbitMQ with TLS on *tls_port*; *authority* vouches for it, and for *client*."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder / "certificates")
        self.client = self.authority.vouches_for("client")
        self.tls_port = free_port()
        super().__init__(folder)
        own = self.authority.vouches_for("rabbitmq")
        with (folder / "rabbitmq.conf").open("a") as settings:
            settings.write(
                _SETTINGS.format(
                    port=self.tls_port,
                    authority=self.authority.file,
                    certificate=own.certificate,
                    key=own.key,
                )
            )

    def tls_url(self, password: str = "guest") -> str:
        """The address of its TLS, for somebody with *password*."""
        return f"amqps://guest:{password}@localhost:{self.tls_port}/"
