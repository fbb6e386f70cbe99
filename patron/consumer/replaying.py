"""Publishing dead letters again: a crash between publishing one and removing it is a duplicate, no loss."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from patron.consumer.deadletters import iso
from patron.consumer.letters import Letter, Letters, Selection
from patron.errors import PatronError

__all__ = ["Replayed", "replay"]


@dataclass(frozen=True, slots=True)
class Replayed:
    """
    What became of one letter.

    ``replayed``: published and removed. ``failed``: not published, so it is still a dead letter.
    ``twice``: published, but it is still a dead letter too.
    """

    letter: Letter
    topic: str
    outcome: Literal["replayed", "failed", "twice"]
    error: PatronError | None = None


def replay(
    letters: Letters,
    selection: Selection,
    *,
    otherwise: str,
    to: str | None = None,
    now: Callable[[], float] = time.time,
) -> Iterator[Replayed]:
    """
    Publish those of *letters* that are meant to *to*, or to the topic that each came from.

    One that failed again since this began is left alone, so that it ends.

    Args:
        letters: open.
        selection: which of them.
        otherwise: the topic for letters that do not say where they came from.
        to: the topic for all of them.
        now: the time, in seconds since the epoch.

    Raises:
        SourceError: the letters cannot be read any more.
    """
    began = iso(now())
    untouched = (letter for letter in letters if (letter.about("replayed") or "") < began)
    for letter in selection.of(untouched):
        yield _replayed(letters, letter, to or letter.origin or otherwise)


def _replayed(letters: Letters, letter: Letter, topic: str) -> Replayed:
    try:
        letters.publish(letter, topic)
    except PatronError as error:
        return Replayed(letter, topic, "failed", error)
    try:
        letters.remove([letter])
    except PatronError as error:
        return Replayed(letter, topic, "twice", error)
    return Replayed(letter, topic, "replayed")
