"""
Metrics as typed definitions, which become Prometheus metrics when they are first used.

A definition (`Counter`, `Gauge`, `Histogram`) is a constant of its module: making one creates
nothing. `bind` gives the Prometheus child for one set of labels; hold on to it, for looking it up
costs more than counting.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from patron.errors import ConfigError

if TYPE_CHECKING:
    import prometheus_client
    from prometheus_client import CollectorRegistry

    from patron.observe.slotfiles import SlotFiles

__all__ = [
    "BUCKETS",
    "Counter",
    "Gauge",
    "Histogram",
    "MetricSet",
    "all_definitions",
    "exposition",
    "forget",
    "reset",
    "shared",
    "start",
]

# What every Prometheus since 2014 reads; names are in the classic character set anyway.
_content_type = "text/plain; version=0.0.4; charset=utf-8"

_variable = "PROMETHEUS_MULTIPROC_DIR"

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Upper bounds in seconds, as every Prometheus client has them by default."""

Across = Literal["livesum", "livemax", "livemin", "liveall", "livemostrecent"]

# Guards `_families` and `_children`, and the change from one mode to another.
_lock = threading.Lock()
_families: dict[str, tuple[Definition, Any]] = {}
_children: dict[tuple[Definition, tuple[str, ...]], Any] = {}
_directory: Path | None = None
_slot: int | None = None
_value_class_before: Any = None
_variable_before: str | None = None
_files: SlotFiles | None = None
epoch = 0
"""Grows whenever the children that were bound so far are of no use any more."""


@dataclass(frozen=True)
class Definition:
    """What all kinds have in common: *name*, *help* (one sentence) and the names of the *labels*."""

    name: str
    help: str
    labels: tuple[str, ...] = ()

    kind: ClassVar[str] = ""

    def __post_init__(self) -> None:
        if not self.help:
            raise ConfigError(f"metric {self.name} has no help: say in one sentence what it counts")

    def bind_values(self, values: tuple[str, ...]) -> Any:
        """The child for the label *values*, in the order of ``labels``; made once, then remembered."""
        child = _children.get((self, values))
        return child if child is not None else _make_child(self, values)

    def _bind(self, labels: dict[str, Any]) -> Any:
        if len(labels) != len(self.labels) or any(name not in labels for name in self.labels):
            raise ConfigError(
                f"metric {self.name} has the labels ({', '.join(self.labels)}), not ({', '.join(labels)})"
            )
        return self.bind_values(tuple(str(labels[name]) for name in self.labels))

    def create(self) -> Any:
        """The Prometheus metric itself."""
        raise NotImplementedError


@dataclass(frozen=True)
class Counter(Definition):
    """Something that only grows; its name ends with ``_total``."""

    kind: ClassVar[str] = "counter"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name.endswith("_total"):
            raise ConfigError(f"counter {self.name} must be called {self.name}_total")

    def bind(self, **labels: Any) -> prometheus_client.Counter:
        """The child for these labels, with ``inc(amount=1)``."""
        child: prometheus_client.Counter = self._bind(labels)
        return child

    def create(self) -> Any:
        """The Prometheus metric itself."""
        import prometheus_client

        return prometheus_client.Counter(self.name, self.help, self.labels)


@dataclass(frozen=True)
class Gauge(Definition):
    """
    Something that goes up and down.

    *across* tells what the page shows for several worker processes: the sum, the largest, the
    smallest, the one set last, or one series for each (label ``pid``, which holds the slot).
    """

    across: Across = "livesum"

    kind: ClassVar[str] = "gauge"

    def bind(self, **labels: Any) -> prometheus_client.Gauge:
        """The child for these labels, with ``set(value)``, ``inc(amount=1)`` and ``dec(amount=1)``."""
        child: prometheus_client.Gauge = self._bind(labels)
        return child

    def create(self) -> Any:
        """The Prometheus metric itself."""
        import prometheus_client

        return prometheus_client.Gauge(self.name, self.help, self.labels, multiprocess_mode=self.across)


@dataclass(frozen=True)
class Histogram(Definition):
    """How values spread; durations are in seconds and the name ends with ``_seconds``."""

    buckets: tuple[float, ...] = BUCKETS

    kind: ClassVar[str] = "histogram"

    def bind(self, **labels: Any) -> prometheus_client.Histogram:
        """The child for these labels, with ``observe(value)``."""
        child: prometheus_client.Histogram = self._bind(labels)
        return child

    def create(self) -> Any:
        """The Prometheus metric itself."""
        import prometheus_client

        return prometheus_client.Histogram(self.name, self.help, self.labels, buckets=self.buckets)


