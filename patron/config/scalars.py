"""What an unquoted word means: YAML 1.2's core schema, without surprises like ``no`` or ``12:30``."""

from __future__ import annotations

import re

__all__ = ["Scalar", "described", "scalar"]

Scalar = str | int | float | bool | None

_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE = frozenset(("true", "True", "TRUE"))
_FALSE = frozenset(("false", "False", "FALSE"))
# A leading zero is octal in YAML 1.1 and decimal in 1.2, so a number with one stays text.
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]{0,40})")
_BASED = re.compile(r"0x[0-9a-fA-F]{1,16}|0o[0-7]{1,21}")
_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]{0,40})?\.?[0-9]+([eE][-+]?[0-9]{1,3})?")


def scalar(text: str) -> Scalar:
    """The value of the unquoted word *text*."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    return _number(text)


def _number(text: str) -> Scalar:
    if _WHOLE.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if ("." in text or "e" in text.lower()) and _NUMBER.fullmatch(text):
        value = float(text)
        return value if abs(value) < float("inf") else text
    return text


def described(value: object) -> str:
    """A value as a message names it: with its type, and cut when long."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the text {value[:80] + '…' if len(value) > 80 else value!r}"
    return "a list" if isinstance(value, list) else "a mapping"
