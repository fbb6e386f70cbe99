"""The consumer: the component that reads a source and calls a processor."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, Unpack

from patron import resources
from patron.component import Stop, Verdict, Work
from patron.consumer.engine import Engine
from patron.consumer.settings import Batch, ConsumerSettings, OnExhausted, Order, Readiness
from patron.consumer.source import Source
from patron.errors import ConfigError
from patron.reliability.retry import RetryPolicy

__all__ = ["Consumer"]


_CREATED: Mapping[str, Any] = {
    "state": "created",
    "connected": False,
    "assigned": 0,
    "caught_up": False,
    "lag": None,
    "held": 0,
    "in_flight": 0,
    "trouble": None,
}


class _Changes(TypedDict, total=False):
    """The settings as keywords; see `ConsumerSettings`."""

    workers: int
    prefetch: int | None
    retry: RetryPolicy
    max_deliveries: int
    dead_letters: str | None
    on_exhausted: OnExhausted | None
    batch: Batch | None
    order: Order
    decode_as: str | None
    readiness: Readiness
    on_caught_up: Callable[..., object] | None
    max_poll_age: float
    max_lag: int | None
    reconnect: RetryPolicy
    revoke_wait: float


class Consumer:
    """
    A component that reads *source* and calls *processor* with each message.

    The processor returns, and the message is acknowledged; or it raises, and the failure policy of
    the *settings* decides (see docs/consumers.md). Its further parameters are filled with the
    service's resources of the same names. Settings may also be given, or changed, as keywords::

        Consumer("orders", MemorySource("orders"), process, workers=4)

    It is a description, made before the fork: what is live begins in `run`.

    Raises:
        ConfigError: with one line for each setting that is wrong.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        processor: Callable[..., Any],
        settings: ConsumerSettings | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        **changes: Unpack[_Changes],
    ) -> None:
        self.name = name
        self.source = source
        self.processor = processor
        self._clock = clock
        self._now = now
        self._engine: Engine | None = None
        problems = [*_problems(name, source, processor)]
        try:
            self.settings = _settings(settings, changes)
        except ConfigError as error:
            problems += error.problems
        if problems:
            raise ConfigError(*(f"consumer {name!r}: {problem}" for problem in problems))

    def run(self, stop: Stop) -> None:
        """Consume until *stop* is set; see `patron.component.Component.run` and `Engine.run`."""
        process = resources.bind(self.processor)
        told = self.settings.on_caught_up
        engine = Engine(
            self.name,
            self.source,
            process,
            self.settings,
            clock=self._clock,
            now=self._now,
            on_caught_up=None if told is None else resources.bind(told, given=0),
        )
        self._engine = engine
        engine.run(stop)

    def info(self) -> Mapping[str, Any]:
        """Type, settings and state."""
        settings = self.settings
        described = {
            "type": "consumer",
            "name": self.name,
            "system": self.source.system,
            "target": self.source.target,
            "processor": _name(self.processor),
            "workers": settings.workers,
            "prefetch": settings.held,
            "order": settings.order,
            "attempts": settings.retry.attempts,
            "max_deliveries": settings.max_deliveries,
            "dead_letters": settings.dead_letter_topic(self.name),
            "on_exhausted": settings.outcome,
            "readiness": settings.readiness,
        }
        if settings.batch is not None:
            described["batch"] = dataclasses.asdict(settings.batch)
        return {**described, **(self._engine.info() if self._engine else _CREATED)}

    def ready(self) -> Verdict:
        """Not before the first assignment; afterwards as ``readiness`` says."""
        engine = self._engine
        return engine.verdict() if engine else Verdict(False, ("is not running",))

    def in_flight(self) -> Sequence[Work]:
        """The messages that its workers have."""
        engine = self._engine
        return engine.in_flight() if engine else ()

    def __repr__(self) -> str:
        return f"Consumer({self.name!r}, {self.source!r}, {_name(self.processor)})"


def _settings(settings: ConsumerSettings | None, changes: _Changes) -> ConsumerSettings:
    if settings is None:
        known = {field.name for field in dataclasses.fields(ConsumerSettings)}
        unknown = sorted(set(changes) - known)
        if unknown:
            raise ConfigError(
                f"there is no setting {', '.join(unknown)}: there are {', '.join(sorted(known))}"
            )
        return ConsumerSettings(**changes)
    return dataclasses.replace(settings, **changes) if changes else settings


def _problems(name: str, source: Source, processor: Callable[..., Any]) -> list[str]:
    checks = [
        (
            not isinstance(name, str) or not name.strip(),
            "name is empty: it names its threads, metrics and dead letters",
        ),
        (not isinstance(source, Source), f"source is {source!r}: use a source, as MemorySource('orders')"),
        (not callable(processor), f"processor is {processor!r}: use a function that takes a message"),
    ]
    return [text for wrong, text in checks if wrong]


def _name(function: Any) -> str:
    return f"{getattr(function, '__module__', '?')}:{getattr(function, '__qualname__', type(function).__qualname__)}"
