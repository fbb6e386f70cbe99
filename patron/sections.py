"""What a feature folder tells the configuration about itself: one `Section` in its ``section.py``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from patron.component import Component

__all__ = ["Section"]


@dataclass(frozen=True, slots=True)
class Section:
    """
    A top-level key of the configuration file.

    *settings* is the frozen dataclass that its value is checked against; with *many* the value is a
    list of them. *components* makes the components that the settings ask for, if any. *env* maps
    ``PATRON_*`` variables to field names.
    """

    name: str
    settings: type[Any]
    summary: str
    many: bool = False
    components: Callable[[Any], Sequence[Component]] | None = None
    env: tuple[tuple[str, str], ...] = ()
