"""What a service opens once per worker and hands to its processors by name."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from patron.calling import IS_ASYNC, injectable, is_async, named
from patron.errors import ConfigError

__all__ = ["Resources", "bind", "current", "use"]

_active: contextvars.ContextVar[Mapping[str, Any]] = contextvars.ContextVar("patron_resources")
_process: Mapping[str, Any] = {}


class Resources(dict[str, Any]):
    """The open resources of one live service, by name."""


def current(name: str) -> Any:
    """
    The open resource called *name*.

    Any thread of the service may call it.

    Raises:
        ConfigError: no such resource is open; the message lists the ones that are.
    """
    resources = _active.get(_process)
    try:
        return resources[name]
    except KeyError:
        known = ", ".join(sorted(resources)) or "none"
        raise ConfigError(
            f"resource {name!r} is not open (open: {known}): add it under 'resources'"
        ) from None


@contextlib.contextmanager
def use(resources: Mapping[str, Any]) -> Iterator[None]:
    """Make *resources* the ones that `current` sees, in this context."""
    token = _active.set(resources)
    try:
        yield
    finally:
        _active.reset(token)


def install(resources: Mapping[str, Any]) -> None:
    """Make *resources* the ones that `current` sees in every thread of the process; the live service calls it."""
    global _process
    _process = resources


def bind(
    function: Callable[..., Any], resources: Mapping[str, Any] | None = None, *, given: int = 1
) -> Callable[..., Any]:
    """
    *function* with its resource arguments filled in by name.

    The first *given* positional parameters are left for the caller; every other parameter without a
    default must name an open resource.

    Raises:
        ConfigError: a parameter names no resource, or *function* is async.
    """
    if is_async(function):
        raise ConfigError(f"{named(function)} {IS_ASYNC}")
    available = _active.get(_process) if resources is None else resources
    wanted = injectable(function, given)
    missing = [name for name, needed in wanted.items() if needed and name not in available]
    if missing:
        known = ", ".join(sorted(available)) or "none"
        raise ConfigError(
            f"{named(function)} asks for {', '.join(map(repr, missing))}, which is no resource of the service "
            f"(there are: {known}): add it under 'resources', or give the parameter a default"
        )
    filled = {name: available[name] for name in wanted if name in available}
    return partial(function, **filled) if filled else function


def wanted_names(function: Callable[..., Any], *, given: int = 1) -> tuple[str, ...]:
    """The names that *function* needs as resources; for checks before anything is open."""
    return tuple(name for name, needed in injectable(function, given).items() if needed)
