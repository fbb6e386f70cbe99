"""What docs/flask.md claims beyond the blocks that tests/test_documentation.py runs."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from patron import Patron

PAGE = (Path(__file__).parents[2] / "docs" / "flask.md").read_text()


def test_every_argument_is_in_the_docstring() -> None:
    documented = inspect.getdoc(Patron) or ""
    names = inspect.signature(Patron).parameters
    assert [name for name in names if not re.search(rf"\b{name}\b", documented)] == []


def test_every_line_of_the_page_fits() -> None:
    assert [line for line in PAGE.splitlines() if len(line) > 122 and not line.startswith("|")] == []
