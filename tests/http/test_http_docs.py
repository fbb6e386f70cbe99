"""The examples in the documentation run as they stand."""

from __future__ import annotations

import re
import sys
import types
from dataclasses import fields
from pathlib import Path

from patron.http import HttpSettings

PAGE = (Path(__file__).parents[2] / "docs" / "http.md").read_text()


def test_the_examples_run_one_after_the_other(monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) > 5
    page = types.ModuleType("docs_http")
    monkeypatch.setitem(sys.modules, "docs_http", page)  # where the types of its dataclasses are looked up
    for block in blocks:
        exec(compile(block, "docs/http.md", "exec"), page.__dict__)


def test_every_setting_is_in_the_table():
    table = PAGE.split("## Settings")[1]
    assert [field.name for field in fields(HttpSettings) if f"`{field.name}`" not in table] == []
