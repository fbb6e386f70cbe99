"""Every value of a configuration with its source, for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from patron.config.reading import Entry
from patron.config.secrets import HIDDEN, without_password

__all__ = ["rows", "shown"]


def rows(entries: Iterable[Entry]) -> Iterator[Mapping[str, str]]:
    """``key``, ``value`` and ``source`` of each of *entries*; what is secret is hidden."""
    for entry in entries:
        value = HIDDEN if entry.secret and _can_be_secret(entry.value) else shown(entry.value)
        yield {"key": entry.path, "value": value, "source": entry.origin}


def _can_be_secret(value: Any) -> bool:
    """Whether *value* says something that nobody can guess: a switch such as ``credentials: true`` does not."""
    return value not in (None, "") and not isinstance(value, bool)


def shown(value: Any) -> str:
    """A value as it would stand in the file."""
    if isinstance(value, str) and value.isprintable() and value.strip() == value != "":
        return without_password(value)
    return without_password(json.dumps(value, default=_named, ensure_ascii=False))


def _named(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=str)
    return (
        f"{value.__module__}:{value.__qualname__}"
        if callable(value) and hasattr(value, "__qualname__")
        else str(value)
    )
