"""Collects every mistake with its place, so that one run reports all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from patron.config.secrets import HIDDEN
from patron.errors import ConfigError, MissingExtra

__all__ = ["Place", "Problems"]


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a value stands: a file with line and column (from 1), or an environment variable."""

    origin: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.origin}:{self.line}:{self.column}" if self.line else self.origin


@dataclass(slots=True)
class Problems:
    """The mistakes found so far; warnings stop nothing."""

    _found: dict[tuple[Place, str, str], None] = field(default_factory=dict)
    _warnings: dict[tuple[Place, str, str], None] = field(default_factory=dict)
    _secrets: set[str] = field(default_factory=set)

    def hide(self, secret: str) -> None:
        """Let *secret* stand in no message; what is too short to be one would only blot the others."""
        if len(secret) > 3:
            self._secrets.add(secret)

    def add(self, place: Place, path: str, message: str) -> None:
        """Note one mistake; the same one twice is noted once."""
        self._found.setdefault((place, path, message))

    def warn(self, place: Place, path: str, message: str) -> None:
        """Note what is allowed and probably not meant."""
        self._warnings.setdefault((place, path, message))

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for each warning."""
        return tuple(self._line(*warning) for warning in self._warnings)

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[str]:
        return (self._line(*problem) for problem in sorted(self._found))

    def raise_if_any(self) -> None:
        """
        End the reading when there was a mistake.

        Raises:
            ConfigError: with one line for each mistake, in the order of the file.
        """
        if self._found:
            raise ConfigError(*self)

    @contextmanager
    def at(self, place: Place, path: str) -> Iterator[None]:
        """Note what is raised inside as mistakes at this place."""
        try:
            yield
        except ConfigError as error:
            for problem in error.problems or (str(error),):
                self.add(place, path, problem)
        except (MissingExtra, ValueError, TypeError) as error:
            self.add(place, path, str(error) or type(error).__name__)

    def _line(self, place: Place, path: str, message: str) -> str:
        for secret in self._secrets:
            message = message.replace(secret, HIDDEN)
        return f"{place}: {message}" if path in ("", place.origin) else f"{place}: {path}: {message}"
