"""
Which traces are sampled, and where their spans go.

Ids propagate always, with or without a backend. A span is built only for what is sampled, and only
when a backend is there to send it to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from patron.errors import ConfigError
from patron.observe import propagation
from patron.observe.propagation import SAMPLED, TraceContext

__all__ = ["Backend", "LiveSpan", "TraceSettings", "start", "stop", "use_backend"]

Sampler = Literal["const", "probabilistic", "ratelimiting"]
Format = Literal["jaeger", "w3c"]
_samplers = ("const", "probabilistic", "ratelimiting")
_formats: dict[str, Callable[[TraceContext, dict[str, str]], None]] = {
    "jaeger": propagation.inject_jaeger,
    "w3c": propagation.inject_w3c,
}


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """
    Where spans go, which traces get them, and which headers carry the ids.

    Args:
        agent_host: host of the Jaeger agent, reached over UDP.
        agent_port: its port for compact thrift.
        sampler_type: ``probabilistic`` (share of traces), ``const`` (1 all, 0 none) or
            ``ratelimiting`` (traces per second). A trace that was sampled upstream is always continued.
        sampler_param: the sampler's number; 0.0 starts no trace.
        propagation: the formats to write, ``jaeger`` (``uber-trace-id``) and ``w3c`` (``traceparent``);
            both are read, the first of these first.
        queue: spans that wait for the sender at most; what is over it is dropped and counted.
    """

    agent_host: str = "0.0.0.0"  # noqa: S104 - an address to send to, the original's default
    agent_port: int = 6831
    sampler_type: Sampler = "probabilistic"
    sampler_param: float = 0.0
    propagation: tuple[Format, ...] = ("jaeger",)
    queue: int = 10_000

    def __post_init__(self) -> None:
        problems = [problem for problem in _problems(self) if problem]
        if problems:
            raise ConfigError(*problems)

    @classmethod
    def from_env(cls, environ: Mapping[str, str], base: TraceSettings | None = None) -> TraceSettings:
        """
        *base* with what the ``PATRON_JAEGER_*`` variables say on top; an empty variable counts as absent.

        Raises:
            ConfigError: with one line for each variable that is wrong.
        """
        problems: list[str] = []
        changes: dict[str, Any] = {}
        for variable, (field, read) in _variables.items():
            text = environ.get(variable, "").strip()
            if text:
                try:
                    changes[field] = read(text)
                except ValueError as error:
                    problems.append(f"{variable}={text!r} is wrong: {error}")
        if problems:
            raise ConfigError(*problems)
        try:
            return replace(base or cls(), **changes)
        except ConfigError as error:
            raise ConfigError(*(_in_environment(problem, environ) for problem in error.problems)) from None


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise ValueError("use a port number from 1 to 65535")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("use a number, like 0.1") from None


def _sampler(text: str) -> str:
    if text not in _samplers:
        raise ValueError(f"use one of {', '.join(_samplers)}")
    return text


_variables: dict[str, tuple[str, Callable[[str], Any]]] = {
    "PATRON_JAEGER_AGENT_HOST": ("agent_host", str),
    "PATRON_JAEGER_AGENT_PORT": ("agent_port", _port),
    "PATRON_JAEGER_SAMPLER_TYPE": ("sampler_type", _sampler),
    "PATRON_JAEGER_SAMPLER_PARAM": ("sampler_param", _number),
}


def _problems(settings: TraceSettings) -> list[str]:
    unknown = [name for name in settings.propagation if name not in _formats]
    return [
        "" if settings.agent_host else "agent_host is empty: name the host of the Jaeger agent",
        ""
        if 1 <= settings.agent_port <= 65535
        else f"agent_port {settings.agent_port} is wrong: use a port number from 1 to 65535",
        _sampler_problem(settings.sampler_type, settings.sampler_param),
        f"propagation {unknown[0]!r} is unknown: use {' or '.join(_formats)}" if unknown else "",
        "" if settings.queue >= 1 else f"queue {settings.queue} is wrong: use 1 or more",
    ]


def _sampler_problem(kind: str, param: float) -> str:
    if kind not in _samplers:
        return f"sampler_type {kind!r} is unknown: use one of {', '.join(_samplers)}"
    if kind == "const" and param not in (0, 1):
        return f"sampler_param {param} is wrong: a const sampler takes 0 (none) or 1 (all)"
    if kind == "probabilistic" and not 0 <= param <= 1:
        return f"sampler_param {param} is wrong: a probabilistic sampler takes a share from 0.0 to 1.0"
    if not (math.isfinite(param) and param >= 0):
        return f"sampler_param {param} is wrong: a ratelimiting sampler takes traces per second, 0 or more"
    return ""


def _in_environment(problem: str, environ: Mapping[str, str]) -> str:
    """*problem* of a field, told with the variable that set it."""
    for variable, (field, _) in _variables.items():
        if problem.startswith(field) and environ.get(variable, "").strip():
            return f"{variable}={environ[variable]!r} is wrong: {problem.partition(': ')[2] or problem}"
    return problem


class LiveSpan(Protocol):
    """A sampled span that has not ended."""

    def tag(self, key: str, value: Any) -> None:
        """Set one tag."""
        ...

    def rename(self, name: str) -> None:
        """Give it another name."""
        ...

    def error(self, error: BaseException) -> None:
        """Note on the span what went wrong."""
        ...

    def finish(self, seconds: float) -> None:
        """End the span *seconds* after it began, and send it; never blocks, never raises."""
        ...


class Backend(Protocol):
    """Where sampled spans go. Every method may be called by every thread."""

    def sample(self, context: TraceContext, name: str) -> Mapping[str, Any] | None:
        """Decide about a new trace: the tags that tell why it is sampled, or None when it is not."""
        ...

    def begin(self, context: TraceContext, name: str, tags: Mapping[str, Any]) -> LiveSpan | None:
        """A live span that began now, None when there is no room for it."""
        ...

    def close(self, timeout: float) -> None:
        """Send what is queued, within *timeout* seconds, and end the thread."""
        ...


backend: Backend | None = None
"""Where sampled spans go now."""
starts_none = True
"""Whether no trace begins here; one that was sampled upstream is continued all the same."""
version = "dev"
"""The version of the service, a tag of every span."""
_writers: tuple[Callable[[TraceContext, dict[str, str]], None], ...] = (propagation.inject_jaeger,)
w3c_first = False


def start(name: str, service_version: str, settings: TraceSettings) -> None:
    """
    Use *settings* in this process. Opens and starts nothing: the sender's thread begins with the first span.

    Call it after the fork.
    """
    global version, _writers, w3c_first
    from importlib.util import find_spec

    version = service_version
    _writers = tuple(_formats[name] for name in settings.propagation)
    w3c_first = settings.propagation[:1] == ("w3c",)
    if find_spec("jaeger_client") is None:
        use_backend(None)
    else:
        from patron.observe.jaeger import JaegerBackend

        use_backend(JaegerBackend(name, settings))


def use_backend(chosen: Backend | None) -> Backend | None:
    """Send sampled spans to *chosen*; returns the backend before it, which is the caller's to close."""
    global backend, starts_none
    before, backend = backend, chosen
    starts_none = chosen is None or getattr(chosen, "never", False)
    return before


def stop(timeout: float) -> None:
    """Send what is queued, in at most *timeout* seconds, and go back to how it was before `start`."""
    global version, _writers, w3c_first
    version, _writers, w3c_first = "dev", (propagation.inject_jaeger,), False
    closing = use_backend(None)
    if closing is not None:
        closing.close(timeout)


def context_for(parent: TraceContext | None, name: str) -> tuple[TraceContext, Mapping[str, Any] | None]:
    """The context of a new operation under *parent*, and, for a sampled root, the tags that tell why."""
    if parent is not None:
        return propagation.child_of(parent), None
    context = propagation.new_root()
    tags = backend.sample(context, name) if backend is not None else None
    if tags is not None:
        context.flags = SAMPLED
    return context, tags


def inject(context: TraceContext, headers: dict[str, str]) -> None:
    """Write *context* in the chosen formats, with what is carried along."""
    for write in _writers:
        write(context, headers)
    if context.carried:
        for name, value in context.carried.headers().items():
            headers.setdefault(name, value)
