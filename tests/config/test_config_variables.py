"""The ``PATRON_*`` variables win over the file, and are checked like it."""

from __future__ import annotations

import pytest

from patron.config.environment import variables
from patron.config.layout import file_shape


@pytest.mark.parametrize(
    ("variable", "text", "look"),
    [
        ("PATRON_HTTP_DEFAULT_PORT", "8080", lambda s: s.http.port == 8080),
        ("PATRON_HTTP_READ_TIMEOUT", "1m", lambda s: s.http.read_timeout == 60.0),
        ("PATRON_HTTP_TIMEOUT", "2s", lambda s: s.http.timeout == 2.0),
        (
            "PATRON_HTTP_STATUS_ERROR_LOGGING",
            "404;[500,600)",
            lambda s: s.http.log_bodies == ("404", "500-599"),
        ),
        ("PATRON_WORKERS", "3", lambda s: s.process.workers == 3),
        ("PATRON_GRACE", "5.5", lambda s: s.process.grace == 5.5),
        ("PATRON_LOG_LEVEL", "debug", lambda s: s.log.level == "debug"),
        ("PATRON_LOG_FORMAT", "console", lambda s: s.log.format == "console"),
        ("PATRON_JAEGER_AGENT_HOST", "jaeger", lambda s: s.trace.agent_host == "jaeger"),
        ("PATRON_JAEGER_AGENT_PORT", "1", lambda s: s.trace.agent_port == 1),
        ("PATRON_JAEGER_SAMPLER_TYPE", "const", lambda s: s.trace.sampler_type == "const"),
        ("PATRON_JAEGER_SAMPLER_PARAM", "0.5", lambda s: s.trace.sampler_param == 0.5),
    ],
)
def test_a_variable_wins_over_the_file(world, variable, text, look):
    file = "name: a\nworkers: 2\nhttp: {port: 1}\nlog: {level: warn}\n"
    assert look(world.load(file, {variable: f" {text} "}).service)


def test_an_empty_variable_counts_as_absent(world):
    assert world.load("name: a\nworkers: 2\n", {"PATRON_WORKERS": " "}).service.process.workers == 2


def test_a_bad_variable_is_named_with_its_value_and_what_is_right(world):
    problems = world.problems("name: a\n", {"PATRON_WORKERS": "two", "PATRON_LOG_LEVEL": "loud"})
    assert problems[0].startswith("PATRON_LOG_LEVEL: log.level: expected one of 'debug', 'info'")
    assert problems[1] == "PATRON_WORKERS: workers: expected a whole number, got the text 'two'"


def test_a_variable_that_lists_statuses_is_checked_like_the_list_of_the_file(world):
    assert world.problem("name: a\n", {"PATRON_HTTP_STATUS_ERROR_LOGGING": "404;"}).startswith(
        "PATRON_HTTP_STATUS_ERROR_LOGGING: http.log_bodies: '' is no status"
    )
    assert world.problem("name: a\nhttp: {log_bodies: ['6xx']}\n").endswith(
        "is no status: write 404, 5xx or 400-499"
    )


def test_a_variable_out_of_range_is_named_too(world):
    assert world.problem("name: a\n", {"PATRON_WORKERS": "0"}).startswith("PATRON_WORKERS: workers: is 0:")


def test_a_variable_of_digits_is_text_where_text_is_expected(world):
    assert world.load("name: a\n", {"PATRON_HTTP_HOST": "127"}).service.http.host == "127"


def test_an_unknown_variable_is_a_warning_with_the_nearest_known_one(world):
    warnings = world.load("name: a\n", {"PATRON_WORKRES": "2"}).warnings
    assert warnings == (
        "PATRON_WORKRES: Patron has no such variable (did you mean 'PATRON_WORKERS'?); it is ignored",
    )


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("PATRON_HTTP_PORT", "PATRON_HTTP_DEFAULT_PORT"),
        ("PATRON_HTTP_DEFUALT_PORT", "PATRON_HTTP_DEFAULT_PORT"),
        ("PATRON_TRACE_AGENT_HOST", "PATRON_JAEGER_AGENT_HOST"),
        ("PATRON_LOGLEVEL", "PATRON_LOG_LEVEL"),
        ("PATRON_CONIFG", "PATRON_CONFIG"),
    ],
)
def test_a_variable_is_suggested_by_the_regular_name_of_its_key_too(world, variable, meant):
    (warning,) = world.load("name: a\n", {variable: "2"}).warnings
    assert f"(did you mean {meant!r}?)" in warning


@pytest.mark.parametrize("variable", ["PATRON_NAME", "PATRON_VERSION", "PATRON_XYZ", "PATRON_HTTP_FOO"])
def test_nothing_is_suggested_where_nothing_is_near(world, variable):
    (warning,) = world.load("name: a\n", {variable: "2"}).warnings
    assert warning == f"{variable}: Patron has no such variable; it is ignored"


def test_variables_of_others_and_of_the_command_line_are_no_warning(world):
    environ = {"PATRON_CONFIG": "x", "PATRON_DEBUG": "1", "PATRONAGE": "y", "HOME": "/"}
    assert world.load("name: a\n", environ).warnings == ()


def test_a_variable_for_a_part_that_the_file_gets_wrong_hides_nothing(world):
    assert world.problem("name: a\nhttp: 3\n", {"PATRON_HTTP_DEFAULT_PORT": "1"}).endswith(
        "expected a mapping, got the number 3"
    )


def test_no_two_keys_share_a_variable():
    paths = list(variables(file_shape()).values())
    assert len(paths) == len(set(paths)) > 20


def test_variables_of_the_tests_are_nobodys_mistake(world):
    assert world.load("name: a\n", {"PATRON_TEST_REQUIRE": "promtool"}).warnings == ()
