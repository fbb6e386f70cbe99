"""A service as a user writes it; never run, only checked by mypy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import assert_type

from patron import (
    Batch,
    Component,
    ConfigError,
    Consumer,
    HttpSettings,
    MemorySource,
    Message,
    Periodic,
    ProcessSettings,
    Request,
    Response,
    RestartPolicy,
    RetryPolicy,
    Route,
    Service,
    SqliteSource,
    Stop,
    Verdict,
    span,
    traced,
)
from patron.errors import NotFound, Reject
from patron.observe import log


@dataclass(frozen=True)
class Order:
    customer: str
    quantity: int


class Database:
    def orders_of(self, customer: str) -> list[Order]:
        return []

    def close(self) -> None: ...


def open_database() -> Iterator[Database]:
    yield Database()


def place(request: Request, db: Database) -> Response:
    order = request.decode(Order)
    assert_type(order, Order)
    return Response({"placed": order.quantity}, status=202, headers={"X-Customer": order.customer})


def show(request: Request, db: Database) -> list[Order]:
    found = db.orders_of(request.fields["customer"])
    if not found:
        raise NotFound({"error": "no orders"})
    return found


def process(message: Message, db: Database) -> None:
    order = message.decode(Order)
    assert_type(order, Order)
    if order.quantity > 100:
        raise Reject("more than we have")
    with span("store"):
        log.info("order processed", customer=order.customer)


def process_many(messages: Sequence[Message]) -> None:
    log.info("batch", count=len(messages))


@traced
def clean(db: Database) -> None: ...


class Poller:
    """A component of the user's own."""

    name = "poller"

    def run(self, stop: Stop) -> None:
        while not stop.wait(1.0):
            pass

    def ready(self) -> Verdict:
        return Verdict(True)


def build() -> Service:
    poller: Component = Poller()
    try:
        return Service(
            "shop",
            "1.0.0",
            routes=[Route("POST", "/orders", place), Route("GET", "/orders/<customer>", show)],
            components=[
                Consumer("orders", SqliteSource(path="shop.db", topic="orders"), process, workers=4),
                Consumer(
                    "mails",
                    MemorySource(topic="mails"),
                    process_many,
                    batch=Batch(size=100, wait=0.5),
                    retry=RetryPolicy(attempts=5),
                ),
                Periodic("clean", clean, every=60.0),
                poller,
            ],
            resources={"db": open_database},
            http=HttpSettings(port=8080, threads=16),
            process=ProcessSettings(workers=2, grace=20.0),
            restart={"poller": RestartPolicy(limit=3)},
        )
    except ConfigError as error:
        assert_type(error.problems, tuple[str, ...])
        raise


check: Callable[[], Service] = build
