"""The settings are checked completely when they are built."""

from __future__ import annotations

import pytest

from patron.errors import ConfigError
from patron.http import AccessLog, HttpSettings


def test_the_defaults_are_those_of_the_original_or_safe():
    settings = HttpSettings()
    assert (settings.host, settings.port, settings.max_body) == ("0.0.0.0", 50000, 1024 * 1024)
    assert (settings.debug, settings.admin, settings.admin_prefix) == ("local", "open", "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", -1),
        ("port", 65536),
        ("port", "80"),
        ("port", True),
        ("threads", 0),
        ("backlog", 0),
        ("max_connections", 0),
        ("max_body", -1),
        ("max_body", 1.5),
        ("max_header", 10),
        ("max_header_fields", 0),
        ("max_request_line", 0),
        ("read_timeout", 0),
        ("read_timeout", float("nan")),
        ("read_timeout", float("inf")),
        ("read_timeout", "5s"),
        ("read_timeout", 1e10),
        ("write_timeout", 3e6),
        ("timeout", 1e300),
        ("keepalive", -1.0),
        ("host", ""),
        ("host", None),
        ("admin", "shut"),
        ("debug", True),
        ("admin_prefix", "admin"),
        ("admin_prefix", "/admin/"),
        ("admin_prefix", None),
        ("access_log", None),
    ],
)
def test_a_wrong_value_is_named(name, value):
    with pytest.raises(ConfigError, match=name):
        HttpSettings(**{name: value})


def test_all_wrong_values_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        HttpSettings(port=0 - 1, threads=0, keepalive=0, debug="no", host="")
    assert len(caught.value.problems) == 5


@pytest.mark.parametrize(
    "options",
    [
        {"level": "loud"},
        {"levels": {"4xx": "loud"}},
        {"levels": {"4x": "info"}},
        {"statuses": ("600",)},
        {"statuses": ("9xx",)},
        {"statuses": (404,)},
    ],
)
def test_a_wrong_access_log_is_refused(options):
    with pytest.raises(ConfigError, match="access log"):
        AccessLog(**options)


# ------------------------------------------------------------------ environment


@pytest.mark.parametrize(
    ("environ", "port", "timeout"),
    [
        ({}, 81, 3.0),
        ({"PATRON_HTTP_DEFAULT_PORT": "", "PATRON_HTTP_READ_TIMEOUT": " "}, 81, 3.0),
        ({"PATRON_HTTP_DEFAULT_PORT": "8080"}, 8080, 3.0),
        ({"PATRON_HTTP_READ_TIMEOUT": "5"}, 81, 5.0),
        ({"PATRON_HTTP_READ_TIMEOUT": "0.5"}, 81, 0.5),
        ({"PATRON_HTTP_READ_TIMEOUT": "5s"}, 81, 5.0),
        ({"PATRON_HTTP_READ_TIMEOUT": "1m30s"}, 81, 90.0),
        ({"PATRON_HTTP_READ_TIMEOUT": "1.5h"}, 81, 5400.0),
        ({"PATRON_HTTP_READ_TIMEOUT": "500ms"}, 81, 0.5),
    ],
)
def test_the_environment_comes_over_the_base(environ, port, timeout):
    settings = HttpSettings.from_env(environ, HttpSettings(port=81, read_timeout=3.0, threads=2))
    assert (settings.port, settings.read_timeout, settings.threads) == (port, timeout, 2)


@pytest.mark.parametrize("value", ["0", "-1", "65536", "http", "80.0", "1_000", "\u0661", "9" * 5000])
def test_a_bad_port_names_the_variable_and_the_value(value):
    with pytest.raises(ConfigError, match="PATRON_HTTP_DEFAULT_PORT=") as caught:
        HttpSettings.from_env({"PATRON_HTTP_DEFAULT_PORT": value})
    assert repr(value[:100]) in str(caught.value)


@pytest.mark.parametrize("value", ["0", "0s", "-5s", "5 s", "5x", "s", "nan", "inf", "1e5", "5s5", "9" * 400])
def test_a_bad_timeout_names_the_variable_and_the_value(value):
    with pytest.raises(ConfigError, match="PATRON_HTTP_READ_TIMEOUT=") as caught:
        HttpSettings.from_env({"PATRON_HTTP_READ_TIMEOUT": value})
    assert repr(value[:100]) in str(caught.value)


def test_all_bad_variables_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        HttpSettings.from_env({"PATRON_HTTP_DEFAULT_PORT": "x", "PATRON_HTTP_READ_TIMEOUT": "y"})
    assert len(caught.value.problems) == 2
