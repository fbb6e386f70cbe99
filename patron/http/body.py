"""The body of a request as a stream that ends where it should."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from patron.errors import BadRequest, ContentTooLarge, HTTPError

__all__ = ["Body", "guard"]


class Stream(Protocol):
    """What ``wsgi.input`` can do."""

    def read(self, size: int = -1, /) -> bytes: ...
    def readline(self, size: int = -1, /) -> bytes: ...


def guard(environ: dict[str, Any], limit: int) -> None:
    """
    Put a `Body` of at most *limit* bytes in the place of ``wsgi.input``.

    Raises:
        ContentTooLarge: ``Content-Length`` says that it is too large; nothing was read.
        BadRequest: ``Content-Length`` is no number.
    """
    # RFC 9112, section 6.3: with a Transfer-Encoding the Content-Length does not count.
    chunked = bool(environ.get("HTTP_TRANSFER_ENCODING"))
    length = None if chunked else _length(environ.get("CONTENT_LENGTH"))
    if length is not None and length > limit:
        raise ContentTooLarge({"error": f"the body has {length} bytes: at most {limit} are accepted"})
    environ["wsgi.input"] = Body(environ["wsgi.input"], length, limit)
    environ["wsgi.input_terminated"] = True


def _length(text: str | None) -> int:
    if not text:
        return 0
    if not text.isascii() or not text.isdigit():
        raise BadRequest({"error": "Content-Length is no number"})
    return int(text) if len(text) < 20 else 10**20


class Body:
    """
    The *length* bytes of a body, or with None as many as come, at most *limit*.

    Reading raises `ContentTooLarge` past the limit and `BadRequest` when the client stops early.
    """

    def __init__(self, stream: Stream, length: int | None, limit: int) -> None:
        self._stream = stream
        self._known = length is not None
        # Of an unknown length one byte more than allowed is asked for, so that too much is noticed.
        self._left = limit + 1 if length is None else length
        self._limit = limit

    def read(self, size: int | None = -1) -> bytes:
        """At most *size* bytes, all that are left without one; empty at the end."""
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(65536), b""))
        return self._counted(self._stream.read, min(size, self._left))

    def readline(self, size: int | None = -1) -> bytes:
        """The next line, at most *size* bytes of it; empty at the end."""
        return self._counted(
            self._stream.readline, self._left if size is None or size < 0 else min(size, self._left)
        )

    def _counted(self, read: Any, size: int) -> bytes:
        if not size:
            return b""
        try:
            data: bytes = read(size)
        except HTTPError:  # the server's own, which knows better
            raise
        except (
            Exception
        ) as error:  # the client went away, or the server's parser refuses a chunk: its own errors
            raise BadRequest({"error": "the body did not arrive, or not as HTTP frames it"}) from error
        self._left -= len(data)
        if self._known and not data:
            raise BadRequest({"error": f"the body ended {self._left} bytes early"})
        if not self._known and not self._left:
            raise ContentTooLarge(
                {"error": f"the body is too large: at most {self._limit} bytes are accepted"}
            )
        return data

    def readlines(self, hint: int | None = None) -> list[bytes]:
        """All the lines that are left."""
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def close(self) -> None:
        """Nothing: the server closes its stream itself."""
