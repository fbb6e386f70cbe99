"""Reading a queue: leases that are held, extended, given back, and lost."""

from __future__ import annotations

import itertools
import math
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from patron import aws
from patron.consumer.source import Message, Stats
from patron.errors import ConnectionLost, NotASource, SourceError, Stale
from patron.sources._sqs_client import Queues, translated
from patron.sources._sqs_crew import Crew
from patron.sources._sqs_depth import Depth
from patron.sources._sqs_message import Lease, message_of, remember_count
from patron.sources._sqs_receivers import Receivers
from patron.sources._sqs_requests import BATCH, Outcome, request

if TYPE_CHECKING:
    from patron.sources.sqs import SqsSource

__all__ = ["LONGEST", "SqsLetters", "SqsSubscription"]

LONGEST = 43200
"""Seconds that SQS leaves a message with one receiver at most, all extensions together."""

_END = 1.0  # seconds that the requests under way may take at the end beyond their wait

_generations = itertools.count(1)


class SqsSubscription:
    """
    A living reader of one queue. All calls but `wake` come from the thread that opened it.

    There is no connection that would be lost with what came over it: as long as leases last, what is
    held stays held over a failure of the network. So settling raises no `ConnectionLost`; only a poll
    does, when nothing is held, or when every request has failed for a third of the lease.
    """

    def __init__(self, source: SqsSource, queues: Queues, url: str) -> None:
        self._queues = queues
        self._waiting = queues.waiting(source.wait)
        self._url = url
        self._name = source.target
        self._wait = source.wait
        self._lease = math.ceil(source.lease)
        self._unwrap_sns = source.unwrap_sns
        self._max_body = source.max_body
        self._generation = next(_generations)
        self._held: dict[str, Lease] = {}  # by receipt handle
        self._settled: set[str] = set()  # receipt handles, by a call that failed in part and will be repeated
        self._open = True
        self._receivers = Receivers(
            f"sqs-{self._name}",
            source.receivers,
            self._fetch,
            self._return_late,
            pause=source.wait if source.wait < 1 else 0.0,
        )
        self._crew = Crew(f"sqs-{self._name}-settle", source.receivers)
        self._depth = Depth(self._name, queues.client, url)

    # -- the protocol ----------------------------------------------------------------------------

    def poll(self, limit: int, timeout: float) -> Sequence[Message]:
        """See `Subscription.poll`; what is received between two polls waits here, and is extended with the rest."""
        self._check_open()
        received = self._receivers.take(limit, timeout)
        if not received:
            self._check_failing()
        now = time.monotonic()
        live = [lease for lease in received if lease.ends > now]
        self._held.update((lease.handle, lease) for lease in live)
        return [lease.message for lease in live]

    def ack(self, messages: Sequence[Message]) -> None:
        """See `Subscription.ack`: requests of ten, side by side."""
        self._settle(messages, self._delete)

    def nack(self, messages: Sequence[Message], delay: float = 0.0) -> None:
        """
        See `Subscription.nack`; SQS counts whole seconds, so a *delay* is rounded up.

        What ``deliveries`` of a message says is kept as long as this process lives; SQS counts on.
        """
        for message in messages:
            remember_count(message)
        seconds = math.ceil(delay)
        self._settle(messages, lambda batch: self._change(batch, seconds))

    def extend(self, messages: Sequence[Message]) -> None:
        """
        Renew the leases of *messages* that are through with a third of it, and of what waits here.

        Raises:
            Stale: they are lost, or were held for 12 hours, which is all that SQS allows.
        """
        self._check_open()
        leases, stale = self._sorted_out(messages)
        now = time.monotonic()
        due = [
            lease
            for lease in (*leases, *self._receivers.waiting())
            if lease.ends - now < self._lease * 2 / 3 or lease.ends - lease.received >= LONGEST - 1
        ]
        outcomes = self._crew.each(self._renew, aws.batches_of(BATCH, due))
        stale += self._lose(outcomes)
        _refuse(stale)
        _raise(outcomes)

    def stats(self) -> Stats:
        """See `Subscription.stats`: counted by another thread, at most every 10 s."""
        self._check_open()
        return self._depth.stats(self._crew.soon)

    def wake(self) -> None:
        """Make the poll that runs now, or the next one, return at once. Any thread may call."""
        self._receivers.wake()

    def close(self) -> None:
        """
        See `Subscription.close`; waits for the long polls under way.

        A message that one of them still brings is given back at once. One that comes later, since the
        network hangs, comes again when its lease ends.
        """
        if not self._open:
            return
        self._open = False
        until = time.monotonic() + self._wait + _END
        unseen = self._receivers.stop()
        _uncount(unseen)
        for batch in aws.batches_of(BATCH, [*self._held.values(), *unseen]):
            self._crew.soon(partial(self._return, batch))
        self._held.clear()
        ended = [self._receivers.join(until), self._crew.close(until)]
        if all(ended):
            self._queues.close()
            self._waiting.close()

    # -- receiving, by the threads that wait at the queue ------------------------------------------

    def _fetch(self, count: int) -> list[Lease]:
        began = time.monotonic()
        with translated(f"queue {self._name}"):
            answer = self._waiting.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=count,
                WaitTimeSeconds=int(self._wait),
                VisibilityTimeout=self._lease,
                MessageAttributeNames=["All"],
                MessageSystemAttributeNames=["All"],
                **self._attempt(),
            )
        # SQS answers as soon as it has given something out, so the leases began just now.
        ends = time.monotonic() + self._lease
        messages = [
            message_of(raw, self._name, self._generation, self._unwrap_sns, self._max_body)
            for raw in answer.get("Messages") or ()
        ]
        self._depth.received(messages)
        return [Lease(message, began, ends) for message in messages]

    def _attempt(self) -> dict[str, str]:
        """In a FIFO queue, boto3 gets the same messages when it repeats a request whose answer was lost."""
        return {"ReceiveRequestAttemptId": uuid.uuid4().hex} if self._url.endswith(".fifo") else {}

    def _return_late(self, leases: Sequence[Lease]) -> None:
        _uncount(leases)
        self._return(leases)

    def _return(self, batch: Sequence[Lease]) -> None:
        """Give back what no processor will see; what cannot be given back comes again when its lease ends."""
        self._change(batch, 0)

    # -- settling ----------------------------------------------------------------------------------

    def _settle(self, messages: Sequence[Message], act: Callable[[list[Lease]], Outcome]) -> None:
        self._check_open()
        leases, stale = self._sorted_out(messages)
        now = time.monotonic()
        outcomes = self._crew.each(act, aws.batches_of(BATCH, leases))
        done = [lease for outcome in outcomes for lease in outcome.done]
        for lease in done:
            self._held.pop(lease.handle, None)
        stale += self._lose(outcomes)
        self._settled.update(lease.handle for lease in done)
        _raise(outcomes)
        self._settled.clear()
        # SQS may have said yes and done nothing, when somebody else had received it since.
        _refuse(stale + [lease.message for lease in done if lease.ends < now])

    def _delete(self, batch: list[Lease]) -> Outcome:
        return request(self._queues.client.delete_message_batch, self._url, batch, lambda lease: {})

    def _change(self, batch: Sequence[Lease], seconds: int) -> Outcome:
        """Let each of *batch* be visible after *seconds*, as far as SQS allows."""
        now = time.monotonic()

        def until(lease: Lease) -> dict[str, int]:
            return {"VisibilityTimeout": max(0, min(seconds, _allowed(lease, now)))}

        return request(self._queues.client.change_message_visibility_batch, self._url, batch, until)

    def _renew(self, batch: list[Lease]) -> Outcome:
        now = time.monotonic()
        over = [lease for lease in batch if _allowed(lease, now) < 1]
        outcome = self._change([lease for lease in batch if lease not in over], self._lease)
        for lease in outcome.done:
            lease.ends = now + min(self._lease, _allowed(lease, now))
        outcome.gone += over
        return outcome

    def _sorted_out(self, messages: Sequence[Message]) -> tuple[list[Lease], list[Message]]:
        """The leases that are held, and the messages that are not, unless the same call settled them before."""
        leases: list[Lease] = []
        stale: list[Message] = []
        for message in messages:
            handle = message.raw["ReceiptHandle"]
            lease = self._held.get(handle)
            if lease is not None:
                leases.append(lease)
            elif handle not in self._settled:
                stale.append(message)
        return leases, stale

    def _lose(self, outcomes: Sequence[Outcome]) -> list[Message]:
        """Forget what is gone; returns what of it was held."""
        gone = [lease for outcome in outcomes for lease in outcome.gone]
        for lease in gone:
            lease.ends = 0.0
        return [lease.message for lease in gone if self._held.pop(lease.handle, None) is not None]

    # -- errors ------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if not self._open:
            raise ConnectionLost(f"the subscription to queue {self._name} is closed")

    def _check_failing(self) -> None:
        failing = self._receivers.failing()
        if failing is None:
            return
        seconds, error = failing
        if isinstance(error, NotASource) or not isinstance(error, SourceError):
            raise error
        if not self._held or seconds >= self._lease / 3:
            raise error


class SqsLetters(SqsSubscription):
    """A subscription to dead letters, for somebody who wants to know how many there are now."""

    def stats(self) -> Stats:
        """The number of all that are there, those that are held included; asks SQS, which counts approximately."""
        self._check_open()
        return Stats(1, sum(self._depth.look().values()))


def _allowed(lease: Lease, now: float) -> int:
    """Seconds that SQS will still leave the message with us."""
    return int(LONGEST - 1 - (now - lease.received))


def _uncount(unseen: Sequence[Lease]) -> None:
    for lease in unseen:
        lease.message.deliveries -= 1
        remember_count(lease.message)


def _raise(outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error


def _refuse(stale: list[Message]) -> None:
    if stale:
        names = ", ".join(map(str, stale[:3])) + (", ..." if len(stale) > 3 else "")
        raise Stale(f"{len(stale)} messages are not ours any more: {names}", messages=stale)
