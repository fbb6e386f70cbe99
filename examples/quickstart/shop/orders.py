"""What a product and an order are; `Request.decode` and `Message.decode` check orders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

__all__ = ["Item", "Order", "PlacedOrder", "Product"]

Name = Annotated[str, Field(min_length=1, max_length=100)]


@dataclass(frozen=True, slots=True)
class Item:
    """One line of an order."""

    sku: Name
    quantity: Annotated[int, Field(ge=1, le=1000)]


@dataclass(frozen=True, slots=True)
class Order:
    """What a client sends."""

    customer: Name
    items: Annotated[list[Item], Field(min_length=1, max_length=100)]


@dataclass(frozen=True, slots=True)
class PlacedOrder:
    """What the consumer gets."""

    id: str
    order: Order


@dataclass(frozen=True, slots=True)
class Product:
    """What the shop sells; its id is the sku of an order's item."""

    id: str
    name: str
    cents: int
