"""What the service answers over HTTP."""

from __future__ import annotations

import uuid

from patron import Request
from patron.clients import SnsPublisher
from patron.errors import NotFound
from shipping.weighing import Parcel, Scale

__all__ = ["announce", "show"]


def announce(request: Request, parcels: SnsPublisher) -> dict[str, str]:
    """Tell everybody who has subscribed; 201 means that SNS has confirmed."""
    parcel = request.decode(Parcel)
    identifier = uuid.uuid4().hex
    parcels.publish(
        {"id": identifier, "sender": parcel.sender, "grams": parcel.grams},
        attributes={"grams": parcel.grams},
    )
    return {"id": identifier}


def show(request: Request, scale: Scale) -> dict[str, object]:
    """What it weighs, once it was weighed."""
    identifier = request.fields["id"]
    if identifier not in scale.weighed:
        raise NotFound({"error": f"parcel {identifier} was not weighed"})
    return {"id": identifier, "class": scale.weighed[identifier]}
