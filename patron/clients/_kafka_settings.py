"""The settings of a Kafka producer, in the words of each driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from patron.clients._kafka_delivery import Driver
from patron.errors import ConfigError
from patron.kafka import PROTOCOLS, security_problems
from patron.secured import check_files

__all__ = ["Security", "Settings", "addresses"]

_KAFKA_PYTHON = (
    "security_protocol",
    "sasl_mechanism",
    "sasl_plain_username",
    "sasl_plain_password",
    "ssl_cafile",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_password",
)
_LIBRDKAFKA = (
    "security.protocol",
    "sasl.mechanism",
    "sasl.username",
    "sasl.password",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.key.password",
)


class Security(NamedTuple):
    """How the broker and the producer know each other; see `KafkaProducer`."""

    protocol: str
    mechanism: str | None
    username: str | None
    password: str | None
    cafile: str | None
    certfile: str | None
    keyfile: str | None
    key_password: str | None

    def __repr__(self) -> str:
        return f"Security({self.protocol})"  # nothing secret

    def named(self, names: Sequence[str]) -> dict[str, str]:
        """What is set, by the *names* that a driver has for it."""
        return {name: value for name, value in zip(names, self, strict=True) if value is not None}


@dataclass(frozen=True)
class Settings:
    """What the drivers are told, and how each is."""

    brokers: tuple[str, ...]
    client_id: str
    timeout: float
    linger: float
    compression: str | None
    partitioner: str
    driver: str
    security: Security
    options: Mapping[str, Any] = field(repr=False)

    def __post_init__(self) -> None:
        for name, value, known in (
            ("security_protocol", self.security.protocol, PROTOCOLS),
            ("driver", self.driver, ("kafka-python", "confluent")),
            ("partitioner", self.partitioner, ("murmur2", "fnv1a")),
            ("compression", self.compression, (None, "gzip", "snappy", "lz4", "zstd")),
        ):
            if value not in known:
                raise ConfigError(f"{name} {value!r} is unknown: use {', '.join(map(str, known))}")
        if not 0 <= self.linger < self.timeout:
            raise ConfigError(f"linger {self.linger} must be at least 0 and below the timeout {self.timeout}")
        if problems := list(security_problems(*self.security[:4], self.options)):
            raise ConfigError(*problems)

    def driver_within(self, timeout: float) -> Driver:
        """A driver, connected within *timeout* seconds. Raises ConfigError when a file of TLS cannot be read."""
        security = self.security
        check_files(ssl_cafile=security.cafile, ssl_certfile=security.certfile, ssl_keyfile=security.keyfile)
        return self._confluent(timeout) if self.driver == "confluent" else self._kafka_python(timeout)

    def _kafka_python(self, timeout: float) -> Driver:
        from patron.clients._kafka_python import Fnv1a, KafkaPythonDriver

        chosen = {"partitioner": Fnv1a()} if self.partitioner == "fnv1a" else {}
        config = {
            "bootstrap_servers": list(self.brokers),
            "client_id": self.client_id,
            "compression_type": self.compression,
            "linger_ms": round(self.linger * 1000),
            "delivery_timeout_ms": round(self.timeout * 1000),
            "request_timeout_ms": round((self.timeout - self.linger) * 500),
            "max_block_ms": round(self.timeout * 1000),
            # By default a broker that was away for long is tried every 30 seconds, and meanwhile all sends fail.
            "reconnect_backoff_max_ms": 2000,
            "metrics_enabled": False,
            **chosen,
        }
        return KafkaPythonDriver({**config, **self.security.named(_KAFKA_PYTHON), **self.options}, timeout)

    def _confluent(self, timeout: float) -> Driver:
        from patron.clients._kafka_confluent import ConfluentDriver

        config = {
            "bootstrap.servers": ",".join(self.brokers),
            "client.id": self.client_id,
            "compression.type": self.compression or "none",
            "linger.ms": self.linger * 1000,
            "enable.idempotence": True,
            # By default a topic that is not there is told only after 30 seconds, when nobody listens any more.
            "topic.metadata.propagation.max.ms": min(30_000, round(self.timeout * 500)),
            "delivery.timeout.ms": round(self.timeout * 1000),
            "request.timeout.ms": round((self.timeout - self.linger) * 500),
            "partitioner": f"{self.partitioner}_random",
        }
        return ConfluentDriver({**config, **self.security.named(_LIBRDKAFKA), **self.options}, timeout)


def addresses(brokers: str | Sequence[str]) -> tuple[str, ...]:
    """The brokers as ``host:port``. Raises ConfigError when one is empty."""
    given = brokers.split(",") if isinstance(brokers, str) else brokers
    found = tuple(each.strip() for each in given)
    if not found or not all(found):
        raise ConfigError(
            f"brokers {brokers!r} has an empty value: give host:port, several separated by commas"
        )
    return found
