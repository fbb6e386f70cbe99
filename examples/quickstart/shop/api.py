"""What the shop answers over HTTP."""

from __future__ import annotations

import uuid
from typing import Any

from patron import Request
from patron.errors import NotFound
from shop.orders import Order, PlacedOrder, Product
from shop.store import Store

__all__ = ["list_dead_letters", "list_products", "place_order", "show_order", "show_product"]


def list_products(request: Request, store: Store) -> list[Product]:
    """Everything that the shop sells. The configuration says for how long the answer is kept."""
    return store.products()


def show_product(request: Request, store: Store) -> Product:
    """One product."""
    product_id = request.fields["id"]
    product = store.product(product_id)
    if product is None:
        raise NotFound({"error": f"there is no product {product_id}"})
    return product


def place_order(request: Request, store: Store) -> dict[str, str]:
    """Take an order: 201 means that it is kept and will be processed."""
    placed = PlacedOrder(uuid.uuid4().hex, request.decode(Order))
    store.place(placed)
    return {"id": placed.id, "status": "accepted"}


def show_order(request: Request, store: Store) -> dict[str, str]:
    """What became of an order; any worker process can tell."""
    order_id = request.fields["id"]
    status = store.status(order_id)
    if status is None:
        raise NotFound({"error": f"there is no order {order_id}"})
    return {"id": order_id, "status": status}


def list_dead_letters(request: Request, store: Store) -> dict[str, Any]:
    """The orders that could not be processed, with the reason."""
    letters = store.dead_letters(limit=100)
    return {"dead_letters": [{"id": m.id, "headers": dict(m.headers), "order": m.decode()} for m in letters]}