@dataclass(frozen=True)
class MetricSet:
    """
    What an operation feeds when it ends.

    Both have the same labels, one of which, *outcome_label*, gets the operation's outcome. The
    counter grows by the operation's count, the histogram sees its duration in seconds once.
    """

    counter: Counter | None
    histogram: Histogram | None
    outcome_label: str

    def __post_init__(self) -> None:
        for definition in (self.counter, self.histogram):
            if definition is not None and self.outcome_label not in definition.labels:
                raise ConfigError(
                    f"metric {definition.name} has no label {self.outcome_label!r} for the outcome"
                )


def start(slot: int = 0, directory: Path | None = None) -> None:
    """
    Count in this process from now on.

    With a *directory* the values live in the files of *slot* in it, which no other live process may
    use, and `exposition` shows the sum over all slots; a slot that is used again goes on counting
    where it ended. Without one this process stands alone. Call it in the worker after the fork and
    before anything is bound; a second call with other arguments makes children bound earlier useless.
    """
    global _directory, _slot
    import prometheus_client

    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    if (directory, slot if directory else None) == (_directory, _slot):
        return
    reset()
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        _use_files(slot, directory)
        _directory, _slot = directory, slot


def reset() -> None:
    """Forget what was bound and counted by our definitions, and go back to one process; for tests."""
    global _directory, _slot, epoch
    import prometheus_client

    with _lock:
        for _, family in _families.values():
            prometheus_client.REGISTRY.unregister(family)
        _families.clear()
        _children.clear()
        epoch += 1
        if _directory is not None:
            _leave_files()
        _directory = _slot = None


def exposition() -> tuple[bytes, str]:
    """
    The page for Prometheus, and its content type.

    It shows our metrics and the user's own ones of the default registry, over all slots when there
    are several processes. Where `start` was given no directory, ``PROMETHEUS_MULTIPROC_DIR`` counts
    as it does for the Prometheus client itself: it is there when that is imported, or not at all.
    Any thread may call it; it reads files and takes some milliseconds.
    """
    from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

    if _directory is None:
        return generate_latest(_shared() if shared() else REGISTRY), _content_type
    from patron.observe.slotfiles import SlotCollector

    registry = CollectorRegistry()
    registry.register(SlotCollector(_directory))
    return generate_latest(registry), _content_type


def shared() -> bool:
    """Whether `exposition` shows every process that serves, not this one only."""
    from prometheus_client import values

    return bool(getattr(values.ValueClass, "_multiprocess", False))


def _shared() -> CollectorRegistry:
    """The processes that write into ``PROMETHEUS_MULTIPROC_DIR``, under a server that is not ours."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


def forget(slot: int, directory: Path) -> None:
    """
    Drop the gauges of a process that died; its counters and histograms stay, for they did happen.

    The parent calls it when the child is reaped, before it gives the slot to another one.
    """
    for path in directory.glob(f"gauge_live*_{slot}.db"):
        path.unlink(missing_ok=True)


def all_definitions() -> tuple[Definition, ...]:
    """The definitions that were used so far, by name."""
    with _lock:
        return tuple(_families[name][0] for name in sorted(_families))


def _make_child(definition: Definition, values: tuple[str, ...]) -> Any:
    with _lock:
        family = _family(definition)
        child = family.labels(*values) if definition.labels else family
        return _children.setdefault((definition, values), child)


def _family(definition: Definition) -> Any:
    known, family = _families.get(definition.name, (definition, None))
    if known != definition:
        raise ConfigError(
            f"metric {definition.name} is defined twice, differently: import one definition in both places"
        )
    if family is None:
        family = definition.create()
        _families[definition.name] = (definition, family)
    return family


def _use_files(slot: int, directory: Path) -> None:
    """
    Let every Prometheus metric that is made from now on keep its values in the files of *slot*.

    `prometheus_client` decides this when it is imported, by the environment; but its metrics look
    `values.ValueClass` up when they are made, so it can be decided later, too. The variable is set
    as well, for the code of the user that looks at it.
    """
    global _files, _value_class_before, _variable_before
    from prometheus_client import REGISTRY, values

    from patron.observe.adopting import adopt
    from patron.observe.slotfiles import SlotFiles

    _files = SlotFiles(slot, directory)
    _value_class_before = values.ValueClass
    values.ValueClass = _files.value_class()
    _variable_before = os.environ.get(_variable)
    os.environ[_variable] = str(directory)
    adopt(REGISTRY)


def _leave_files() -> None:
    global _files
    from prometheus_client import values

    values.ValueClass = _value_class_before
    os.environ.pop(_variable, None)
    if _variable_before is not None:
        os.environ[_variable] = _variable_before
    if _files is not None:
        _files.close()
        _files = None
