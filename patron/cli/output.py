"""What commands write: tables, JSON and problems; colours only where a person looks."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

import click

__all__ = ["emit_json", "emit_table", "paint", "problem", "warning"]


def paint(text: str, colour: str, stream: IO[str]) -> str:
    """*text* in *colour* when *stream* is a terminal and ``NO_COLOR`` is not set."""
    return click.style(text, fg=colour) if stream.isatty() and not os.environ.get("NO_COLOR") else text


def problem(text: str) -> None:
    """Write one mistake or failure to standard error."""
    _to_stderr("patron:", "red", text)


def warning(text: str) -> None:
    """Write one warning to standard error."""
    _to_stderr("patron: warning:", "yellow", text)


def _to_stderr(label: str, colour: str, text: str) -> None:
    stream = sys.stderr
    click.echo(f"{paint(label, colour, stream)} {text}", file=stream, color=True)


def emit_json(value: Any) -> None:
    """Write *value* as JSON, indented."""
    click.echo(json.dumps(value, indent=2, default=str, ensure_ascii=False))


_WIDEST = 60


def emit_table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write *rows* below the names of *columns*, aligned; nothing but the names when there are none."""
    cells = [
        [name.upper() for name in columns],
        *([_cell(row.get(name)) for name in columns] for row in rows),
    ]
    # A cell longer than that pushes the rest of its own line aside, and not of all the others.
    widths = [max(min(len(cell), _WIDEST) for cell in column) for column in zip(*cells, strict=True)]
    for line in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
