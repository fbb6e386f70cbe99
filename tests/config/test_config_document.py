"""The file as YAML: what is read, what is refused, and where the mistakes are said to be."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from patron.config import load
from patron.errors import ConfigError


def test_a_name_is_all_that_a_configuration_needs(world):
    assert world.load("name: shop").service.name == "shop"


def test_json_is_yaml_too(world):
    assert world.load('{"name": "shop", "http": {"port": 8080}}').service.http.port == 8080


def test_a_byte_order_mark_is_no_part_of_the_first_key(world):
    assert world.load("\ufeffname: shop").service.name == "shop"


def test_a_missing_name_is_said_with_what_it_needs(world):
    assert world.problem("version: '1'") == "config.yaml:1:1: name: is missing: it needs text"


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null"])
def test_an_empty_file_is_said_to_be_empty(world, text):
    assert "the file is empty" in world.problem(text)


@pytest.mark.parametrize("text", ["- name: shop", "shop", "3"])
def test_the_top_must_be_a_mapping(world, text):
    assert "config.yaml:1:1: the top level must be a mapping" in world.problem(text)


def test_a_second_document_is_refused_at_its_line(world):
    assert world.problem("name: a\n---\nname: b\n").startswith(
        "config.yaml:2:1: a second document starts here"
    )


def test_a_key_given_twice_is_refused_at_the_second_one(world):
    problem = world.problem("name: a\nworkers: 1\nworkers: 2\n")
    assert problem == "config.yaml:3:1: workers: the key is given twice, first in line 2"


def test_bad_syntax_is_said_with_line_and_column(world):
    assert world.problem("name: [a\nworkers: 1\n").startswith("config.yaml:2:8: this is not YAML:")


def test_tabs_as_indentation_are_named(world):
    assert "not tabs" in world.problem("http:\n\tport: 1\n")


def test_an_unquoted_reference_inside_braces_is_explained(world):
    assert "put ${...} in quotes" in world.problem("name: a\nhttp: {port: ${PORT}}\n")


def test_bytes_that_are_not_utf8_are_said_with_their_line(world):
    world.path.write_bytes(b"name: shop\nversion: \xff\n")
    with pytest.raises(
        ConfigError, match=r"config\.yaml:2: the file is not UTF-8: byte 0xff: save it as UTF-8"
    ):
        load(world.path, {})


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: the configuration cannot be read: No such file"):
        load(tmp_path / "nowhere.yaml", {})


def test_a_folder_is_no_configuration(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path, {})


def test_a_huge_file_is_refused_unread(world):
    assert "larger than" in world.problem("name: a #" + "x" * (1 << 20))


def test_a_control_character_is_refused(world):
    assert "this is not YAML" in world.problem("name: 'a\x00b'")


def test_anchors_aliases_and_merges_are_understood(world):
    service = world.load(
        """
        name: &n shop
        version: *n
        http: {<<: {port: 1, threads: 2}, port: 3}
        """
    ).service
    assert (service.version, service.http.port, service.http.threads) == ("shop", 3, 2)


def test_the_first_of_several_merges_wins(world):
    http = world.load("name: a\nhttp:\n  <<: [{port: 1}, {port: 2, threads: 2}]\n").service.http
    assert (http.port, http.threads) == (1, 2)


def test_a_mistake_in_a_merge_is_refused(world):
    assert "'<<' merges mappings" in world.problem("name: a\nhttp: {<<: 3}\n")


def test_an_alias_without_an_anchor_is_refused(world):
    assert "the alias *nobody has no finished anchor before it" in world.problem("name: *nobody")


def test_an_alias_to_what_contains_it_is_refused(world):
    assert "has no finished anchor" in world.problem("name: a\nlog: {fields: &a [*a]}\n")


def test_a_bomb_of_aliases_is_refused_before_it_grows(world):
    lines = ["name: a", "a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "expands to more than 50000 values" in world.problem("\n".join(lines))


@pytest.mark.parametrize("depth", [100, 20_000])
def test_deep_nesting_is_refused(world, depth):
    assert "nested more than 64 deep" in world.problem("name: a\nx: " + "[" * depth + "]" * depth)


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.getcwd []", "!custom x", "!!binary aGk="])
def test_tags_are_refused_and_nothing_is_constructed(world, tag):
    problems = world.problems(f"name: a\nversion: {tag}\n")
    assert any("is not supported: write the plain value" in problem for problem in problems)


def test_an_explicit_tag_of_plain_text_is_allowed(world):
    assert world.load("name: a\nversion: !!str 12\n").service.version == "12"


def test_a_key_must_be_a_word(world):
    assert "has a key that is not a word" in world.problem("name: a\n? [x]\n: 1\n")


@pytest.mark.parametrize("loader", ["CSafeLoader", "SafeLoader"])
def test_a_control_character_is_one_line_with_its_place(world, monkeypatch, loader):
    monkeypatch.setattr("patron.config.document._Loader", getattr(yaml, loader, yaml.SafeLoader))
    assert world.problem('name: café\nversion: "é\a"\n') == (
        "config.yaml:2: this is not YAML: the character U+0007 must not stand in it: leave it out, "
        'or write it as an escape in double quotes ("\\x07")'
    )


@pytest.mark.parametrize(("name", "told"), [("", "is empty"), (".", r"\.: .* Is a directory: give a file")])
def test_what_is_no_file_at_all_is_told_with_what_to_do(name, told):
    with pytest.raises(ConfigError, match=told):
        load(name, {})
