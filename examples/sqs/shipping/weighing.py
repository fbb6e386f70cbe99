"""What is done with a parcel."""

from __future__ import annotations

from dataclasses import dataclass

from patron.consumer import Message
from patron.errors import Reject

__all__ = ["Announced", "Parcel", "Scale", "weigh"]

HEAVIEST = 30_000


@dataclass(frozen=True)
class Parcel:
    """What a sender says about it."""

    sender: str
    grams: int


@dataclass(frozen=True)
class Announced(Parcel):
    """A parcel on its way through the topic."""

    id: str


class Scale:
    """What was weighed by this process. Any thread may use it."""

    def __init__(self) -> None:
        self.weighed: dict[str, str] = {}


def weigh(message: Message, scale: Scale) -> None:
    """Put the parcel into a class; one that nobody can lift is a dead letter with that reason."""
    parcel = message.decode(Announced)
    if parcel.grams > HEAVIEST:
        raise Reject(f"{parcel.grams} g: nobody can lift that")
    scale.weighed[parcel.id] = "letter" if parcel.grams < 1000 else "parcel"
