"""The answer of a WSGI application as a value, its body complete when it is known to end soon."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from patron.http import head

__all__ = ["Answer", "Application", "capture"]

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]
Header = tuple[str, str]


class Answer:
    """
    An answer that is not sent yet.

    *body* is a list when it is complete, else an iterable for which `close` has to be called.
    """

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: str, headers: list[Header], body: Iterable[bytes]) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def code(self) -> int:
        """The status as a number."""
        return int(self.status[:3])

    @property
    def complete(self) -> bool:
        """Whether all of the body is there."""
        return type(self.body) is list

    def close(self) -> None:
        """Let go of a body that nobody will read."""
        close = getattr(self.body, "close", None)
        if close is not None:
            close()

    def without_body(self) -> Answer:
        """The same, as an answer to HEAD."""
        self.close()
        return Answer(self.status, self.headers, [])


def capture(application: Application, environ: dict[str, Any], limit: int) -> Answer:
    """
    What *application* answers to *environ*; raises what it raises.

    A body is complete when the application gives a list, or when its head announces at most *limit*
    bytes. Any other one is a stream, and not read but for what comes before its head.
    """
    head_ = _Head()
    chunks = application(environ, head_.start_response)
    if type(chunks) is list or type(chunks) is tuple:
        return head_.answer(_checked([*head_.written, *chunks]))
    body = _Stream(chunks, head_.written)
    try:
        if head_.status is None:
            body.peek()  # a generator calls start_response when it is first asked for something
        if 0 <= head_.length <= limit:
            return head_.answer(_checked(body.rest()))
        return head_.answer(body)
    except BaseException:
        body.close()
        raise


def _checked(chunks: list[bytes]) -> list[bytes]:
    for chunk in chunks:
        if not isinstance(chunk, bytes):
            raise TypeError(f"the body has a {type(chunk).__name__} in it: use bytes")
    return chunks


class _Head:
    """WSGI's ``start_response``: keeps the head, and what is sent in the old way, from before there were iterables."""

    def __init__(self) -> None:
        self.status: str | None = None
        self.headers: list[Header] = []
        self.length = -1  # what the head says about the body; -1 for nothing
        self.written: list[bytes] = []
        self._gone = False

    def start_response(self, status: str, headers: list[Header], exc_info: Any = None) -> Any:
        if exc_info is not None:
            if self._gone:  # PEP 3333: it is too late to replace it
                raise exc_info[1].with_traceback(exc_info[2])
        elif self.status is not None:
            raise RuntimeError("start_response was called a second time, without exc_info")
        head.status_code(status)
        length = head.content_length(headers)
        self.length = -1 if length is None else length
        self.status, self.headers = status, list(headers)
        return self.written.append

    def answer(self, body: Iterable[bytes]) -> Answer:
        if self.status is None:
            raise RuntimeError("the application answered without calling start_response")
        self._gone = True
        return Answer(self.status, self.headers, body)


class _Stream:
    """A body that comes in pieces; it is read once."""

    def __init__(self, chunks: Iterable[bytes], written: list[bytes]) -> None:
        self._chunks = chunks
        self._iterator = iter(chunks)
        self._ahead = written  # what came before the head was known to be complete

    def peek(self) -> None:
        self._ahead.extend(_first(self._iterator))

    def rest(self) -> list[bytes]:
        """All of it, and the end."""
        try:
            return list(self)
        finally:
            self.close()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return self._ahead.pop(0) if self._ahead else next(self._iterator)

    def close(self) -> None:
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()


def _first(chunks: Iterator[bytes]) -> list[bytes]:
    for chunk in chunks:
        return [chunk]
    return []
