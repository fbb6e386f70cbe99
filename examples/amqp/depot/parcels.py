"""Parcels: how they are taken in, and what happens to them then."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from patron import Request
from patron.clients.amqp import AmqpPublisher
from patron.consumer import Message
from patron.errors import Reject
from patron.observe import log

__all__ = ["Parcel", "declare", "print_label", "take_in"]

EXCHANGE = f"{os.environ.get('DEPOT_NAME', 'depot')}.parcels"


@dataclass(frozen=True, slots=True)
class Parcel:
    """What is sent, and the country where it goes."""

    id: str
    country: Annotated[str, Field(pattern="^[A-Z]{2}$")]


def take_in(request: Request, events: AmqpPublisher) -> dict[str, str]:
    """Take a parcel in: 201 means that the broker keeps the event in every queue that wants it."""
    parcel = request.decode(Parcel)
    return {"event": events.publish(EXCHANGE, f"parcel.{parcel.country}", parcel)}


def print_label(message: Message) -> None:
    """Print the label of a parcel; none goes to where nobody lives."""
    parcel = message.decode(Parcel)
    if parcel.country == "AQ":
        raise Reject("nobody delivers to Antarctica")
    log.info("label printed", parcel=parcel.id, deliveries=message.deliveries)


def declare(message: Message) -> None:
    """Declare a parcel at customs."""
    log.info("parcel declared", parcel=message.decode(Parcel).id, country=message.key)
