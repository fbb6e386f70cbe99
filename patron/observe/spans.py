"""Spans for code of one's own, and work that goes on in other threads."""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar, overload

from patron.observe.instrument import Operation, operation

__all__ = ["span", "submit_with_span", "traced"]

P = ParamSpec("P")
R = TypeVar("R")


def span(name: str, *, component: str = "internal", **tags: Any) -> Operation:
    """
    Observe the block of a ``with`` as a child of what is being done now.

    What leaves the block as an exception is noted on the span and goes on.
    """
    opened = operation("internal", component, name, name=name)
    for key, value in tags.items():
        opened.tag(key, value)
    return opened


@overload
def traced(function: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def traced(*, name: str | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def traced(function: Callable[P, R] | None = None, /, *, name: str | None = None) -> Any:
    """Observe every call of a function as a `span`, called ``module.function`` unless it gets a *name*."""
    if function is None:
        return functools.partial(_traced, name=name)
    return _traced(function, name)


def _traced(function: Callable[P, R], name: str | None) -> Callable[P, R]:
    chosen = name or f"{function.__module__}.{function.__qualname__}"

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with span(chosen):
            return function(*args, **kwargs)

    return call


def submit_with_span(
    executor: Executor, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
) -> Future[R]:
    """``executor.submit``, carrying correlation id, span and the rest of this thread's context along."""
    inside = contextvars.copy_context()
    return executor.submit(lambda: inside.run(function, *args, **kwargs))
