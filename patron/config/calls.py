"""``module:factory('staging', debug=True)``: a function of the user's, and the literal arguments to call it with."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from patron.calling import IS_ASYNC, is_async, named
from patron.config.names import REFERENCE, raised_at, resolve
from patron.errors import ConfigError, PatronError

__all__ = ["CALL", "called"]

#: What is meant as a call; whether it is one is said by `called`.
CALL = re.compile(rf"(?P<factory>{REFERENCE.pattern})(?P<arguments>\(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Arguments:
    by_place: tuple[Any, ...]
    by_name: dict[str, Any]


def called(reference: str) -> Any:
    """
    What the function in *reference* returns for the arguments there; it imports the module.

    As gunicorn does (`gunicorn.util.import_app`); besides, the function may be an attribute of an attribute.

    Raises:
        ConfigError: it is no call with literals, there is no such function, or it fails.
    """
    match = CALL.fullmatch(reference)
    if match is None:
        raise ConfigError(f"{reference!r} is not of the form 'module:factory(...)'")
    arguments = _arguments(match["arguments"], reference)
    function = resolve(match["factory"])
    if not callable(function) or is_async(function):
        why = IS_ASYNC if callable(function) else "cannot be called"
        raise ConfigError(f"{reference!r}: {match['factory']} {why}")
    return _result(function, arguments, reference)


def _arguments(text: str, reference: str) -> _Arguments:
    """What stands between the parentheses of *text*; nothing of it is run."""
    try:
        call = ast.parse(f"f{text}", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", None) or error
        raise ConfigError(f"{reference!r} is no call of a function: {reason}") from None
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
        raise ConfigError(f"{reference!r} is more than the call of one function")
    try:
        return _Arguments(tuple(map(ast.literal_eval, call.args)), dict(map(_named_literal, call.keywords)))
    except (ValueError, TypeError, RecursionError, MemoryError):
        raise ConfigError(
            f"{reference!r}: the arguments must be literals, such as True, 8, 'text' or [1, 2]"
        ) from None


def _named_literal(keyword: ast.keyword) -> tuple[str, Any]:
    if keyword.arg is None:
        raise ValueError("** names nothing")
    return keyword.arg, ast.literal_eval(keyword.value)


def _result(function: Callable[..., Any], arguments: _Arguments, reference: str) -> Any:
    try:
        inspect.signature(function).bind(*arguments.by_place, **arguments.by_name)
    except TypeError as error:
        signature = inspect.signature(function)
        raise ConfigError(f"{reference!r} does not fit {named(function)}{signature}: {error}") from None
    except ValueError:
        pass  # no signature to be had, as with some builtins
    try:
        return function(*arguments.by_place, **arguments.by_name)
    except PatronError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{reference!r} failed: {type(error).__name__}: {error}{raised_at(error)}"
        ) from error
