"""What every source whose losses are counted has: a server that can be filled, broken, and looked at."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from brokers.processes import ServerProcess

LANES = 12
TOPIC = "losses"


def body(lane: int, number: int) -> bytes:
    return f"{lane} {number}".encode()


class Subject:
    """One source under test, with a server of its own."""

    name: ClassVar[str]
    #: How many messages the whole test takes.
    size: ClassVar[int] = 100_000
    #: Whether one process repeats a lane without gaps after a loss of the connection.
    positional: ClassVar[bool] = False
    #: Settings of the consumer beside the source.
    consumer: ClassVar[Mapping[str, Any]] = {}
    prefetch: ClassVar[int] = 256
    #: Seconds within which what was processed is committed; 0: what comes again is counted, see `prefetch`.
    commit_delay: ClassVar[float] = 0.0
    #: Whether a broker that was killed may give new messages out before those which were held.
    overtakes: ClassVar[bool] = False
    #: Publish no more than this ahead of the consumer; None: everything at once.
    backlog_limit: ClassVar[int | None] = None
    #: Variables that the driver needs.
    environment: ClassVar[Mapping[str, str]] = {}

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self) -> None:
        """Start the server and make what is read."""

    def close(self) -> None:
        """Stop the server."""

    def source(self) -> dict[str, Any]:
        """The source as the configuration file has it."""
        raise NotImplementedError

    def slow(self, scale: float) -> dict[str, Any]:
        """The settings which a processor of 90 s exceeds, all of them times *scale*."""
        raise NotImplementedError

    def publish(self, first: int, count: int, lanes: int = LANES) -> None:
        """Publish the numbers *first* to *first* + *count* of each lane, and know that they are there."""
        raise NotImplementedError

    def interrupt(self) -> str:
        """Break the server or the way to it; what was done."""
        raise NotImplementedError

    def backlog(self) -> int:
        """How many messages are not acknowledged."""
        raise NotImplementedError

    def dead(self) -> int:
        """How many dead letters there are."""
        raise NotImplementedError


class Restarted(Subject):
    """A subject whose server is killed and started again on its data."""

    server: ServerProcess

    def start(self) -> None:
        self.server.start()

    def close(self) -> None:
        self.server.close()

    def interrupt(self) -> str:
        begun = time.monotonic()
        self.server.restart()
        return f"kill -9 of the broker, back after {time.monotonic() - begun:.1f} s"
