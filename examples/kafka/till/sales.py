"""Sales: how they are made, and what two groups of readers make of them."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from patron import Request
from patron.clients.kafka import KafkaProducer
from patron.consumer import Message
from patron.errors import Reject
from patron.observe import log

__all__ = ["Sale", "book", "index", "sell", "takings"]

TOPIC = f"{os.environ.get('TILL_NAME', 'till')}.sales"

_takings: Counter[str] = Counter()
_lock = threading.Lock()  # guards the takings


@dataclass(frozen=True, slots=True)
class Sale:
    """What was sold for how much, in which shop."""

    id: str
    shop: str
    cents: int


def sell(request: Request, events: KafkaProducer) -> dict[str, int]:
    """Sell something: 201 means that Kafka keeps the sale. Sales of one shop stay in order."""
    sale = request.decode(Sale)
    kept = events.send(TOPIC, sale, key=sale.shop)
    return {"partition": kept.partition, "offset": kept.offset}


def takings(request: Request) -> dict[str, int]:
    """What a shop has taken, as far as this process has read."""
    with _lock:
        return {"cents": _takings[request.fields["shop"]]}


def book(message: Message) -> None:
    """Add a sale to the takings of its shop."""
    sale = message.decode(Sale)
    if sale.cents <= 0:
        raise Reject(f"a sale of {sale.cents} cents is none")
    with _lock:
        _takings[sale.shop] += sale.cents
    log.info("sale booked", sale=sale.id, shop=sale.shop, position=message.position)


def index(messages: Sequence[Message]) -> None:
    """Put sales into the index, many at once."""
    sales = [message.decode(Sale) for message in messages]
    log.info("sales indexed", count=len(sales), shops=sorted({sale.shop for sale in sales}))
