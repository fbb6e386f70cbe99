"""Reading one queue of RabbitMQ over one connection of its own."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from time import monotonic
from typing import Any

from patron.consumer.source import Message, Stats
from patron.errors import ConnectionLost, NotASource, Stale
from patron.sources._amqp_connection import ChannelClosed, Connection
from patron.sources._amqp_messages import Delivery, message_of
from patron.sources._amqp_tags import Tags

__all__ = ["AmqpSubscription"]

STATS_EVERY = 5.0
"""Seconds between two looks at the depth of the queue."""

MOST = 65535
"""The largest prefetch of AMQP."""

_generations = itertools.count(1)


class AmqpSubscription:
    """
    The queue *queue*, read over *connection*, which it owns. Every call but `wake` comes from one thread.

    Args:
        connection: open; closed by `close`.
        queue: what is read; it must exist.
        depth: how many messages wait there, as far as known.
        prefetch: how many unsettled messages the broker may push; None: as many as the first poll asks for, and more
            when a later one finds all of them unsettled.
        max_body: bytes that a compressed body may have when it is unpacked.
        exclusive: refuse to read beside another consumer.
        arguments: of the consumer, such as its priority.
        count_held: for letters: let `stats` count what was given out and not settled as waiting, and number those
            that have one message id, since nothing is given back to come again.
    """

    def __init__(
        self,
        connection: Connection,
        queue: str,
        depth: int,
        *,
        max_body: int,
        prefetch: int | None = None,
        exclusive: bool = False,
        arguments: dict[str, Any] | None = None,
        count_held: bool = False,
    ) -> None:
        self._connection = connection
        self._queue = queue
        self._depth: int | None = depth
        self._max_body = max_body
        self._fixed = prefetch
        self._exclusive = exclusive
        self._arguments = arguments
        self._count_held = count_held
        self._twins: Counter[str] = Counter()
        self._channel = connection.channel()
        self._channel.driver.add_on_cancel_callback(self._on_cancel)
        self._channel.deliver_to(self._on_delivery)
        self._looking = connection.channel()
        self._look_at = monotonic() + STATS_EVERY
        self._generation = next(_generations)
        self._consumer: str | None = None
        self._prefetch = 0
        self._starts = 0
        self._tags = Tags()
        self._pushed: deque[Message] = deque()
        self._back: list[int] = []
        self._later: list[tuple[float, int]] = []
        self._cancelled = False
        self._woken = False
        self._closed = False

    def poll(self, limit: int, timeout: float) -> Sequence[Message]:
        """Of what the broker has pushed, at most *limit*; waits for the first."""
        if limit > 0:
            self._consume(limit)
            self._give_back()
        self._return_due()
        pushed = self._pushed
        if not pushed or limit <= 0:
            self._wait(limit, timeout)
        self._check()
        return [pushed.popleft() for _ in range(min(limit, len(pushed)))]

    def ack(self, messages: Sequence[Message]) -> None:
        """
        Acknowledge *messages*: one frame for all that have nothing unsettled before them, one for each of the others.

        When it returns the frames are on their way; AMQP knows no answer to them.
        """
        held = len(self._tags)
        self._settle(messages, "basic_ack", {})
        if self._count_held and self._depth is not None:
            self._depth = max(0, self._depth - (held - len(self._tags)))

    def nack(self, messages: Sequence[Message], delay: float = 0.0) -> None:
        """
        Give *messages* back; with a *delay*, they stay here, unsettled, until it is over.

        RabbitMQ has no delay of its own; a message that waits here takes one place of the prefetch. It goes back at
        once when the connection ends. Without a delay, it goes back when the next poll wants something: a quorum
        queue puts what is given back behind everything else, but what is left at the end of a connection before it,
        in its old order (https://www.rabbitmq.com/docs/3.13/quorum-queues#repeated-requeues).
        """
        mine, stale = self._mine(messages)
        if delay <= 0:
            self._back += mine
            return _refuse(stale)
        due = monotonic() + delay
        for tag in mine:
            heappush(self._later, (due, tag))
        return _refuse(stale)

    def extend(self, messages: Sequence[Message]) -> None:
        """There are no leases: what is unsettled stays ours as long as the connection lives."""

    def stats(self) -> Stats:
        """The depth as it was at the last look, at most some seconds ago; never waits for the broker."""
        self._check()
        if monotonic() >= self._look_at:
            self._look()
        return Stats(assigned=1, lag=self._depth)

    def wake(self) -> None:
        """End the running poll, or else the next one, at once. Any thread may call it."""
        self._woken = True
        self._connection.wake()

    def close(self) -> None:
        """Close the connection; the broker gives everything that is not settled to others."""
        if not self._closed:
            self._closed = True
            self._channel.keep_consumers()
            self._connection.close()

    # Reading

    def _consume(self, limit: int) -> None:
        """Have as much pushed as *limit* needs."""
        if self._consumer is None:
            self._start(self._fixed or limit)
        elif self._fixed is None and not self._pushed and len(self._tags) >= self._prefetch < MOST:
            self._start(self._prefetch + limit)

    def _start(self, prefetch: int) -> None:
        self._prefetch = min(prefetch, MOST)
        self._starts += 1
        with self._channel.using() as driver:
            if self._consumer is not None:
                driver.basic_cancel(self._consumer, callback=_ignore)
            driver.basic_qos(prefetch_count=self._prefetch, callback=_ignore)
            self._consumer = driver.basic_consume(
                self._queue,
                _ignore,
                # In this order the broker gives back, at the end, what each consumer held.
                consumer_tag=f"patron-{self._starts:06}",
                exclusive=self._exclusive,
                arguments=self._arguments,
                callback=_ignore,
            )

    def _on_delivery(
        self, tag: int, redelivered: bool, exchange: str, routing_key: str, properties: bytes, body: bytes
    ) -> None:
        self._tags.give(tag)
        delivery = Delivery(tag, redelivered, exchange, routing_key, properties)
        message = message_of(delivery, body, self._queue, self._generation, self._max_body)
        if self._count_held:
            message.id = self._numbered(message.id)
        self._pushed.append(message)

    def _numbered(self, id_: str) -> str:
        """*id_*, with a number when another letter had it before: other programs put one in twice."""
        self._twins[id_] += 1
        return id_ if self._twins[id_] == 1 else f"{id_}~{self._twins[id_]}"

    def _on_cancel(self, frame: Any) -> None:
        self._cancelled = True

    def _wait(self, limit: int, timeout: float) -> None:
        end = monotonic() + timeout
        turn = self._connection.turn
        while True:
            left = end - monotonic()
            turn(0.0 if self._woken or left <= 0 else self._at_most(left))
            if (self._pushed and limit > 0) or self._woken or left <= 0:
                break
            self._check()
            self._return_due()
        self._woken = False

    def _at_most(self, seconds: float) -> float:
        """*seconds*, or less when something goes back before."""
        return min(seconds, max(0.0, self._later[0][0] - monotonic())) if self._later else seconds

    def _check(self) -> None:
        try:
            self._channel.check()
        except ChannelClosed as error:
            if error.refused:
                raise NotASource(f"RabbitMQ refuses to let queue {self._queue!r} be read: {error}") from error
            raise
        if self._cancelled:
            raise ConnectionLost(
                f"RabbitMQ cancelled the consumer: queue {self._queue!r} was deleted or has moved"
            )

    # Settling

    def _settle(self, messages: Sequence[Message], method: str, options: dict[str, Any]) -> None:
        mine, stale = self._mine(messages)
        self._send(mine, method, options)
        _refuse(stale)

    def _send(self, tags: Sequence[int], method: str, options: dict[str, Any]) -> None:
        upto, single = self._tags.settle(tags)
        with self._channel.using() as driver:
            send: Callable[..., None] = getattr(driver, method)
            if upto:
                send(upto, multiple=True, **options)
            for tag in single:
                send(tag, **options)
        self._connection.turn(0.0)
        self._check()

    def _mine(self, messages: Sequence[Message]) -> tuple[list[int], list[Message]]:
        """The delivery tags of those that came over this connection, and the others."""
        generation = self._generation
        mine = [message.raw.delivery_tag for message in messages if message.generation == generation]
        if len(mine) == len(messages):
            return mine, []
        return mine, [message for message in messages if message.generation != generation]

    def _give_back(self) -> None:
        if self._back:
            back, self._back = self._back, []
            self._send(back, "basic_nack", {"requeue": True})

    def _return_due(self) -> None:
        later = self._later
        if later and later[0][0] <= monotonic():
            due = []
            while later and later[0][0] <= monotonic():
                due.append(heappop(later)[1])
            self._send(due, "basic_nack", {"requeue": True})

    # Looking

    def _look(self) -> None:
        """Ask for the depth, on a channel of its own, for a refusal closes it; a later turn brings the answer."""
        self._look_at = monotonic() + STATS_EVERY
        try:
            if self._looking.closed:
                self._looking = self._connection.channel()
            with self._looking.using() as driver:
                driver.queue_declare(self._queue, passive=True, callback=self._on_depth)
        except ChannelClosed:
            self._depth = None

    def _on_depth(self, frame: Any) -> None:
        self._depth = frame.method.message_count + (len(self._tags) if self._count_held else 0)


def _refuse(stale: list[Message]) -> None:
    if stale:
        raise Stale("these came over a connection that is gone", messages=stale)


def _ignore(frame: Any) -> None:
    """The answer is known."""
