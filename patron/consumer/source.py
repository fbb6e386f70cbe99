"""The seam between the consume engine and a broker: one file per broker implements these protocols."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, overload, runtime_checkable

from patron import encoding

__all__ = ["Message", "Publisher", "Revoked", "Source", "Stats", "Subscription"]

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Message:
    """
    One message as a processor sees it.

    *lane* is what order holds within: a partition, a FIFO group or a key; None means no order.
    *position* counts within the lane of a positional source. *deliveries* counts how often the
    source gave the message out, this time included; *attempts* counts the failures so far in this
    process. *timestamp* is when it was published, in seconds since the epoch. *raw* is the driver's
    own message, so that nothing of it is hidden. *decode_as* is set by a consumer whose content type
    is fixed.

    *problem* says why the source could not read it (unknown compression, a header that is no UTF-8):
    the processor never sees such a message, it becomes a dead letter with that reason at once. The
    other fields hold what could be read, *body* the bytes as they came; what is no text is written
    with backslashes. A null body is no problem but an empty one, for some topics mean something by
    it; decoding it fails.
    """

    body: bytes
    topic: str
    id: str
    headers: Mapping[str, str] = field(default_factory=dict)
    key: str | None = None
    lane: Hashable = None
    position: int | None = None
    deliveries: int = 1
    attempts: int = 0
    timestamp: float | None = None
    generation: int = 0
    raw: Any = None
    decode_as: str | None = None
    problem: str | None = None

    @property
    def content_type(self) -> str | None:
        """The fixed content type of the consumer, else the one from the headers, else None."""
        if self.decode_as is not None:
            return self.decode_as
        for name, value in self.headers.items():
            if name.lower() == "content-type":
                return value
        return None

    @overload
    def decode(self) -> Any: ...
    @overload
    def decode(self, into: type[T]) -> T: ...
    def decode(self, into: Any = None) -> Any:
        """
        The body, decoded by its content type (JSON when it has none) and checked against *into*.

        Raises:
            DecodeError: the bytes or their shape are wrong; the engine makes it a dead letter.
            UnknownContentType: likewise.
        """
        return encoding.decode(self.body, self.content_type, into)

    def __str__(self) -> str:
        return f"{self.topic}/{self.id}"


@dataclass(frozen=True, slots=True)
class Revoked:
    """These lanes were taken away; results of their messages must not be settled any more."""

    lanes: frozenset[Hashable]


@dataclass(frozen=True, slots=True)
class Stats:
    """
    What a subscription knows of its backlog.

    *assigned*: lanes or queues it may read now (0: not ready). *lag*: messages waiting, None when
    unknown. *oldest_age*: seconds since the oldest waiting message was published, None when unknown.
    *backlog*: how many of the messages that were in its lanes when it got them are not settled yet;
    a source with positions notes the ends of its lanes when they are assigned and compares them with
    what is committed. None when it does not know: then a *lag* of 0 tells that all was read.
    *joined*: the group has shared its lanes out to it, which counts as an assignment, also of none.
    """

    assigned: int = 0
    lag: int | None = None
    oldest_age: float | None = None
    backlog: int | None = None
    joined: bool = False


class Subscription(Protocol):
    """
    One live connection to a broker.

    Every call comes from the thread that opened it. Every call may raise `ConnectionLost` (open
    again) or `Stale` (these messages are no longer ours: ``Stale.messages``, or all of the call).
    Any other `SourceError` means that nothing was done and the same call may succeed later.

    A subscription may also have ``wake()``, which any thread may call: it makes the `poll` that
    runs now, or else the next one, return at once. Without it the engine polls in short turns.

    Where lanes are given up in an orderly way it has ``revoking: Callable[[frozenset[Hashable]], None]
    | None``, None at first, which the engine sets after opening. Before it gives lanes up it calls
    that with them, from within `poll`: in the same thread, or in another one while `poll` waits for it
    and does nothing else, so that the two are never in the engine at once. The engine then starts
    nothing more of them, waits at most ``revoke_wait`` seconds for what is in hand, acknowledges through
    `ack`, which must be legal at that moment and in that thread, and forgets them. It raises nothing. Of
    these lanes `poll` returns nothing that it fetched before; a `Revoked` for them is harmless
    afterwards. Lanes that were *lost*, without being asked, are only returned as `Revoked`.
    """

    def poll(self, limit: int, timeout: float) -> Sequence[Message | Revoked]:
        """
        At most *limit* messages, waiting at most *timeout* seconds for the first.

        With *limit* 0 it fetches nothing and only keeps the connection alive.
        """
        ...

    def ack(self, messages: Sequence[Message]) -> None:
        """Settle *messages*; when it returns, none of them comes again."""
        ...

    def nack(self, messages: Sequence[Message], delay: float = 0.0) -> None:
        """
        Give *messages* back; each comes again, not before *delay* seconds, in the order of its lane.

        While a lane waits for that, the others must go on. The engine counts on it: when everything
        that it may hold waits behind a few messages that are tried again later, it gives back what
        waits, with the delay of the one in front, which it keeps.

        A source that counts deliveries itself stores ``message.deliveries``: the engine lowers it
        for a message that never started, which must not run into max_deliveries.
        """
        ...

    def extend(self, messages: Sequence[Message]) -> None:
        """Renew the leases of *messages*; does nothing where the broker has none."""
        ...

    def stats(self) -> Stats:
        """The backlog as far as it is known now; must not block on the network for long."""
        ...

    def close(self) -> None:
        """Give everything back that was not settled, and close. May be called twice."""
        ...


class Publisher(Protocol):
    """One connection that publishes. One thread at a time may call."""

    def publish(
        self,
        topic: str,
        body: bytes,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay: float = 0.0,
    ) -> str:
        """
        Publish, and return the id of the message once the broker has confirmed that it keeps it.

        Raises:
            PublishFailed: it may not be there. StorageFull: it is not there, try later.
        """
        ...

    def close(self) -> None:
        """Close. May be called twice."""
        ...


@runtime_checkable
class Source(Protocol):
    """
    The settings of a broker and of what to read there; a frozen dataclass, loadable from YAML.

    *system* labels metrics and spans (``"kafka"``). *positional* tells that settling a message
    settles everything before it in its lane, so the engine settles only contiguous runs.
    *target* is what is read (topic or queue), for labels and log lines.

    A source whose messages are leased also has ``lease``: how many seconds one lasts. The engine
    calls `Subscription.extend` at every third of it.

    It may have two more methods:

    ``prepare(topics: Sequence[str]) -> None`` checks that what is read and *topics* (where dead letters
    go) are there; a source with ``create`` set makes what is missing. The thread that will open calls
    it before the first opening, and again until it succeeded once. It raises `NotASource`, which
    ends the consumer, naming what is missing and how to make it, or `ConnectionLost`.

    ``letters(topic: str) -> Subscription`` reads a topic of dead letters for ``patron dlq``, without
    membership in a group and without order: `poll` returns letters that were not handled, `ack` removes
    one in any order, `close` gives the others back at once, where possible without counting that
    as a delivery, and ``stats().lag`` is how many there are. Where it is missing, the source is opened with its
    topic replaced.
    """

    @property
    def system(self) -> str: ...
    @property
    def positional(self) -> bool: ...
    @property
    def target(self) -> str: ...

    def open(self) -> Subscription:
        """Connect, in the calling thread, which owns the subscription."""
        ...

    def publisher(self) -> Publisher:
        """A publisher to the same broker, for dead letters and delayed retries."""
        ...
