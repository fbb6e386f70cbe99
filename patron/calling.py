"""How Patron calls the functions of a service: plainly, with the arguments that it has for them."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

__all__ = ["IS_ASYNC", "injectable", "is_async", "misfit", "named", "refuse_awaitable", "shown"]

IS_ASYNC = "is async: Patron calls plain functions"


def is_async(function: Any) -> bool:
    """Whether calling *function* would only make a coroutine or an asynchronous generator, and run nothing."""
    while isinstance(function, functools.partial):
        function = function.func
    return _is_async(function) or (not isinstance(function, type) and _is_async(type(function).__call__))


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def refuse_awaitable(result: object) -> None:
    """
    Let *result* be no success of the function that returned it, when that has not run yet.

    Raises:
        TypeError: it is awaitable, or an asynchronous generator; a coroutine is closed.
    """
    if hasattr(result, "__await__") or hasattr(result, "__aiter__"):
        if inspect.iscoroutine(result):
            result.close()  # else Python warns that nobody awaited it
        raise TypeError(f"what was called returned {type(result).__name__!r}, so it {IS_ASYNC}")


def injectable(function: Callable[..., Any], given: int) -> dict[str, bool]:
    """Parameter name → whether it has no default, for the parameters after the *given* first ones."""
    signature = _signature(function)
    parameters = [] if signature is None else list(signature.parameters.values())
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name: p.default is p.empty for p in parameters[given:] if p.kind in by_name}


def misfit(function: Callable[..., Any], given: int, *, injects: bool = True) -> str | None:
    """
    Why *function* cannot be called with *given* arguments by place; None: it can.

    With *injects* its further parameters are filled by name.
    """
    signature = _signature(function)
    filled = injectable(function, given) if injects else {}
    try:
        if signature is not None:
            signature.bind(*[None] * given, **dict.fromkeys(filled))
    except TypeError as error:
        calls = "no argument" if not given else "one argument" if given == 1 else f"{given} arguments"
        return f"{named(function)}{signature} does not fit: Patron calls it with {calls} ({error})"
    return None


def shown(value: object) -> str:
    """*value* for a message: its `repr`, without addresses, which nobody can use, and cut when long."""
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))
    return text if len(text) <= 200 else f"{text[:199]}…"


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None  # there is none to be had, as with some builtins


def named(function: Any) -> str:
    """*function* as ``module:name``, for messages."""
    while isinstance(function, functools.partial):
        function = function.func
    return (
        f"{getattr(function, '__module__', '?')}:{getattr(function, '__qualname__', None) or shown(function)}"
    )
