"""Kafka with TLS and passwords: what docs/kafka.md shows works, and what is wrong is told with what to do."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from brokers.certificates import Authority
from brokers.kafka_secured import PASSWORD, USER, SecuredKafka

from patron.cli.program import run
from patron.clients.kafka import KafkaProducer
from patron.config import build
from patron.consumer import Message
from patron.errors import ConfigError, ConnectionLost, NotASource, PublishFailed
from patron.sources.kafka import KafkaSource
from patron.testing import Running, capture, until

DRIVERS = ("kafka-python", "confluent")
WRONG = "hunter2-is-no-password"
PATIENCE = 3.0
SCRAM = {"sasl_mechanism": "SCRAM-SHA-512", "sasl_username": USER, "sasl_password": PASSWORD}

each_driver = pytest.mark.parametrize("driver", DRIVERS)


@pytest.fixture(params=["SSL", "SASL_PLAINTEXT PLAIN", "SASL_SSL PLAIN", "SASL_SSL SCRAM-SHA-512"])
def settings(request: pytest.FixtureRequest, secured_kafka: SecuredKafka) -> dict[str, Any]:
    """Each way in."""
    protocol, _, mechanism = request.param.partition(" ")
    given = {"brokers": secured_kafka.brokers(protocol), "security_protocol": protocol}
    if "SSL" in protocol:
        given["ssl_cafile"] = secured_kafka.authority.file
    if protocol == "SSL":
        given["ssl_certfile"], given["ssl_keyfile"] = secured_kafka.client
    return {**given, **SCRAM, "sasl_mechanism": mechanism} if mechanism else given


@pytest.fixture
def scram(secured_kafka: SecuredKafka) -> dict[str, Any]:
    """Settings that are right, for a test that makes one of them wrong."""
    return {
        "brokers": secured_kafka.brokers("SASL_SSL"),
        "security_protocol": "SASL_SSL",
        "ssl_cafile": secured_kafka.authority.file,
        **SCRAM,
    }


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """``service(source, producer)`` writes a configuration of both, and returns its path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    Path("till_wares.py").write_text("SEEN = []\ndef book(message): SEEN.append(message.decode())\n")

    def written(source: dict[str, Any], producer: dict[str, Any]) -> str:
        consumer = {"name": "takings", "source": {"type": "kafka", **source}, "processor": "till_wares:book"}
        resources = {"events": {"factory": "patron.clients.kafka:KafkaProducer", "args": producer}}
        described = {"name": "till", "consumers": [consumer], "resources": resources, "http": {"port": 0}}
        Path("config.yaml").write_text(json.dumps(described))
        return "config.yaml"

    yield written
    sys.modules.pop("till_wares", None)


@each_driver
def test_a_service_described_in_yaml_publishes_and_consumes(
    settings: dict[str, Any], driver: str, service: Any
) -> None:
    topic = f"sales-{uuid4().hex[:8]}"
    secrets = {"PASSWORD": PASSWORD}
    given = {**settings, "driver": driver}
    if "sasl_password" in given:
        given["sasl_password"] = "${PASSWORD}"
    source = {"topic": topic, "group": topic, "create": True, "partitions": 1, **given}
    with Running(build(service(source, given), secrets)) as running:
        running.live.resources["events"].send(topic, {"sale": 17})
        from till_wares import SEEN  # type: ignore[import-not-found]

        until(lambda: {"sale": 17} in SEEN, timeout=30)


def refused(driver: str, given: dict[str, Any]) -> tuple[Exception, Exception]:
    """What the source and the producer raise."""
    source = KafkaSource("t", group="g", driver=driver, connect_timeout=PATIENCE, **given)  # type: ignore[arg-type]
    with pytest.raises((NotASource, ConnectionLost, ConfigError)) as consuming:
        source.prepare([])
    with (
        KafkaProducer(driver=driver, timeout=PATIENCE, **given) as producer,  # type: ignore[arg-type]
        pytest.raises((PublishFailed, ConfigError)) as publishing,
    ):
        producer.send("t", {})
    return consuming.value, publishing.value


