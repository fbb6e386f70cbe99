"""amqps: RabbitMQ's certificate is checked, ours is shown, and what is wrong is told with what to do."""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from brokers.certificates import Authority
from brokers.rabbitmq_secured import SecuredRabbitMQ

from patron.cli.program import run
from patron.clients.amqp import AmqpPublisher
from patron.config import build
from patron.errors import ConfigError, ConnectionLost, NotASource, PublishFailed
from patron.sources.amqp import AmqpSource
from patron.testing import Running, capture, until

WRONG = "hunter2-is-no-password"
PATIENCE = 6.0


@pytest.fixture
def files(secured_rabbitmq: SecuredRabbitMQ) -> dict[str, str]:
    """The settings of TLS."""
    certificate, key = secured_rabbitmq.client
    return {"ca_file": secured_rabbitmq.authority.file, "cert_file": certificate, "key_file": key}


@pytest.fixture
def wares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    Path("label_wares.py").write_text("SEEN = []\ndef label(message): SEEN.append(message.body)\n")
    yield tmp_path
    sys.modules.pop("label_wares", None)


def described(url: str, files: dict[str, str], queue: str) -> str:
    source = {"type": "amqp", "url": url, "queue": queue, "create": True, "queue_type": "classic", **files}
    consumer = {"name": queue, "source": source, "processor": "label_wares:label"}
    resources = {"events": {"factory": "patron.clients.amqp:AmqpPublisher", "args": {"url": url, **files}}}
    Path("config.yaml").write_text(
        json.dumps({"name": "depot", "consumers": [consumer], "resources": resources})
    )
    return "config.yaml"


def test_a_service_described_in_yaml_publishes_and_consumes(
    secured_rabbitmq: SecuredRabbitMQ, files: dict[str, str], wares: Path
) -> None:
    queue, body = f"patron-{uuid.uuid4().hex[:12]}", bytes(range(256)) * 4096
    path = described("${AMQP_URL}", files, queue)
    with Running(build(path, {"AMQP_URL": secured_rabbitmq.tls_url()})) as running:
        until(lambda: running.live.ready().ok, timeout=30)
        running.live.resources["events"].publish("", queue, body)
        from label_wares import SEEN  # type: ignore[import-not-found]

        until(lambda: body in SEEN, timeout=30)


def refused(url: str, files: dict[str, str]) -> tuple[Exception, Exception]:
    """What the source and the publisher raise."""
    began = time.monotonic()
    with pytest.raises((NotASource, ConnectionLost, ConfigError)) as consuming:
        AmqpSource("q", url, connect_timeout=PATIENCE, **files).open()  # type: ignore[arg-type]
    with (
        AmqpPublisher(url, timeout=PATIENCE, **files) as publisher,  # type: ignore[arg-type]
        pytest.raises((PublishFailed, ConfigError)) as publishing,
    ):
        publisher.publish("", "q", {})
    assert time.monotonic() - began < 60
    return consuming.value, publishing.value


def test_what_is_wrong_is_told_with_what_to_do_and_without_the_password(
    secured_rabbitmq: SecuredRabbitMQ, files: dict[str, str], tmp_path: Path
) -> None:
    url, stranger = secured_rabbitmq.tls_url(), Authority(tmp_path / "stranger")
    plain = url.replace("amqps", "amqp").replace("guest:guest", f"guest:{WRONG}")
    cases: list[tuple[str, dict[str, Any], type[Exception], str]] = [
        (secured_rabbitmq.tls_url(WRONG), files, NotASource, "check name and password"),
        (url, {**files, "ca_file": stranger.file}, ConnectionLost, "give who vouches for it as ca_file"),
        (url, {}, ConnectionLost, "give who vouches for it as ca_file"),
        (url, {"ca_file": files["ca_file"]}, ConnectionLost, "cert_file and key_file"),
        (plain, {}, ConnectionLost, "amqps://"),
        (secured_rabbitmq.url.replace("amqp:", "amqps:"), files, ConnectionLost, "amqps://"),
        (url, {"ca_file": "/nowhere/ca.pem"}, ConfigError, "ca_file '/nowhere/ca.pem' cannot be read"),
    ]
    with capture() as seen, ThreadPoolExecutor(len(cases)) as threads:
        errors = list(threads.map(lambda case: refused(case[0], case[1]), cases))
    for (_, _, kind, remedy), (consuming, publishing) in zip(cases, errors, strict=True):
        assert isinstance(consuming, kind), consuming
        for error in (consuming, publishing):
            assert remedy in str(error)
            assert WRONG not in f"{error!r} {error.__cause__!r}"
    assert WRONG not in f"{seen.lines}"


def test_the_printed_configuration_has_no_password(
    wares: Path, files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = described(f"amqps://guest:{WRONG}@localhost:5671/", files, "labels")
    assert run(["run", path, "--print-config"]) == 0
    out = capsys.readouterr().out
    assert "amqps://" in out
    assert WRONG not in out
