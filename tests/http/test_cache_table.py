"""The tables in the documentation are what a cached route really answers, and the page names all there is."""

from __future__ import annotations

import re
from dataclasses import fields

import cache_table

from patron.http import RouteCache
from patron.http.caching.metrics import METRICS

PAGE = cache_table.PAGE.read_text()


def test_the_tables_of_the_page_are_what_is_answered():
    assert cache_table.with_tables(PAGE) == PAGE, "run: python tests/http/cache_table.py --write"
    assert PAGE.count("| `Cache-Control: no-cache` |") == 2


def test_every_setting_and_every_metric_is_on_the_page():
    assert [field.name for field in fields(RouteCache) if f"| `{field.name}` |" not in PAGE] == []
    assert [metric.name for metric in METRICS if metric.name not in PAGE] == []


def test_every_reason_that_is_counted_is_on_the_page():
    source = "".join(
        path.read_text() for path in cache_table.PAGE.parents[1].glob("patron/http/caching/*.py")
    )
    reasons = set(re.findall(r'return "([a-z_]+)"', source)) | set(
        re.findall(r'_failed\((?:call, )?"(\w+)"', source)
    )
    assert len(reasons) > 10
    assert {reason for reason in reasons if f"`{reason}`" not in PAGE} <= {"no-cache"}