@each_driver
def test_what_is_wrong_is_told_with_what_to_do_and_without_the_password(
    scram: dict[str, Any], secured_kafka: SecuredKafka, driver: str, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "stranger")
    certificate = {"brokers": secured_kafka.brokers("SSL"), "ssl_cafile": secured_kafka.authority.file}
    password = "check sasl_username, sasl_password and sasl_mechanism"
    cases = [
        ({**scram, "sasl_password": WRONG}, NotASource, password),
        ({**scram, "sasl_mechanism": "PLAIN", "sasl_password": WRONG}, NotASource, password),
        (
            {**scram, "sasl_mechanism": "SCRAM-SHA-256"},
            NotASource,
            "use a sasl_mechanism that the broker has",
        ),
        ({**scram, "ssl_cafile": stranger.file}, ConnectionLost, "give who vouches for it as ssl_cafile"),
        ({**certificate, "security_protocol": "SSL"}, ConnectionLost, "give ssl_certfile and ssl_keyfile"),
        ({"brokers": scram["brokers"]}, ConnectionLost, "security_protocol"),
        ({**scram, "brokers": secured_kafka.url}, ConnectionLost, "security_protocol"),
    ]
    # At once, for each that another try might help waits until its time is up.
    with capture() as seen, ThreadPoolExecutor(len(cases)) as threads:
        errors = list(threads.map(lambda case: refused(driver, case[0]), cases))
    for (_, kind, remedy), (consuming, publishing) in zip(cases, errors, strict=True):
        assert isinstance(consuming, kind), consuming
        for error in (consuming, publishing):
            assert remedy in str(error)
            assert WRONG not in f"{error!r} {error.__cause__!r}"
    assert WRONG not in f"{seen.lines}"


@each_driver
def test_files_that_cannot_be_read_are_named(scram: dict[str, Any], driver: str) -> None:
    for error in refused(driver, {**scram, "ssl_cafile": "/nowhere/ca.pem"}):
        assert isinstance(error, ConfigError)
        assert "ssl_cafile '/nowhere/ca.pem' cannot be read" in str(error)


def test_a_name_or_password_that_is_missing_is_a_mistake_in_the_settings() -> None:
    incomplete = {"brokers": "x:1", "security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN"}
    for make in (lambda **given: KafkaSource("t", group="g", **given), KafkaProducer):
        with pytest.raises(ConfigError, match="PLAIN needs sasl_username and sasl_password"):
            make(**incomplete)
        make(**incomplete, options={"sasl.username": "u", "sasl.password": "p"})
        make(**{**incomplete, "sasl_mechanism": "OAUTHBEARER"})


def test_the_printed_configuration_has_no_password(service: Any, capsys: pytest.CaptureFixture[str]) -> None:
    given = {"brokers": "x:1", "security_protocol": "SASL_SSL", **SCRAM, "ssl_password": WRONG}
    path = service({"topic": "t", "group": "g", **given}, given)
    assert run(["run", path, "--print-config"]) == 0
    out = capsys.readouterr().out
    assert "SCRAM-SHA-512" in out
    assert PASSWORD not in out
    assert WRONG not in out


@each_driver
def test_dead_letters_are_published_and_read_over_tls(scram: dict[str, Any], driver: str) -> None:
    topic = f"letters-{uuid4().hex[:8]}"
    source = KafkaSource(topic, group=topic, driver=driver, create=True, partitions=1, **scram)  # type: ignore[arg-type]
    source.prepare([])
    with closing(source.publisher()) as publisher:
        publisher.publish(topic, b"{}", key="k")
    with closing(source.letters(topic)) as letters:
        found: list[Message] = []
        until(lambda: found.extend(m for m in letters.poll(1, 0.2) if isinstance(m, Message)) or found)
    assert found[0].body == b"{}"
