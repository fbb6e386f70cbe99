"""Trace settings, from the file and from the environment."""

from __future__ import annotations

import pytest

from patron.errors import ConfigError
from patron.observe import TraceSettings


def test_the_defaults_are_the_originals() -> None:
    settings = TraceSettings.from_env({})
    assert (settings.agent_host, settings.agent_port) == ("0.0.0.0", 6831)
    assert (settings.sampler_type, settings.sampler_param) == ("probabilistic", 0.0)


def test_the_environment_wins_over_the_file_unless_it_is_empty() -> None:
    base = TraceSettings(agent_host="agent", sampler_param=0.5, propagation=("w3c",))
    environ = {
        "PATRON_JAEGER_AGENT_HOST": "",
        "PATRON_JAEGER_AGENT_PORT": "7000",
        "PATRON_JAEGER_SAMPLER_TYPE": "const",
        "PATRON_JAEGER_SAMPLER_PARAM": "1",
    }
    assert TraceSettings.from_env(environ, base) == TraceSettings("agent", 7000, "const", 1.0, ("w3c",))


@pytest.mark.parametrize(
    ("variable", "value", "advice"),
    [
        ("PATRON_JAEGER_AGENT_PORT", "http", "use a port number from 1 to 65535"),
        ("PATRON_JAEGER_AGENT_PORT", "0", "use a port number from 1 to 65535"),
        ("PATRON_JAEGER_AGENT_PORT", "65536", "use a port number from 1 to 65535"),
        ("PATRON_JAEGER_AGENT_PORT", "\uff16831", "use a port number from 1 to 65535"),
        ("PATRON_JAEGER_SAMPLER_TYPE", "remote", "use one of const, probabilistic, ratelimiting"),
        ("PATRON_JAEGER_SAMPLER_PARAM", "much", "use a number, like 0.1"),
        ("PATRON_JAEGER_SAMPLER_PARAM", "1.5", "a probabilistic sampler takes a share from 0.0 to 1.0"),
        ("PATRON_JAEGER_SAMPLER_PARAM", "-1", "a probabilistic sampler takes a share from 0.0 to 1.0"),
        ("PATRON_JAEGER_SAMPLER_PARAM", "nan", "a probabilistic sampler takes a share from 0.0 to 1.0"),
    ],
)
def test_a_bad_value_is_an_error_that_says_variable_value_and_what_is_right(
    variable: str, value: str, advice: str
) -> None:
    with pytest.raises(ConfigError) as error:
        TraceSettings.from_env({variable: value})
    assert error.value.problems == (f"{variable}={value!r} is wrong: {advice}",)


def test_all_bad_variables_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        TraceSettings.from_env({"PATRON_JAEGER_AGENT_PORT": "x", "PATRON_JAEGER_SAMPLER_TYPE": "y"})
    assert len(error.value.problems) == 2


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"agent_host": ""}, "agent_host is empty"),
        ({"agent_port": 0}, "agent_port 0 is wrong"),
        ({"sampler_type": "some"}, "sampler_type 'some' is unknown"),
        (
            {"sampler_type": "const", "sampler_param": 0.5},
            "sampler_param 0.5 is wrong: a const sampler takes 0",
        ),
        ({"sampler_type": "ratelimiting", "sampler_param": float("inf")}, "sampler_param inf is wrong"),
        ({"propagation": ("b3",)}, "propagation 'b3' is unknown: use jaeger or w3c"),
        ({"queue": 0}, "queue 0 is wrong"),
    ],
)
def test_wrong_settings_are_refused_when_they_are_made(arguments: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        TraceSettings(**arguments)
