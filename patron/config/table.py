"""Every key of the configuration file with its default, as a Markdown table for the documentation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from patron.config import explain
from patron.config.document import join
from patron.config.environment import variables
from patron.config.layout import RATIOS, file_shape
from patron.config.shapes import REQUIRED, Choice, Either, Field, Many, Named, Shape, expected, kind, wants
from patron.errors import PatronError

__all__ = ["Row", "markdown", "rows"]


@dataclass(frozen=True, slots=True)
class Row:
    """One key."""

    key: str
    type: str
    default: str
    variable: str
    meaning: str


def markdown() -> str:
    """The table, one row for each key."""
    lines = ["| key | type | default | variable | meaning |", "|---|---|---|---|---|"]
    lines += [
        f"| `{r.key}` | {_cell(r.type)} | {_code(r.default)} | {_code(r.variable)} | {_cell(r.meaning)} |"
        for r in rows()
    ]
    return "\n".join(lines)


def _cell(text: str) -> str:
    """Docstrings speak of Python's None, the file of null."""
    return text.replace("|", "\\|").replace("``", "`").replace("None:", "null:")


def _code(text: str) -> str:
    return f"`{text}`" if text and text != "required" else text


def rows() -> Iterator[Row]:
    """The rows in the order of the file."""
    by_path = {path: variable for variable, path in variables(file_shape()).items()}
    for field in file_shape().fields:
        yield from _rows(field, "", by_path)


def _rows(field: Field, prefix: str, by_path: Mapping[str, str]) -> Iterator[Row]:
    path = join(prefix, field.name)
    asked = kind(field.type)
    if not isinstance(asked, Shape):
        yield Row(path, _type(field), _default(field), by_path.get(path, ""), field.described())
    for inner, name in _inside(asked, path, field.default):
        yield from _rows(inner, name, by_path)


def _type(field: Field) -> str:
    durations = wants(field.type, float) and field.name not in RATIOS
    return "seconds" if durations else expected(field.type)


def _inside(asked: Any, path: str, default: Any) -> Iterator[tuple[Field, str]]:
    """The fields below a key, with the path that they are written with."""
    match asked:
        case Shape():
            yield from ((_with_default(field, default), path) for field in asked.fields)
        case Many():
            yield from _inside(kind(asked.of), f"{path}[]", None)
        case Named():
            yield from _inside(kind(asked.of), f"{path}.NAME", None)
        case Either():
            yield from ((field, path) for field in asked.mapping.fields)
        case Choice():
            yield from _chosen(asked, path)


def _chosen(choice: Choice, path: str) -> Iterator[tuple[Field, str]]:
    own = f", or 'module:attribute' of {choice.own}" if choice.own else ""
    yield Field(choice.key, str, summary=f"one of {', '.join(choice.names())}{own}"), path
    for name in choice.names():
        try:
            yield from ((field, f"{path}({name})") for field in choice.find(name).fields)
        except PatronError:
            continue  # its driver is not installed here


def _with_default(field: Field, default: Any) -> Field:
    """*field* with the default that the value around it gives it."""
    if default is None or default is REQUIRED or field.default is REQUIRED:
        return field
    return Field(field.name, field.type, getattr(default, field.name, field.default), field.summary)


def _default(field: Field) -> str:
    return "required" if field.default is REQUIRED else explain.shown(field.default)
