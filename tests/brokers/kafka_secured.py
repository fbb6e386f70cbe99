"""A private Kafka that asks who one is: by password (PLAIN and SCRAM-SHA-512), or by certificate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from brokers.certificates import Authority
from brokers.kafka_server import Kafka
from brokers.processes import free_port

__all__ = ["PASSWORD", "USER", "SecuredKafka"]

USER = "till"
PASSWORD = "s3cret-of-the-till"

# https://kafka.apache.org/documentation/#security
_SETTINGS = """
ssl.keystore.type=PEM
ssl.keystore.location={store}
ssl.truststore.type=PEM
ssl.truststore.location={trusted}
listener.name.ssl.ssl.client.auth=required
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512
"""
_LOGIN = """
listener.name.{name}.plain.sasl.jaas.config={security}.plain.PlainLoginModule required user_{user}="{password}";
listener.name.{name}.scram-sha-512.sasl.jaas.config={security}.scram.ScramLoginModule required;
"""


class SecuredKafka(Kafka):
    """
    Kafka with a listener for each of `ports`; *authority* vouches for it, and for *client*.

    ``SSL`` asks for a certificate, the other two for a password.
    """

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder / "certificates")
        self.client = self.authority.vouches_for("client")
        self.ports: Mapping[str, int] = {
            protocol: free_port() for protocol in ("SSL", "SASL_PLAINTEXT", "SASL_SSL")
        }
        super().__init__(folder)
        self.settings.write_text(self._secured(self.settings.read_text()))

    def brokers(self, protocol: str) -> str:
        """The address for ``security_protocol``: *protocol*."""
        return f"{self.host}:{self.ports[protocol]}"

    def _secured(self, settings: str) -> str:
        more = "".join(f",{protocol}://{self.brokers(protocol)}" for protocol in self.ports)
        lines = [
            line + more if line.startswith(("listeners=", "advertised.listeners=")) else line
            for line in settings.splitlines()
        ]
        known = "".join(f",{protocol}:{protocol}" for protocol in self.ports)
        lines = [
            line + known if line.startswith("listener.security.protocol.map=") else line for line in lines
        ]
        logins = [
            _LOGIN.format(
                name=name, user=USER, password=PASSWORD, security="org.apache.kafka.common.security"
            )
            for name in ("sasl_plaintext", "sasl_ssl")
        ]
        own = self.authority.vouches_for("kafka")
        store = self.folder / "store.pem"
        store.write_text(Path(own.key).read_text() + Path(own.certificate).read_text())
        certificates = _SETTINGS.format(store=store, trusted=self.authority.file)
        return "\n".join([*lines, certificates, *logins])

    def format_options(self) -> Sequence[str]:
        return ("--add-scram", f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]")
