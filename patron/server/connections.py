"""A connection of a client: what was received of a request, what is left of an answer, and whose turn it is."""

from __future__ import annotations

import enum
import io
import select
import socket
import ssl
import struct
import time
from typing import Any

from patron.errors import BadRequest, HTTPError
from patron.server import tls
from patron.server.internals import TConn, Unreader, gunicorn_http, is_chunked
from patron.server.reading import Incoming
from patron.server.sending import LEAST_RATE, NOT_NOW, Outgoing

__all__ = ["Connection", "Flowing", "Phase", "Reader"]

#: Bytes that chunks may take on the connection for each byte of the body: a chunk of one byte takes six.
FRAMING = 8
#: Bytes of chunks that may have come with no body in them yet: more is refused.
_MOST_FRAMING = 128 * 1024
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Phase(enum.Enum):
    """Who owns a connection, and what for."""

    HANDSHAKE = "the main thread, until TLS is agreed on"
    READING = "the main thread, until a request is there"
    ANSWERING = "a thread of the pool"
    WRITING = "the main thread, until the client has taken its answer"
    CLOSING = "the main thread, until the client closes it too"


class Connection(TConn):  # type: ignore[misc]
    """A connection with the bytes of its unfinished request and answer; one thread at a time owns it."""

    def __init__(
        self, cfg: Any, sock: Any, client: Any, server: Any, incoming: Incoming, write_timeout: float
    ) -> None:
        super().__init__(cfg, sock, client, server)
        self.parser: Any
        self.incoming = incoming
        self.outgoing = Outgoing(sock, write_timeout)
        self.phase = Phase.READING
        self.deadline = 0.0
        self.began = 0.0  # monotonic seconds when the first bytes of the request came
        self.counted = True  # whether it is one of the connections that the worker has open
        self.complete = True  # whether the end of the request was received
        self.keep = False  # whether another request may follow
        self.framed = True  # whether the answer itself says where it ends
        self.broken = False  # whether the thread has left it unfinished
        self.arrived = 0.0  # monotonic seconds when the head of the request was complete
        self.asked = ""  # method and target of the request that is answered
        self.reader = Reader(self)

    @property
    def remote(self) -> str:
        """The client's address, without its port."""
        return str(self.client[0]) if isinstance(self.client, tuple) else str(self.client)

    def receive(self) -> bytes | None:
        """Bytes that are there, None when there are none now, nothing at the end."""
        try:
            data: bytes = self.sock.recv(65536)  # no record of TLS is larger, so none stays in the library
        except NOT_NOW:
            return None
        except OSError:
            return b""
        return data

    def resume(self, *, flowing: bool, read_timeout: float) -> None:
        """Give what was received to the parser; unless the body is *flowing*, it gets no more than that."""
        if self.parser is None:
            self.parser = gunicorn_http.get_parser(self.cfg, self.sock, self.client)
            self.parser.unreader = self.reader
            self.initialized = True
        self.complete = self.incoming.complete
        self.arrived = self.incoming.arrived
        self.reader.begin(flowing, expects=self.incoming.expects, timeout=read_timeout)
        self.reader.buf.write(self.incoming.take())

    def refuse_to_end(self) -> None:
        """
        Make `close` a reset where it would be the end of the answer: cut off, it would look complete.

        Only an error of the connection tells the client then (RFC 9112, section 8).

        Raises:
            OSError: the client is gone.
        """
        if not self.framed:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close_writing(self) -> None:
        """
        Say that nothing follows.

        Raises:
            OSError: the client is gone.
        """
        if isinstance(self.sock, ssl.SSLSocket):
            tls.say_goodbye(self.sock)
        self.sock.shutdown(socket.SHUT_WR)


class Reader(Unreader):  # type: ignore[misc]
    """
    What the parser reads from: the bytes that the main thread has received, and then the end.

    Only a body that is *flowing* is read from the connection, by the thread that has the request, which
    waits for it at most *timeout* seconds at a time, and on the whole for no less than `LEAST_RATE`.
    """

    def __init__(self, conn: Connection) -> None:
        super().__init__()
        self._conn = conn
        self.flowing = False
        self.broken = False  # whether it is unknown where the body ends
        self.expects = False
        self._timeout = 0.0
        self._allowed = 0.0  # seconds that are left to wait on the whole
        self._framing = 0  # bytes received that no body has been read for

    def begin(self, flowing: bool, *, expects: bool, timeout: float) -> None:
        """For the next request."""
        self.flowing = flowing
        self.broken = False
        self.expects = expects
        self._timeout = self._allowed = timeout
        self._framing = 0

    def chunk(self, size_hint: int | None = None) -> bytes:
        """
        The next bytes, nothing at the end.

        Raises:
            HTTPError: the client sends too slowly (408), or hardly anything but the frames of chunks (413).
            BadRequest: the client went away.
        """
        if not self.flowing or self.broken:
            return b""
        if self._framing > _MOST_FRAMING:
            raise HTTPError({"error": "the chunks hold too little of the body"}, status=413)
        if self.expects:
            self.expects = False
            self._conn.outgoing.sendall(_CONTINUE)
        while (data := self._conn.receive()) is None:
            self._wait()
        if not data:
            raise BadRequest({"error": "the body ended early"})
        self._allowed += len(data) / LEAST_RATE
        self._framing += len(data)
        return data

    def took(self, size: int) -> None:
        """*size* bytes of the body were read."""
        self._framing = max(0, self._framing - FRAMING * size)

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._conn.sock, select.POLLIN)
        began = time.monotonic()
        arrived = poll.poll(1000 * max(0.0, min(self._timeout, self._allowed)))
        self._allowed -= time.monotonic() - began
        if not arrived:
            raise HTTPError({"error": f"the body did not arrive within {self._timeout:g} s"}, status=408)


class Flowing(io.RawIOBase):
    """
    A body as it arrives: a read gives what is there, and waits only when that is nothing.

    Errors are those of `Reader.chunk`, and the parser's. The thread that has the request calls.
    """

    def __init__(self, body: Any, reader: Reader) -> None:
        self._body = body.reader
        self._chunked = is_chunked(body)
        self._reader = reader

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill *buffer* as far as bytes are there; returns how many, 0 at the end."""
        if self._reader.broken:
            return 0
        try:
            data = self._arrived(len(buffer))
        except BaseException:
            self._reader.broken = True
            raise
        self._reader.took(len(data))
        buffer[: len(data)] = data
        return len(data)

    def _arrived(self, size: int) -> bytes:
        data: bytes = self._body.read(1)
        if data:
            held = self._body.buf if self._chunked else self._reader.buf
            data += self._body.read(min(size - 1, len(held.getvalue())))
        return data
