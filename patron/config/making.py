"""Makes the parts of a service out of the values of its file."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from patron.calling import named, shown
from patron.component import Component
from patron.consumer import Consumer, ConsumerSettings, Source
from patron.errors import ConfigError, PatronError
from patron.http import HttpSettings, Route
from patron.supervisor import RestartPolicy

__all__ = ["Http", "Part", "component", "consumer", "http", "makes_routes", "resource", "source"]

Restart = RestartPolicy | Literal["never", "on-failure"]


@dataclass(frozen=True, slots=True)
class Part:
    """A component with its restart policy, if it has one."""

    component: Component
    restart: RestartPolicy | None = None


@dataclass(frozen=True, slots=True)
class Http:
    """The key ``http``: the settings of the server and what it serves."""

    settings: HttpSettings
    serves: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        return self.serves[name] if name in self.serves else getattr(self.settings, name)


_SERVES = ("routes", "blueprints", "mounts", "middlewares", "static", "debug_authenticator")


def http(**values: Any) -> Http:
    """The settings and the lists of the key ``http``."""
    serves = {name: values.pop(name) for name in _SERVES if name in values}
    if "routes" in serves:
        serves["routes"] = tuple(_routes(serves["routes"]))
    return Http(HttpSettings(**values), serves)


def makes_routes(value: Any) -> bool:
    """Whether *value* can stand in the list of routes instead of one: a list of them, or what makes it."""
    return callable(value) or (
        isinstance(value, list | tuple) and all(isinstance(one, Route) for one in value)
    )


def _routes(given: Iterable[Any]) -> Iterator[Route]:
    """The routes in *given*, and those of the lists and functions in it."""
    for one in given:
        if isinstance(one, Route):
            yield one
            continue
        made = _called(one, {}) if callable(one) else one
        if not isinstance(made, Iterable) or not makes_routes(made := tuple(made)):
            raise ConfigError(f"routes: {named(one)} makes {shown(made)}, which is no list of routes")
        yield from made


def resource(factory: Callable[..., Any], args: Mapping[str, Any] | None = None) -> Callable[..., Any]:
    """
    The factory of a resource, with its arguments filled in.

    Raises:
        ConfigError: it does not take these arguments.
    """
    _takes(factory, args or {})
    return partial(factory, **args) if args else factory


def component(factory: Any, args: Mapping[str, Any] | None = None, restart: Restart = "never") -> Part:
    """
    What *factory* makes, or *factory* itself when it is a component.

    Raises:
        ConfigError: it fails, or makes something else.
    """
    if isinstance(factory, Component) and not isinstance(factory, type):
        return Part(factory, _policy(restart))
    _takes(factory, args or {})
    made = _called(factory, args or {})
    if not isinstance(made, Component):
        raise ConfigError(
            f"{named(factory)} makes {shown(made)}, which is no component: it needs a name and run(stop)"
        )
    return Part(made, _policy(restart))


def consumer(
    name: str, source: Source, processor: Callable[..., Any], restart: Restart = "never", **settings: Any
) -> Part:
    """The consumer that reads *source*."""
    return Part(Consumer(name, source, processor, ConsumerSettings(**settings)), _policy(restart))


def source(factory: Any, **args: Any) -> Source:
    """
    What *factory* makes of the keys beside ``type``.

    Raises:
        ConfigError: it fails, or makes something else.
    """
    made = _called(factory, args)
    if not isinstance(made, Source):
        raise ConfigError(f"{named(factory)} makes {shown(made)}, which is no source")
    return made


def _policy(restart: Restart) -> RestartPolicy | None:
    if isinstance(restart, RestartPolicy):
        return restart
    return RestartPolicy() if restart == "on-failure" else None


def _takes(factory: Callable[..., Any], args: Mapping[str, Any]) -> None:
    try:
        inspect.signature(factory).bind_partial(**args)
    except TypeError as error:
        raise ConfigError(f"args do not fit {named(factory)}{_signature(factory)}: {error}") from None
    except ValueError:
        return  # no signature to be had, as with some builtins


def _called(factory: Callable[..., Any], args: Mapping[str, Any]) -> Any:
    try:
        return factory(**args)
    except PatronError:
        raise
    except Exception as error:
        raise ConfigError(f"{named(factory)} failed: {type(error).__name__}: {error}") from error


def _signature(factory: Any) -> str:
    return str(inspect.signature(factory))
