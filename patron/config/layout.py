"""The keys of the configuration file, put together from the settings of every part."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import patron
from patron.component import Component
from patron.config import making
from patron.config.shapes import Either, Field, Many, Named, Reference, Shape, shape_of
from patron.config.sourcetypes import SOURCE
from patron.consumer import ConsumerSettings
from patron.correlation import CorrelationSettings
from patron.http import Authenticator, HttpSettings, Route, StaticFiles
from patron.observe.log import LogSettings
from patron.observe.trace import TraceSettings
from patron.sections import Section
from patron.supervisor import ProcessSettings, RestartPolicy

__all__ = ["RATIOS", "file_shape", "sections"]

#: Float keys that are no durations, so that ``30s`` is refused for them.
RATIOS = frozenset(("sampler_param", "jitter", "multiplier", "factor", "ratio", "rate", "burst"))


def _is_component(value: Any) -> bool:
    return callable(value) or isinstance(value, Component)


_HOOK = Reference("a function")
_WSGI = Reference("a WSGI application")
_THING = Reference("an object", lambda value: True)
_ROUTES = Reference("a list of routes, or a function that makes one", making.makes_routes)
_RESTART = Either(Literal["never", "on-failure"], shape_of(RestartPolicy))
_RESTARTS = Field("restart", _RESTART, "never", "restart it when it failed, instead of ending the service")
_ARGS = Field("args", Mapping[str, Any], {}, "keyword arguments for the factory")

_RESOURCE = Shape(
    "Resource",
    (Field("factory", Reference("a factory"), summary="opens it, in each worker, after the fork"), _ARGS),
    making.resource,
)
_COMPONENT = Shape(
    "Component",
    (
        Field(
            "factory",
            Reference("a component or a factory", _is_component),
            summary="makes it, before the fork",
        ),
        _ARGS,
        _RESTARTS,
    ),
    making.component,
)


def _consumer() -> Shape:
    own = (
        Field("name", str, summary="unique among the components; a label of its metrics"),
        Field(
            "source",
            SOURCE,
            summary="what it reads: the key `type` names the kind, the others are its settings",
        ),
        Field("processor", Reference("a processor"), summary="called with each message, or batch"),
    )
    settings = shape_of(ConsumerSettings)
    return Shape("Consumer", (*own, *settings.fields, _RESTARTS), making.consumer, settings=settings)


def _http() -> Shape:
    settings = shape_of(HttpSettings)
    lists = (
        Field("routes", Many(Either(_ROUTES, shape_of(Route))), (), "what is served beside the admin routes"),
        Field("blueprints", Many(_THING), (), "Flask blueprints"),
        Field("mounts", Named(_WSGI), {}, "WSGI applications by the prefix of their paths"),
        Field("middlewares", Many(Reference("a WSGI middleware")), (), "around everything, outermost first"),
        Field(
            "static", Many(shape_of(StaticFiles)), (), "folders whose files are served where no route matches"
        ),
        Field("debug_authenticator", Authenticator | None, None, "who may see /debug from elsewhere"),
    )
    return Shape("Http", (*settings.fields, *lists), making.http, settings.summary)


@functools.cache
def file_shape() -> Shape:
    """The whole file."""
    parts = (
        Field("http", _http(), making.http(), "the HTTP server"),
        Field(
            "resources",
            Named(Either(_RESOURCE.fields[0].type, _RESOURCE, wrap="factory")),
            {},
            "opened before the components, handed out by name",
        ),
        Field("consumers", Many(_consumer()), (), "components that read messages"),
        Field(
            "components",
            Many(Either(_COMPONENT.fields[0].type, _COMPONENT, wrap="factory")),
            (),
            "further components",
        ),
        Field("on_start", Many(_HOOK), (), "called in each worker once everything is open"),
        Field("on_stop", Many(_HOOK), (), "called in each worker before anything closes"),
        Field("on_sighup", _HOOK, None, "called in each worker at SIGHUP, instead of a reload"),
        Field("alive_check", _HOOK, None, "a further condition of /alive"),
        Field("ready_checks", Named(_HOOK), {}, "further conditions of /ready"),
        Field("error_reporter", _HOOK, None, "gets every unexpected exception with its context"),
        Field("log", shape_of(LogSettings), LogSettings(), "log lines"),
        Field("trace", shape_of(TraceSettings), TraceSettings(), "spans"),
        Field("correlation", shape_of(CorrelationSettings), CorrelationSettings(), "correlation ids"),
    )
    further = (Field(s.name, _section_type(s), () if s.many else None, s.summary) for s in sections())
    return Shape("Configuration", (*_service(), *shape_of(ProcessSettings).fields, *parts, *further))


def _service() -> tuple[Field, ...]:
    return (
        Field("name", str, summary="the name of the service: the field `srv` of every log line"),
        Field("version", str, "dev", "its version: the field `ver` of every log line"),
    )


def _section_type(section: Section) -> Any:
    settings: Any = section.settings
    shape = shape_of(settings)
    return Many(shape) if section.many else shape


@functools.cache
def sections() -> tuple[Section, ...]:
    """What the feature folders add: the ``SECTION`` of each ``patron/<feature>/section.py``."""
    return tuple(sorted(_found_sections(), key=lambda section: section.name))


def _found_sections() -> Iterator[Section]:
    """Looked for by their files, since asking the import system would import every package."""
    for place in patron.__path__:
        for file in Path(place).glob("*/section.py"):
            yield importlib.import_module(f"patron.{file.parent.name}.section").SECTION
