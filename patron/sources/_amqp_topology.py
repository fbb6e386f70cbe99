"""What is there on the broker: checking it, and making it where that is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from patron.errors import NotASource
from patron.sources._amqp_connection import ChannelClosed, Connection

__all__ = ["Topology"]

_NOT_FOUND, _PRECONDITION = 404, 406


@dataclass(frozen=True)
class Topology:
    """
    How queues and exchanges are made, if they are.

    Args:
        create: make what is missing; else only look.
        queue_type: ``quorum`` or ``classic``.
        arguments: of new queues, beside the type.
    """

    create: bool = False
    queue_type: str = "quorum"
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def queue(self, connection: Connection, name: str, more: Mapping[str, Any] | None = None) -> int:
        """
        Make sure that queue *name* is there, whatever its type; returns how many messages wait in it.

        Raises:
            NotASource: it is missing or may not be used. ConnectionLost: it cannot be told now.
        """
        found = self._passive(connection, "queue_declare", f"queue {name!r}", queue=name)
        if found is None:
            arguments = {**self._type(connection), **self.arguments, **(more or {})}
            found = self._declare(
                connection, "queue_declare", f"queue {name!r}", queue=name, durable=True, arguments=arguments
            )
        return int(found.message_count)

    def exchange(
        self, connection: Connection, name: str, kind: str, queue: str, bindings: Sequence[str]
    ) -> None:
        """Make sure that exchange *name* is there; with `create`, also that *queue* is bound to it."""
        what = f"exchange {name!r}"
        if self._passive(connection, "exchange_declare", what, exchange=name) is None:
            self._declare(
                connection, "exchange_declare", what, exchange=name, exchange_type=kind, durable=True
            )
        if self.create:
            for key in bindings:
                self._declare(connection, "queue_bind", what, queue=queue, exchange=name, routing_key=key)

    def _passive(self, connection: Connection, method: str, what: str, **names: str) -> Any:
        """What the broker says of it; None when it is missing and shall be made."""
        try:
            return connection.channel().call(method, passive=True, **names)
        except ChannelClosed as error:
            # "home node ... is down or inaccessible" is a 404, too, and passes.
            if error.code == _NOT_FOUND and "is down" not in str(error):
                if self.create:
                    return None
                raise NotASource(
                    f"{what} is not there on RabbitMQ at {connection.address.shown}: "
                    "make it, or let Patron do so with `create: true`"
                ) from error
            raise _permanent(error, what) from error

    def _declare(self, connection: Connection, method: str, what: str, **arguments: Any) -> Any:
        try:
            return connection.channel().call(method, **arguments)
        except ChannelClosed as error:
            raise _permanent(error, what) from error

    def _type(self, connection: Connection) -> dict[str, Any]:
        if self.queue_type == "classic":
            return {"x-queue-type": "classic"}
        # Since 4.0 a quorum queue drops what was delivered more than 20 times; how often is for max_deliveries to say.
        unlimited = {"x-delivery-limit": -1} if connection.version >= (4,) else {}
        return {"x-queue-type": "quorum", **unlimited}


def _permanent(error: ChannelClosed, what: str) -> Exception:
    """The error for a refusal: `NotASource` where no new attempt can help."""
    if error.refused or error.code == _PRECONDITION:
        return NotASource(f"RabbitMQ refuses {what}: {error}")
    return error
