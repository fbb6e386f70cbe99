"""Bytes on their way to a client: as many at once as its socket takes, and how long the others may need."""

from __future__ import annotations

import select
import ssl
import time
from collections import deque
from typing import Any

__all__ = ["LEAST_RATE", "NOT_NOW", "Outgoing"]

#: What a socket that does not wait raises when it would have to.
NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
#: Bytes a second that a client must take on the whole, once its time-out is over.
LEAST_RATE = 1024
#: Bytes of small pieces that are sent as one.
_JOINED = 64 * 1024
#: Bytes of one call of ``send``; with TLS they are encrypted in it.
_SLICE = 128 * 1024


class Outgoing:
    """
    What one client is still to be sent, in order. The thread that owns the connection calls.

    A client that takes nothing for *timeout* seconds, or after them less than `LEAST_RATE` of what
    it made wait, is too slow; what the application takes to make the bytes does not count.
    """

    __slots__ = ("_behind_since", "_pieces", "_progress", "_sent", "_sock", "_timeout", "size")

    def __init__(self, sock: Any, timeout: float) -> None:
        self._sock = sock
        self._timeout = timeout
        self._pieces: deque[bytes | memoryview] = deque()
        self.size = 0  # bytes that are left
        self._behind_since = 0.0  # when the socket last began to refuse bytes; 0: it takes them all
        self._progress = 0.0  # when it last took some since
        self._sent = 0  # how many it took since

    def add(self, data: bytes) -> None:
        """Send *data* with the next `push` or `flush`."""
        if data:
            self._pieces.append(data)
            self.size += len(data)

    def push(self) -> None:
        """
        Send what the socket takes now.

        Raises:
            OSError: the client is gone; nothing is left to send.
        """
        while self.size:
            if not self._sent_piece():
                return
        self._behind_since = 0.0

    def push_slice(self) -> None:
        """As `push`, but one piece of what is left only, so that others have their turn."""
        self._sent_piece()
        if not self.size:
            self._behind_since = 0.0

    def _sent_piece(self) -> bool:
        """Send one piece; False when the socket takes none now."""
        try:
            self._take_off(self._sock.send(self._next()))
        except NOT_NOW as error:
            self._fall_behind(error)
            return False
        except OSError:
            self.clear()
            raise
        return True

    def flush(self, mark: int = 0) -> None:
        """
        Send until at most *mark* bytes are left, and wait where the client makes us wait.

        Raises:
            OSError: the client is gone, or too slow (`TimeoutError`); nothing is left to send.
        """
        self.push()
        while self.size > mark:
            self._wait()
            self.push()

    def sendall(self, data: bytes) -> None:
        """As a socket's."""
        self.add(data)
        self.flush()

    def clear(self) -> None:
        """Forget what was not sent."""
        self._pieces.clear()
        self.size = 0

    @property
    def deadline(self) -> float:
        """Monotonic seconds when the client, which makes us wait, is too slow."""
        return self._timeout + min(self._progress, self._behind_since + self._sent / LEAST_RATE)

    def _next(self) -> bytes | memoryview:
        """The first bytes, not too many. With TLS the same ones have to be tried again, perhaps with more behind."""
        first = self._pieces[0]
        if len(self._pieces) > 1 and len(first) < _JOINED:
            return self._joined()
        return first if len(first) <= _SLICE else memoryview(first)[:_SLICE]

    def _joined(self) -> bytes:
        taken = [self._pieces.popleft()]
        room = _JOINED - len(taken[0])
        while self._pieces and len(self._pieces[0]) <= room:
            room -= len(self._pieces[0])
            taken.append(self._pieces.popleft())
        joined = b"".join(taken)
        self._pieces.appendleft(joined)
        return joined

    def _take_off(self, sent: int) -> None:
        self.size -= sent
        first = self._pieces.popleft()
        if sent < len(first):
            self._pieces.appendleft(memoryview(first)[sent:])
        if self._behind_since:
            self._sent += sent
            self._progress = time.monotonic()

    def _fall_behind(self, error: OSError) -> None:
        if isinstance(error, ssl.SSLWantReadError):  # another handshake, which nobody is waiting for
            self.clear()
            raise ConnectionResetError("the client wants to negotiate again") from error
        if not self._behind_since:
            self._behind_since = self._progress = time.monotonic()
            self._sent = 0

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._sock, select.POLLOUT)
        left = self.deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            self.clear()
            raise TimeoutError("the client reads too slowly")
