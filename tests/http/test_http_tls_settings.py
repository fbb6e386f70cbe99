"""The settings of TLS are checked when they are built, and their files when somebody asks."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from brokers.requirements import missing

from patron.errors import ConfigError
from patron.http import HttpSettings, Tls


def test_every_mistake_in_the_settings_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Tls("", key=7, minimum="1.1")  # type: ignore[arg-type]
    assert list(caught.value.problems) == [
        "http: tls: certificate is '': use the path of a PEM file",
        "http: tls: key is 7: use the path of a PEM file",
        "http: tls: minimum is '1.1': use 1.2 or 1.3",
    ]


def test_settings_of_another_kind_are_refused() -> None:
    with pytest.raises(ConfigError, match="tls is 'yes'"):
        HttpSettings(tls="yes")  # type: ignore[arg-type]


def test_the_files_need_not_be_there_when_the_settings_are_built() -> None:
    problems = Tls("/nowhere/tls.crt", "/nowhere/tls.key", "/").problems()
    advice = "give the path of a file that the service may read"
    assert problems == [
        f"http: tls: certificate '/nowhere/tls.crt': No such file or directory: {advice}",
        f"http: tls: key '/nowhere/tls.key': No such file or directory: {advice}",
        f"http: tls: client_ca '/': Is a directory: {advice}",
    ]


def test_a_key_with_a_passphrase_is_refused_without_asking_for_it(tmp_path) -> None:
    openssl = shutil.which("openssl") or missing("openssl", "openssl is not installed")
    key, certificate = str(tmp_path / "key"), str(tmp_path / "certificate")
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    files = ["-keyout", key, "-out", certificate, "-subj", "/CN=x", "-passout", "pass:secret"]
    subprocess.run([*command, *files], check=True, capture_output=True)
    [problem] = Tls(certificate, key).problems()
    assert problem.endswith("the key has a passphrase: give one without")
    [problem] = Tls(key, key).problems()
    assert problem.endswith("the certificate is none in PEM: use PEM files")
    [problem] = Tls(certificate, certificate).problems()
    assert problem.endswith("the key is none in PEM: use PEM files")
    [problem] = Tls(certificate).problems()
    assert (
        problem
        == f"http: tls: certificate {certificate!r}: there is no private key with it: give its path as key"
    )


def test_a_time_out_of_writing_is_above_zero() -> None:
    with pytest.raises(ConfigError, match="write_timeout is 0: use seconds above 0"):
        HttpSettings(write_timeout=0)
