"""Single values: strict types, unknown keys, durations, and messages that say what is right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patron.config.durations import seconds
from patron.config.scalars import scalar


def test_an_unknown_key_is_refused_with_the_nearest_known_one(world):
    problem = world.problem("name: a\nhttp:\n  prot: 80\n")
    assert problem == "config.yaml:3:3: http.prot: there is no such key (did you mean 'port'?)"


def test_an_unknown_key_that_is_near_to_none_gets_the_list(world):
    assert "(known here: enabled, level, statuses" in world.problem(
        "name: a\nhttp: {access_log: {zzzz: 1}}\n"
    )


@pytest.mark.parametrize(
    ("value", "got"),
    [
        ("three", "the text 'three'"),
        ("'3'", "the text '3': write it without quotes and without leading zeros"),
        ("017", "the text '017': write it without quotes and without leading zeros"),
        ("1.5", "the number 1.5"),
        ("true", "true"),
        ("12:30", "the text '12:30'"),
        ("null", "nothing"),
        ("[1]", "a list"),
        ("{a: 1}", "a mapping"),
        ("1_000", "the text '1_000'"),
        (".inf", "the text '.inf'"),
        ("2024-01-01", "the text '2024-01-01'"),
    ],
)
def test_a_whole_number_is_nothing_else(world, value, got):
    assert world.problem(f"name: a\nworkers: {value}\n") == (
        f"config.yaml:2:10: workers: expected a whole number, got {got}"
    )


@pytest.mark.parametrize(("value", "number"), [("0x1F90", 8080), ("0o17", 15), ("+7", 7)])
def test_numbers_in_other_bases_are_numbers(world, value, number):
    assert world.load(f"name: a\nhttp: {{port: {value}}}\n").service.http.port == number


@pytest.mark.parametrize(
    ("word", "right"), [("yes", "true"), ("off", "false"), ("No", "false"), ("'true'", "true")]
)
def test_yes_and_no_are_text_and_the_message_says_what_to_write(world, word, right):
    problem = world.problem(f"name: a\nhttp: {{access_log: {{admin: {word}}}}}\n")
    assert problem.endswith(f"expected true or false, got the text {word.strip(chr(39))!r}: write {right}")


@pytest.mark.parametrize(("value", "quoted"), [("1.10", '"1.10"'), ("12", '"12"'), ("true", '"true"')])
def test_text_that_looks_like_something_else_must_be_quoted(world, value, quoted):
    assert world.problem(f"name: a\nversion: {value}\n").endswith(f": put it in quotes ({quoted})")


@pytest.mark.parametrize("word", ["no", "12:30", "2024-01-01", "~x", "1e", "0b1"])
def test_words_without_a_meaning_of_their_own_are_text(world, word):
    assert world.load(f"name: a\nversion: {word}\n").service.version == word


@pytest.mark.parametrize(
    ("value", "grace"),
    [("45", 45.0), ("1.5", 1.5), ("45s", 45.0), ("1m30s", 90.0), ("500ms", 0.5), ("1h", 3600.0)],
)
def test_a_duration_is_seconds_or_says_its_unit(world, value, grace):
    assert world.load(f"name: a\ngrace: {value}\n").service.process.grace == grace


@pytest.mark.parametrize("value", ["soon", "'45'", "45 s", "-3s", "3w", "1:30"])
def test_a_bad_duration_is_told_how_to_write_one(world, value):
    assert "write seconds, or a duration such as 500ms, 30s or 1m30s" in world.problem(
        f"name: a\ngrace: {value}\n"
    )


def test_a_ratio_is_no_duration(world):
    problem = world.problem("name: a\ntrace: {sampler_param: 30s}\n")
    assert problem.endswith("trace.sampler_param: expected a number, got the text '30s'")


def test_a_word_of_a_choice_gets_the_choices_and_the_nearest(world):
    problem = world.problem("name: a\nlog: {format: jsn}\n")
    assert problem.endswith("expected one of 'json', 'console', got the text 'jsn' (did you mean 'json'?)")


def test_a_number_out_of_range_is_said_at_its_own_place(world):
    problem = world.problem("name: a\nhttp:\n  threads: 4\n  port: 99999\n")
    assert problem.startswith("config.yaml:4:9: http.port: is 99999: use a whole number from")


def test_what_two_keys_disagree_on_is_said_at_one_of_them(world):
    assert world.problem("name: a\ngrace: 10\ndrain: 20\n").startswith("config.yaml:3:8: drain: is 20.0 s:")


def test_a_wrong_key_does_not_make_mistakes_of_the_others(world):
    assert world.problem("name: a\ngrace: sixty\ndrain: 40\n").startswith("config.yaml:2:8: grace:")


def test_a_mapping_where_a_list_belongs_is_refused(world):
    assert world.problem("name: a\nconsumers: {a: 1}\n").endswith("consumers: expected a list, got a mapping")


def test_a_list_where_a_mapping_belongs_is_refused(world):
    assert world.problem("name: a\nhttp: [1]\n").endswith("http: expected a mapping, got a list")


def test_an_item_of_a_list_is_named_by_its_number(world):
    assert "config.yaml:2:28: correlation.forward[1]: expected text" in world.problem(
        "name: a\ncorrelation: {forward: [a, 3]}\n"
    )


def test_null_is_a_value_where_nothing_is_the_default(world):
    service = world.load("name: a\non_sighup: null\nrun_directory: null\n").service
    assert (service.on_sighup, service.process.run_directory) == (None, None)


def test_every_mistake_is_reported_at_once_in_the_order_of_the_file(world):
    problems = world.problems(
        """\
        workers: many
        wrokers: 1
        grace: yes
        http: {port: "80"}
        log: {level: loud}
        """
    )
    assert [problem.split(": ")[1] for problem in problems] == [
        "name", "workers", "wrokers", "grace", "http.port", "log.level",
    ]  # fmt: skip


@given(st.floats(min_value=0, max_value=1e6).map(lambda x: round(x, 3)))
def test_any_number_of_seconds_is_read_back(number):
    assert seconds(f"{number:.3f}s") == pytest.approx(number)


@given(st.text(max_size=20))
def test_no_text_makes_a_duration_or_a_word_fail(text):
    assert seconds(text) is None or seconds(text) >= 0
    assert isinstance(scalar(text), (str, int, float, bool, type(None)))


@given(st.integers())
def test_any_whole_number_of_a_sensible_size_is_that_number(number):
    assert scalar(str(number)) == (number if abs(number) < 10**40 else str(number))


def test_a_list_is_called_a_list_whatever_holds_it_in_code(world):
    config = "name: a\nconsumers: [{name: c, source: {type: kafka, group: g}, processor: 'builtins:print'}]\n"
    assert world.problem(config).endswith("source.topic: is missing: it needs text or a list")
