"""
Prints what a cached route answers to every directive, for every state of its entry, by asking it.

``python tests/http/cache_table.py`` prints markdown, and the tables of docs/cache.md are what it prints
(``--write`` puts them there). Every cell is one request to a service with ``RouteCache(max=30, min=5,
stale_if_error=60)``, made in a world of its own.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cache_world import world

PAGE = Path(__file__).parents[2] / "docs" / "cache.md"

#: The state of the entry → its age in seconds; None: there is no entry.
STATES: Mapping[str, float | None] = {
    "no entry": None,
    "2 s old": 2.0,
    "10 s old": 10.0,
    "40 s old": 40.0,
    "100 s old": 100.0,
}

#: What the client sends, as header lines.
REQUESTS: tuple[str, ...] = (
    "",
    "Cache-Control: max-age=20",
    "Cache-Control: max-age=3",
    "Cache-Control: max-age=0",
    "Cache-Control: max-age=99",
    "Cache-Control: min-fresh=10",
    "Cache-Control: min-fresh=25",
    "Cache-Control: min-fresh=99",
    "Cache-Control: max-stale",
    "Cache-Control: max-stale=5",
    "Cache-Control: no-cache",
    "Cache-Control: no-store",
    "Pragma: no-cache",
    "Cache-Control: only-if-cached",
    "Cache-Control: only-if-cached, max-age=3",
    "Cache-Control: only-if-cached, no-cache",
    "Cache-Control: only-if-cached, max-stale",
    "Cache-Control: max-age=99, no-cache",
    "Cache-Control: max-age=20, max-age=3",
    "Cache-Control: max-age=abc",
    "Cache-Control: max-age=-1",
    'Cache-Control:  MAX-AGE = "20" ,',
    "Cache-Control: max-agee=1, s-maxage=1",
    "Pragma: no-cache · Cache-Control: max-age=20",
    "If-None-Match: (its ETag)",
    'If-None-Match: "other", W/(its ETag)',
    "If-None-Match: *",
    'If-None-Match: "other"',
    "If-None-Match: * · Cache-Control: no-cache",
    "Range: bytes=0-0",
    "Authorization: Basic eDp5",
)

#: Of these the second table tells what they are answered when the processor fails.
FAILING: tuple[str, ...] = (
    "",
    "Cache-Control: no-cache",
    "Cache-Control: only-if-cached",
    "If-None-Match: *",
)

METHODS: tuple[str, ...] = ("GET", "HEAD", "PUT", "OPTIONS")


def main(arguments: list[str]) -> None:
    """Print the tables, or write them into the page."""
    if arguments != ["--write"]:
        print(tables())
        return
    PAGE.write_text(with_tables(PAGE.read_text()))


def with_tables(page: str) -> str:
    """*page* with the tables as they are now."""
    return re.sub(
        r"(?<=<!-- table -->\n).*?(?=<!-- end -->)", lambda _: tables() + "\n", page, flags=re.DOTALL
    )


def tables() -> str:
    """All of them, as markdown."""
    head = ["the client sends", *STATES]
    plain = [[code(lines), *(cell(lines, age) for age in STATES.values())] for lines in REQUESTS]
    failing = [
        [code(lines), *(cell(lines, age, failing=True) for age in STATES.values())] for lines in FAILING
    ]
    methods = [[f"`{m}`", *(cell("", age, method=m) for age in STATES.values())] for m in METHODS]
    return "\n\n".join(
        (
            markdown([head, *plain]),
            "When the processor fails (with 503, here; an exception is the same):",
            markdown([head, *failing]),
            "Other methods:",
            markdown([["method", *STATES], *methods]),
        )
    )


def code(lines: str) -> str:
    return " · ".join(f"`{line.strip()}`" for line in lines.split("·")) if lines else "nothing"


def markdown(rows: list[list[str]]) -> str:
    head, *rest = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *rest])


def cell(lines: str, age: float | None, *, method: str = "GET", failing: bool = False) -> str:
    """What was answered, as a few words."""
    with world(max=30, min=5, stale_if_error=60) as w:
        tag = w.get().headers["ETag"] if age is not None else '"none"'
        w.clock.now += age or 0
        if failing:
            w.processor = fail
        before = w.runs
        answer = w.request(method, **dict(headers(lines.replace("(its ETag)", tag))))
        return ", ".join(words(answer, w.runs > before, age))


def fail(request: Any) -> Any:
    from patron.errors import ServiceUnavailable

    raise ServiceUnavailable


def headers(lines: str) -> Iterator[tuple[str, str]]:
    for line in filter(None, lines.split("·")):
        name, _, value = line.partition(":")
        yield name.strip().replace("-", "_"), value.strip()


def words(answer: Any, ran: bool, age: float | None) -> Iterator[str]:
    status = answer.status_code
    yield str(status)
    if "Age" in answer.headers:
        served = int(answer.headers["Age"]) == int(age or 0) and age is not None and not is_new(answer, age)
        yield "kept" if served else "new"
    elif status == 200:
        yield "new" if ran else "by Flask"
    if ran and "Warning" in answer.headers:
        yield "the processor ran"
    for found in re.findall(r'(\d+) \S+ "([^"]*)"', answer.headers.get("Warning", "")):
        yield f"**{found[0]}** {found[1]}"


def is_new(answer: Any, age: float) -> bool:
    return answer.headers["Age"] == "0" and age > 0


if __name__ == "__main__":
    main(sys.argv[1:])
