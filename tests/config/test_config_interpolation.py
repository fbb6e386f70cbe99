"""``${...}`` in values: filled in, typed by what is expected, refused when it cannot be, hidden when secret."""

from __future__ import annotations

import pytest


def test_a_variable_is_filled_in_and_typed_as_what_it_says(world):
    service = world.load("name: a\nhttp: \n  port: ${PORT}\n", {"PORT": "8080"}).service
    assert service.http.port == 8080


def test_a_default_stands_in_for_a_variable_that_is_not_set(world):
    assert world.load("name: a\nhttp:\n  port: ${PORT:-8081}\n").service.http.port == 8081


def test_an_empty_variable_counts_as_absent(world):
    assert world.load("name: a\nhttp:\n  port: ${PORT:-8081}\n", {"PORT": ""}).service.http.port == 8081


def test_an_empty_default_is_empty_text(world):
    assert world.load("name: a\nversion: x${V:-}y\n").service.version == "xy"


def test_a_variable_without_default_must_be_set(world):
    assert world.problem("name: a\nhttp:\n  port: ${PORT}\n") == (
        "config.yaml:3:9: http.port: the environment variable PORT is not set: set it, or write ${PORT:-default}"
    )


def test_a_quoted_reference_is_a_number_where_one_is_expected(world):
    assert world.load('name: a\nhttp: {port: "${PORT}"}\n', {"PORT": "80"}).service.http.port == 80


def test_digits_from_outside_are_text_where_text_is_expected(world):
    assert world.load("name: a\nversion: ${VERSION}\n", {"VERSION": "1.10"}).service.version == "1.10"


def test_a_bad_value_from_a_variable_is_said_at_its_place_in_the_file(world):
    problem = world.problem("name: a\nworkers: ${W}\n", {"W": "many"})
    assert problem == "config.yaml:2:10: workers: expected a whole number, got the text 'many'"


def test_several_references_make_one_text(world):
    assert world.load("name: ${A}-${B:-b}\n", {"A": "x"}).service.name == "x-b"


def test_two_dollars_are_one_and_one_alone_is_itself(world):
    assert world.load("name: $$x-$y-$${z}\n").service.name == "$x-$y-${z}"


@pytest.mark.parametrize("text", ["${}", "${1A}", "${A-b}", "${A:?gone}", "${ A }"])
def test_an_unknown_form_is_refused_with_the_known_ones(world, text):
    assert "is not understood: write ${NAME}, ${NAME:-default} or ${file:/path}" in world.problem(
        f"name: '{text}'"
    )


def test_a_reference_that_is_not_closed_is_refused(world):
    assert "opens '${' and does not close it" in world.problem("name: ${A\n")


def test_what_a_variable_says_is_not_filled_in_again(world):
    assert world.load("name: ${A}\n", {"A": "${B}"}).service.name == "${B}"


def test_a_secret_file_is_read_without_its_newline(world):
    (world.directory / "secret").write_text("hunter2\n")
    assert world.load(f"name: ${{file:{world.directory}/secret}}\n").service.name == "hunter2"


def test_a_secret_of_digits_is_text_where_text_is_expected(world):
    (world.directory / "secret").write_text("12345\r\n")
    assert world.load(f"name: ${{file:{world.directory}/secret}}\n").service.name == "12345"


def test_a_secret_file_that_is_not_there_is_named(world):
    assert "name: the file /nowhere/x cannot be read: No such file" in world.problem(
        "name: ${file:/nowhere/x}\n"
    )


def test_a_secret_file_that_is_not_text_is_refused(world):
    (world.directory / "secret").write_bytes(b"\xff\xfe")
    assert "is not UTF-8 text" in world.problem(f"name: ${{file:{world.directory}/secret}}\n")


def test_no_message_shows_a_secret(world):
    (world.directory / "secret").write_text("hunter2")
    world.module("keeper", "def keep(key):\n    raise ValueError(f'{key} is too short')\n")
    problems = world.problems(
        f"""
        name: a
        workers: ${{file:{world.directory}/secret}}
        components: [{{factory: keeper:keep, args: {{key: "${{file:{world.directory}/secret}}"}}}}]
        """
    )
    assert len(problems) == 2
    assert "hunter2" not in "".join(problems)
    assert "got a value that is hidden here" in problems[0]
    assert "******** is too short" in problems[1]
