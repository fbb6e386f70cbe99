"""The broker that the page on adding one shows keeps the contract of every source."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from patron.consumer.source import Source
from patron.testing.contract import SourceContract

PAGE = Path(__file__).resolve().parents[2] / "docs" / "adding-a-broker.md"


def _spool() -> type[Any]:
    world: dict[str, Any] = {"__name__": "docs"}
    code = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)[0]
    exec(compile(code, PAGE.name, "exec", dont_inherit=True), world)
    made: type[Any] = world["SpoolSource"]
    return made


SpoolSource = _spool()


class TestSpool(SourceContract):
    def source(self) -> Source:
        source: Source = SpoolSource(self.tmp_path, self.topic)
        return source
