"""What ``--print-config``, the schema and the table of defaults say of a configuration."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path

import pytest
import yaml

import patron
from patron.config import explain, layout, load
from patron.config.schema import schema
from patron.config.table import markdown, rows
from patron.errors import ConfigError

ROOT = Path(__file__).parent.parent.parent


def printed(configuration) -> dict[str, tuple[str, str]]:
    return {
        row["key"]: (row["value"], row["source"].rpartition("/")[2])
        for row in explain.rows(configuration.entries)
    }


def test_every_value_is_shown_with_where_it_came_from(world):
    shown = printed(
        world.load(
            "name: a\nworkers: ${W:-2}\nhttp:\n  threads: 3\n", {"PATRON_LOG_LEVEL": "debug", "W": "4"}
        )
    )
    assert shown["name"] == ("a", "config.yaml:1")
    assert shown["workers"] == ("4", "config.yaml:2 via ${W:-2}")
    assert shown["http.threads"] == ("3", "config.yaml:4")
    assert shown["http.port"] == ("50000", "default")
    assert shown["log.level"] == ("debug", "PATRON_LOG_LEVEL")


def test_a_value_is_shown_once(world):
    keys = [entry.path for entry in world.load("name: a\nhttp: {access_log: {level: debug}}\n").entries]
    assert sorted(keys) == sorted(set(keys))


def test_every_key_of_the_table_outside_of_lists_is_shown(world):
    shown = printed(world.load("name: a\n"))
    absent = tuple(f"{key}." for key, (value, _) in shown.items() if value == "null")  # groups that are off
    keys = {row.key for row in rows() if not re.search(r"[\[(]|NAME", row.key)}
    assert {key for key in keys if not key.startswith(absent)} <= set(shown)


def test_secrets_are_hidden_by_their_file_their_name_and_their_place_in_a_url(world):
    (world.directory / "secret").write_text("hunter2")
    world.module("vault", "def open_it(**args): ...\n")
    configuration = world.load(
        f"""
        name: a
        resources:
          db:
            factory: vault:open_it
            args:
              one: ${{file:{world.directory}/secret}}
              password: hunter2
              nested: {{api_key: hunter2, plain: visible}}
              url: amqp://shop:hunter2@broker/
              two: ${{DB_PASSWORD}}
        """,
        {"DB_PASSWORD": "hunter2"},
    )
    assert "hunter2" not in json.dumps(printed(configuration))
    assert printed(configuration)["resources.db.args.nested.plain"][0] == "visible"
    assert printed(configuration)["resources.db.args.url"][0] == "amqp://shop:********@broker/"
    assert configuration.service.resources["db"].keywords["one"] == "hunter2"


def test_a_switch_is_no_secret_whatever_it_is_called(world):
    configuration = world.load(
        "name: a\nhttp: {cors: {origins: ['https://shop.example'], credentials: true}}\n"
    )
    assert printed(configuration)["http.cors.credentials"][0] == "true"


# The schema.


def fits(value: object, rule: dict) -> bool:
    """Whether *value* is valid by *rule*: as much of JSON Schema as the schema of the configuration uses."""
    unknown = set(rule) - {
        "$schema", "title", "description", "default", "type", "properties", "additionalProperties", "required",
        "items", "anyOf", "oneOf", "const", "enum", "pattern", "format",
    }  # fmt: skip
    assert not unknown, unknown
    return all(_KEYWORDS[key](value, rule) for key in rule if key in _KEYWORDS)


_TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


def _type(value, rule):
    if rule["type"] in ("integer", "number"):
        return isinstance(value, int if rule["type"] == "integer" else (int, float)) and not isinstance(
            value, bool
        )
    return isinstance(value, _TYPES[rule["type"]])


def _additional(value, rule):
    allowed = rule["additionalProperties"]
    extra = (
        [v for k, v in value.items() if k not in rule.get("properties", {})]
        if isinstance(value, dict)
        else []
    )
    return not extra if allowed is False else allowed is True or all(fits(v, allowed) for v in extra)


def _properties(value, rule):
    known = rule["properties"]
    return not isinstance(value, dict) or all(fits(v, known[k]) for k, v in value.items() if k in known)


_KEYWORDS = {
    "type": _type,
    "const": lambda value, rule: value == rule["const"],
    "enum": lambda value, rule: value in rule["enum"],
    "pattern": lambda value, rule: not isinstance(value, str) or bool(re.search(rule["pattern"], value)),
    "anyOf": lambda value, rule: any(fits(value, one) for one in rule["anyOf"]),
    "oneOf": lambda value, rule: sum(fits(value, one) for one in rule["oneOf"]) == 1,
    "required": lambda value, rule: not isinstance(value, dict) or set(rule["required"]) <= set(value),
    "items": lambda value, rule: not isinstance(value, list) or all(fits(one, rule["items"]) for one in value),
    "properties": _properties,
    "additionalProperties": _additional,
}  # fmt: skip


GOOD = """
    name: shop
    workers: ${WORKERS:-2}
    grace: 1m30s
    http:
      port: 8080
      access_log: {levels: {5xx: error}}
      routes: [{method: GET, path: /, processor: "wares:show"}]
    resources: {db: "wares:show", other: {factory: "wares:show"}}
    consumers:
      - {name: a, source: {type: memory, topic: t}, processor: "wares:show", retry: {attempts: 2}, restart: on-failure}
      - {name: b, source: {type: sqlite, topic: t, path: x}, processor: "wares:show", restart: {limit: 2}, batch: null}
    correlation: {generator: "wares:show", extract: null}
    log: {fields: {team: a, size: 3}}
    on_start: ["wares:show"]
    """


def test_what_loads_is_valid_by_the_schema(world):
    world.module("wares", "def show(given=None): ...\n")
    world.load(GOOD)
    assert fits(yaml.safe_load(world.path.read_text()), schema())


@pytest.mark.parametrize(
    "change",
    [
        ("name: shop", "nam: shop"),
        ("port: 8080", "port: eighty"),
        ("port: 8080", "prot: 8080"),
        ("grace: 1m30s", "grace: soon"),
        ("type: memory", "type: rabbit"),
        ("{type: memory, topic: t}", "{type: memory}"),
        ("restart: on-failure", "restart: always"),
        ('on_start: ["wares:show"]', "on_start: [wares]"),
        ("method: GET, ", ""),
        ("retry: {attempts: 2}", "retry: 2"),
    ],
    ids=lambda change: change[1],
)
def test_what_is_invalid_by_the_schema_does_not_load_either(world, change):
    world.module("wares", "def show(given=None): ...\n")
    with pytest.raises(ConfigError):
        world.load(GOOD.replace(*change))
    assert not fits(yaml.safe_load(world.path.read_text()), schema())


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("examples/**/config*.yaml")), ids=lambda p: str(p.relative_to(ROOT))
)
def test_the_shipped_examples_are_valid_by_the_schema_and_load(path, monkeypatch, tmp_path):
    assert fits(yaml.safe_load(path.read_text()), schema())
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    assert load(path, {}).service.name
    for name in set(sys.modules) - before:
        if str(path.parent) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_the_example_in_the_documentation_is_valid_by_the_schema():
    text = (ROOT / "docs" / "configuration.md").read_text()
    assert fits(yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0]), schema())


def test_the_schema_is_json_of_the_draft_that_it_names():
    assert json.loads(json.dumps(schema()))["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_every_key_has_a_meaning():
    assert [row.key for row in rows() if not row.meaning] == []


def test_the_table_in_the_documentation_is_current():
    text = (ROOT / "docs" / "configuration.md").read_text()
    between = text.partition("<!-- defaults -->\n")[2].partition("\n<!-- /defaults -->")[0]
    assert between == markdown(), "run: python -m patron schema --table, and put it between the marks"


# Sections of feature folders.


@pytest.fixture
def gadgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A feature folder with a section of its own, found like those of Patron."""
    folder = tmp_path / "features" / "gadgets"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "section.py").write_text(
        "from dataclasses import dataclass\n"
        "from patron.sections import Section\n"
        "@dataclass(frozen=True)\n"
        "class Gadget:\n"
        '    """A gadget."""\n'
        "    size: int = 1\n"
        "class Runs:\n"
        "    def __init__(self, size): self.name, self.size = 'gadget', size\n"
        "    def run(self, stop): ...\n"
        "SECTION = Section('gadget', Gadget, 'a gadget', components=lambda g: [Runs(g.size)],\n"
        "                  env=(('PATRON_GADGETRY', 'size'),))\n"
    )
    monkeypatch.setattr(patron, "__path__", [*patron.__path__, str(folder.parent)])
    caches = (layout.sections, layout.file_shape)
    for cache in caches:
        cache.cache_clear()
    yield
    monkeypatch.undo()
    for cache in caches:
        cache.cache_clear()
    for name in ("patron.gadgets.section", "patron.gadgets"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


def test_a_feature_folder_adds_its_key_its_variable_and_its_components(gadgets, world):
    (component,) = world.load("name: a\ngadget: {size: 3}\n").service.components
    assert component.size == 3
    (component,) = world.load("name: a\n", {"PATRON_GADGETRY": "4"}).service.components
    assert component.size == 4
    assert world.load("name: a\n").service.components == ()
    assert "config.yaml:2:10: gadget.sise: there is no such key" in world.problem(
        "name: a\ngadget: {sise: 3}\n"
    )
    assert schema()["properties"]["gadget"]["properties"]["size"]
