"""What happens to an order after it was accepted."""

from __future__ import annotations

from patron.consumer import Message
from patron.observe import log
from shop.orders import PlacedOrder
from shop.store import Store

__all__ = ["process_order"]

POISON = "POISON"


def process_order(message: Message, store: Store) -> None:
    """
    Process one order; orders of one customer come one after the other.

    It may be called twice for the same order, as after a crash between the work and its
    acknowledgement, so what it writes is the same each time.
    """
    placed = message.decode(PlacedOrder)
    if any(item.sku == POISON for item in placed.order.items):
        store.mark_rejected(placed.id)
        raise ValueError(f"order {placed.id} has the sku {POISON}")
    store.mark_processed(placed.id)
    log.info("order processed", order=placed.id, customer=placed.order.customer)
