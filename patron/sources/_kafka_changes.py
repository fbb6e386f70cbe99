"""Partitions that come and go, as the driver tells it from its own thread while the owner waits in poll."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from patron.consumer.source import Revoked
from patron.observe import log
from patron.sources._kafka_lanes import Partition
from patron.sources._kafka_library import Client, Future, RebalanceListener

__all__ = ["Changes"]

GiveUp = Callable[[Iterable[tuple[str, int]], bool], Mapping[Partition, int]]


class Changes:
    """
    What happened to the assignment since the last look.

    *fresh* holds the partitions that came and are not read yet, with the offset up to which they were
    settled when they had only been away for an eager rebalance, over which the driver *keeps_positions*.
    Giving partitions up waits for processors and commits,
    which neither the driver's thread may do (it sends the heartbeats) nor the owner can (it waits in
    the driver): a thread does it that lives as long, while the other two stand still.
    """

    def __init__(self, network: Client, consumer: Client, give_up: GiveUp, *, keeps_positions: bool) -> None:
        self.fresh: dict[Partition, int | None] = {}
        self._network = network
        self._consumer = consumer
        self._give_up = give_up
        self._keeps_positions = keeps_positions
        self._settled: dict[Partition, int] = {}
        self._revoked: list[Revoked] = []
        self._context = contextvars.copy_context()
        self._closed = False

    def taken(self) -> Iterator[Revoked]:
        """The partitions that were taken away, once."""
        revoked, self._revoked = self._revoked, []
        yield from revoked

    def lost(self, partitions: Iterable[tuple[str, int]]) -> None:
        """What is held of *partitions* must be forgotten."""
        self._revoked.append(Revoked(frozenset(Partition(*at) for at in partitions)))

    def close(self) -> None:
        """Report nothing any more."""
        self._closed = True

    def listener(self) -> Any:
        """What the driver calls."""
        return _listener(self)

    # The driver's thread

    def assigned(self, partitions: Iterable[tuple[str, int]]) -> None:
        """*partitions* came."""
        came = [Partition(*at) for at in partitions]
        self.fresh.update((at, self._settled.get(at)) for at in came)
        self._settled.clear()
        # Nothing of them is to be given out before it is known where to begin.
        self._consumer.pause(*partitions)

    def revoked(self, partitions: Iterable[tuple[str, int]], orderly: bool) -> Future:
        """*partitions* must be given up; the future that is returned is done when they are."""
        done = Future()
        gone = [Partition(*at) for at in partitions]
        if self._closed or not gone:
            return done.success(None)
        thread = threading.Thread(
            target=self._context.run,
            args=(self._aside, gone, orderly, done),
            name="patron-kafka-revoke",
            daemon=True,
        )
        thread.start()
        return done

    def _aside(self, gone: list[Partition], orderly: bool, done: Future) -> None:
        try:
            for at in gone:
                self.fresh.pop(at, None)
            settled = self._give_up(gone, orderly)
            self._settled = dict(settled) if orderly and self._keeps_positions else {}
            if settled:
                self.lost(settled)
        except Exception as error:  # noqa: BLE001 - the edge of the thread, and the rebalance must go on
            log.error("partitions not given up in order", partitions=len(gone), exc_info=error)
        finally:
            done.success(None)
            self._network.wakeup()


def _listener(changes: Changes) -> Any:
    class Listener(RebalanceListener):  # type: ignore[misc]
        async def on_partitions_assigned(self, assigned: Iterable[tuple[str, int]]) -> None:
            changes.assigned(assigned)

        async def on_partitions_revoked(self, revoked: Iterable[tuple[str, int]]) -> None:
            await changes.revoked(revoked, True)

        async def on_partitions_lost(self, lost: Iterable[tuple[str, int]]) -> None:
            await changes.revoked(lost, False)

    return Listener()
