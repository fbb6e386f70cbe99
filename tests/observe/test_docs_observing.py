"""The page on observing does what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from patron.correlation import CorrelationSettings
from patron.observe import LogSettings, TraceSettings
from patron.observe.sender import METRICS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "observing.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_the_example_runs(block: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("settings", [CorrelationSettings, LogSettings, TraceSettings])
def test_every_setting_stands_in_a_table(settings: type) -> None:
    assert [name for name in settings.__slots__ if f"| `{name}` |" not in PAGE] == []


def test_every_metric_stands_in_the_table() -> None:
    assert [each.name for each in METRICS if f"| `{each.name}` |" not in PAGE] == []
