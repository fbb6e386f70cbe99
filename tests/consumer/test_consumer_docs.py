"""The pages on consumers run as they stand, and the broker on one of them keeps the contract of every source."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from patron.consumer.source import Source
from patron.sources.memory import forget_broker
from patron.testing.contract import SourceContract

DOCS = Path(__file__).resolve().parents[2] / "docs"


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def _own_broker() -> Iterator[None]:
    forget_broker()
    yield
    forget_broker()


@pytest.mark.parametrize("page", ["consumers.md", "adding-a-broker.md"])
def test_a_page_runs_from_top_to_bottom(page: str) -> None:
    world: dict[str, Any] = {"__name__": "docs"}
    for block in blocks(page):
        exec(compile(block, page, "exec", dont_inherit=True), world)


def _spool() -> type[Any]:
    world: dict[str, Any] = {"__name__": "docs"}
    code = blocks("adding-a-broker.md")[0]
    exec(compile(code, "adding-a-broker.md", "exec", dont_inherit=True), world)
    made: type[Any] = world["SpoolSource"]
    return made


SpoolSource = _spool()


class TestSpool(SourceContract):
    def source(self) -> Source:
        source: Source = SpoolSource(self.tmp_path, self.topic)
        return source
