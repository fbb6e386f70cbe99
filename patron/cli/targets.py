"""Where the dead letters of a service are: one place for each of its consumers that has any."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from patron.consumer import Consumer, Source
    from patron.consumer.letters import Letters

__all__ = ["Target", "located", "target", "targets"]


@dataclass(frozen=True, slots=True)
class Target:
    """The dead letters of one consumer."""

    consumer: str
    source: Source
    topic: str

    def letters(self, patience: float) -> Letters:
        """Them, to be opened by ``with``."""
        from patron.consumer.letters import Letters
        from patron.errors import SourceError

        if self.source.system == "memory":
            raise SourceError(
                f"{self.topic} is a topic of the memory source: its letters are in the processes of the service, "
                f"and gone with them; look at them there, with memory_broker().messages({self.topic!r})"
            )
        return Letters(self.source, self.topic, patience=patience)


def located(*words: str | None) -> tuple[str, tuple[str, ...]]:
    """
    The configuration and the other arguments.

    With ``PATRON_CONFIG`` the first may be left out: then what stands there is no file and no ``module:service``.
    """
    given = [word for word in words if word is not None]
    from_environment = os.environ.get("PATRON_CONFIG")
    if from_environment and not (given and _is_config(given[0])):
        return from_environment, tuple(given)
    if not given:
        raise click.UsageError("Missing argument 'CONFIG'.", click.get_current_context())
    return given[0], tuple(given[1:])


def targets(config: str) -> list[Target]:
    """
    Those of the service that *config* describes.

    Raises:
        ConfigError: the configuration is wrong.
    """
    from patron.config import build
    from patron.consumer import Consumer

    consumers = [c for c in build(config).components if isinstance(c, Consumer)]
    return [found for consumer in consumers if (found := _target(consumer))]


def target(config: str, consumer: str) -> Target:
    """
    That of the consumer called *consumer*.

    Raises:
        ConfigError: there is no such consumer, or it has no dead letters.
    """
    from patron.config.names import did_you_mean
    from patron.errors import ConfigError

    found = {one.consumer: one for one in targets(config)}
    if consumer not in found:
        hint = did_you_mean(consumer, found) or f": there are {', '.join(found) or 'none'}"
        raise ConfigError(f"there is no consumer {consumer!r} with dead letters{hint}")
    return found[consumer]


def _target(consumer: Consumer) -> Target | None:
    topic = consumer.settings.dead_letter_topic(consumer.name)
    return Target(consumer.name, consumer.source, topic) if topic else None


def _is_config(word: str) -> bool:
    from patron.config.described import is_reference

    return Path(word).is_file() or is_reference(word)
