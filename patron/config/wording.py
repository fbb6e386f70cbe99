"""How the mistakes of single values are worded: what was expected, what is there, what to write instead."""

from __future__ import annotations

import json
import typing
from typing import Any

from pydantic import ValidationError

from patron.config.document import Node
from patron.config.names import did_you_mean
from patron.config.scalars import described
from patron.config.secrets import looks_secret
from patron.config.shapes import expected, members, wants

__all__ = ["a_thing", "got", "is_secret", "refusal"]

_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def refusal(
    error: ValidationError, node: Node, annotation: Any, path: str, words: str, *, is_duration: bool
) -> str:
    """Why the value of *node* is refused; *words* say what was expected, where *annotation* does not."""
    first = error.errors(include_url=False)[0]
    bound = _BOUNDS.get(first["type"])
    if bound:
        return f"expected {bound[1]} {first['ctx'][bound[0]]}, got {got(node, path)}"
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    hint = "" if is_secret(node, path) else _hint(node.value, node.text, annotation, is_duration)
    return f"expected {words or expected(annotation)}, got {got(node, path)}{hint}"


def is_secret(node: Node, path: str) -> bool:
    """Whether the value of *node* must not be shown."""
    return node.secret or looks_secret(path)


def got(node: Node, path: str) -> str:
    """The value of *node* in words."""
    if not isinstance(node.value, (dict, list, type(None))) and is_secret(node, path):
        return "a value that is hidden here"
    return described(node.value)


def _hint(value: Any, text: str | None, annotation: Any, is_duration: bool) -> str:
    """What to write instead, where that can be told."""
    if not isinstance(value, str):
        quoted = (
            text is not None and value is not None and (_is_text(annotation) or text in _choices(annotation))
        )
        return f": put it in quotes ({json.dumps(text)})" if quoted else ""
    if wants(annotation, bool) and value.lower() in _SPOKEN:
        return f": write {'true' if _SPOKEN[value.lower()] else 'false'}"
    if is_duration and not wants(annotation, str):
        return ": write seconds, or a duration such as 500ms, 30s or 1m30s"
    if wants(annotation, int) and value.strip().lstrip("+-").isdigit():
        return ": write it without quotes and without leading zeros"
    return did_you_mean(value, _choices(annotation))


def _is_text(annotation: Any) -> bool:
    return expected(annotation) == "text"


_SPOKEN = {
    "yes": True,
    "on": True,
    "y": True,
    "true": True,
    "no": False,
    "off": False,
    "n": False,
    "false": False,
}


def _choices(annotation: Any) -> list[str]:
    literals = (m for m in members(annotation) if typing.get_origin(m) is typing.Literal)
    return [value for literal in literals for value in typing.get_args(literal) if isinstance(value, str)]


def a_thing(value: Any) -> str:
    """What kind of thing *value* is, in words."""
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
