"""Connections to Redis that do not wait for an answer for as long as there are pieces of it."""

from __future__ import annotations

import math
import time
from typing import Any

__all__ = ["bounded"]


def bounded(connection_class: type) -> type:
    """redis-py's *connection_class*, which gives up an answer that takes more than twice its time-out."""
    return type(f"Bounded{connection_class.__name__}", (_Bounded, connection_class), {})


class _Bounded:
    """
    What is put in front of a connection class of redis-py.

    It reads an answer piece by piece, and waits as long for each: one that trickles would be waited for without end.
    Connecting, and looking whether there is something to read before a command, stay as they are.
    """

    def _connect(self) -> Any:
        return _Socket(super()._connect())  # type: ignore[misc]

    def read_response(self, *args: Any, **options: Any) -> Any:
        sock = self._sock  # type: ignore[attr-defined]
        if type(sock) is not _Socket:
            return super().read_response(*args, **options)  # type: ignore[misc]
        sock.begin()
        try:
            return super().read_response(*args, **options)  # type: ignore[misc]
        finally:
            sock.end()


class _Socket:
    """A socket that, from `begin` to `end`, gives up what is received in pieces after its time-out."""

    __slots__ = ("_sock", "_until", "sendall")

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._until = math.inf
        self.sendall = sock.sendall

    def begin(self) -> None:
        """An answer is expected."""
        self._until = time.monotonic() + (self._sock.gettimeout() or math.inf)

    def end(self) -> None:
        """It is there, or will not come."""
        self._until = math.inf

    def recv(self, *arguments: Any) -> Any:
        self._check()
        return self._sock.recv(*arguments)

    def recv_into(self, *arguments: Any) -> Any:
        self._check()
        return self._sock.recv_into(*arguments)

    def _check(self) -> None:
        # The last piece may still take a whole time-out: less would be one more system call for each of them.
        if time.monotonic() > self._until:
            raise TimeoutError("the answer comes too slowly")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)
