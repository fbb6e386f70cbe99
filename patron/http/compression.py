"""Compressed answers: a WSGI layer that codes what the client can decode and what is worth it."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from patron.errors import ConfigError, NotAcceptable
from patron.http.codings import Wish, wish
from patron.http.head import by_name
from patron.http.vary import varying

__all__ = ["Compressing", "Compression"]

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]
Head = list[tuple[str, str]]

#: Window bits by coding. HTTP's deflate has zlib's frame (RFC 9110, section 8.4.1.2).
_WINDOWS = {"gzip": 31, "deflate": 15}

_TYPES = (
    "text/*",
    "*+json",
    "*+xml",
    "application/javascript",
    "application/json",
    "application/openmetrics-text",
    "application/wasm",
    "application/x-ndjson",
    "application/xml",
    "font/ttf",
)


@dataclass(frozen=True, slots=True)
class Compression:
    """
    Which answers are compressed for clients that ask for it.

    Args:
        level: from 1, fast, to 9, small.
        min_size: bytes of a body; smaller ones are sent as they are.
        types: media types; ``text/*`` means all of a kind, ``*+json`` all with a suffix.
        codings: which ones are offered; the first one that the client likes best wins.
        exclude: paths that are never compressed, with everything below them.
    """

    level: int = 6
    min_size: int = 1024
    types: tuple[str, ...] = _TYPES
    codings: tuple[Literal["gzip", "deflate"], ...] = ("gzip", "deflate")
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("types", "codings", "exclude"):
            object.__setattr__(self, name, _tuple(getattr(self, name)))
        if problems := [f"compression: {problem}" for problem in _problems(self)]:
            raise ConfigError(*problems)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | set | frozenset) else value


def _problems(settings: Any) -> Iterator[str]:
    for name, least, most in (("level", 1, 9), ("min_size", 0, 2**40)):
        value = getattr(settings, name)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            yield f"{name} is {value!r}: use a whole number from {least} to {most}"
    if not settings.codings or set(settings.codings) - set(_WINDOWS):
        yield f"codings are {settings.codings!r}: use {', '.join(_WINDOWS)}"
    for type in settings.types:
        if not re.fullmatch(r"[\w.+-]+/(\*|[\w.+-]+)|\*\+[\w.-]+", str(type), re.ASCII):
            yield f"types: {type!r} is no media type: write application/json, text/* or *+json"
    for path in settings.exclude:
        if not isinstance(path, str) or not path.startswith("/"):
            yield f"exclude: path {path!r} must begin with /"


class Compressing:
    """
    WSGI middleware that compresses what *settings* say. All threads call it.

    Complete bodies are compressed at once; of a stream every chunk can be decoded as soon as it is there.
    """

    def __init__(self, application: Application, settings: Compression) -> None:
        self._application = application
        self._codings = settings.codings
        self._excluded = tuple(path.rstrip("/") for path in settings.exclude)
        self._level = settings.level
        self._min_size = settings.min_size
        types = [type.lower() for type in settings.types]
        self._exactly = frozenset(types)
        self._prefixes = tuple(type[:-1] for type in types if type.endswith("/*"))
        self._suffixes = tuple(type[1:] for type in types if type.startswith("*+"))

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if self._excluded and self._is_excluded(environ):
            return self._application(environ, start_response)
        wanted = wish(environ.get("HTTP_ACCEPT_ENCODING"), self._codings)
        if wanted.coding is None and not wanted.identity:
            text = f"no content coding is acceptable: use {', '.join(self._codings)} or identity"
            raise NotAcceptable({"error": text}, headers={"Vary": "Accept-Encoding"})
        answer = _Answer(self, environ, start_response, wanted)
        body = self._application(environ, answer.start_response)
        if type(body) is list or type(body) is tuple:
            return answer.complete(body)
        return answer.stream(body)

    def _is_excluded(self, environ: dict[str, Any]) -> bool:
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "") + "/"
        return any(path.startswith(prefix + "/") for prefix in self._excluded)

    def covers(self, content_type: str) -> bool:
        """Whether bodies of *content_type* are worth it."""
        name = content_type.partition(";")[0].strip().lower()
        return name in self._exactly or name.startswith(self._prefixes) or name.endswith(self._suffixes)

    def is_worth(self, status: str, names: Mapping[str, str], size: int | None, wanted: Wish) -> bool:
        """Whether a body of *size* bytes (None: nobody knows) is compressed for those who want it."""
        if status.startswith(_UNTOUCHED) or not _FIXED.isdisjoint(names):
            return False
        if "no-transform" in names.get("cache-control", "").lower():
            return False
        if not wanted.identity:  # then small is no reason
            return size != 0
        return (size is None or size >= self._min_size) and self.covers(names.get("content-type", ""))

    def encoder(self, coding: str) -> Any:
        """A compressor for one answer. Its output holds no time, so equal bodies are equal bytes."""
        return zlib.compressobj(self._level, zlib.DEFLATED, _WINDOWS[coding])


#: Answers without a body, and parts of one, which are not compressed apart.
_UNTOUCHED = ("1", "204", "205", "206", "304")
#: Headers that say that the body must stay as it is; digests are of the coded body (RFC 9530, section 2).
_FIXED = frozenset(
    ("content-encoding", "content-range", "content-md5", "content-digest", "repr-digest", "digest")
)


class _Answer:
    """
    One answer, and the body of one that is streamed; the thread that serves it owns it.

    Its head waits here until it is known whether the body will be compressed.
    """

    __slots__ = (
        "_body",
        "_chunks",
        "_encoder",
        "_environ",
        "_head",
        "_home",
        "_left",
        "_send",
        "_wish",
        "_write",
    )

    def __init__(self, home: Compressing, environ: dict[str, Any], send: Any, wanted: Wish) -> None:
        self._home = home
        self._environ = environ
        self._send = send
        self._wish = wanted
        self._head: tuple[str, Head] | None = None
        self._write: Any = None  # the server's; None until it was given the head
        self._encoder: Any = None
        self._left = 0  # bytes that the head promised and that are still to come
        self._body: Any = None

    def start_response(self, status: str, headers: Head, exc_info: Any = None) -> Any:
        """WSGI's: keeps the head."""
        if exc_info is not None and self._write is not None:
            return self._send(status, headers, exc_info)  # too late to replace it: the server raises
        if exc_info is None and self._head is not None:
            raise RuntimeError("start_response was called a second time, without exc_info")
        self._head = status, headers
        return self.write

    def write(self, data: bytes) -> None:
        """WSGI's old way to send a body."""
        if coded := self._coded(data):
            self._write(coded)

    def complete(self, body: Sequence[bytes]) -> Iterable[bytes]:
        """*body*, compressed when that is wanted and worth it."""
        if self._write is not None or self._head is None or self._environ["REQUEST_METHOD"] == "HEAD":
            return self.stream(body)
        size = sum(map(len, body))
        if size >= (self._promised() or 0):  # less is an error, which the next layer tells
            self._prepare(size)
        if self._encoder is not None:
            body = [self._encoder.compress(b"".join(body)) + self._encoder.flush()]
            self._head[1].append(("Content-Length", str(len(body[0]))))
        self._pass_on()
        return body

    def stream(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """*body* as it is, or a stream of what its chunks become."""
        if self._write is None and self._head is not None and self._is_settled():
            self._prepare(self._promised())
            self._pass_on()
            return body
        self._body = body
        self._chunks = iter(body)
        return self

    def _is_settled(self) -> bool:
        """Whether the body goes as it is, whatever comes."""
        return self._environ["REQUEST_METHOD"] == "HEAD" or not self._is_worth(self._promised())

    def _promised(self) -> int | None:
        """What ``Content-Length`` says."""
        assert self._head is not None
        text = by_name(self._head[1]).get("content-length", "")
        return int(text) if text.isdecimal() else None

    def _is_worth(self, size: int | None) -> bool:
        assert self._head is not None
        status, headers = self._head
        return self._home.is_worth(status, by_name(headers), size, self._wish)

    def _prepare(self, size: int | None) -> None:
        """Finish the head of a body of *size* bytes (None: nobody knows), and choose the compressor."""
        assert self._head is not None
        status, headers = self._head
        coding = self._wish.coding
        if status.startswith("304"):
            headers = _revalidated(headers, self._environ.get("HTTP_IF_NONE_MATCH", ""))
        elif not self._is_worth(size):
            return
        elif coding is not None:
            headers = [*_recoded(headers), ("Content-Encoding", coding)]
            self._encoder = self._home.encoder(coding)
        self._head = status, varying(headers, "Accept-Encoding")

    def _pass_on(self) -> None:
        if self._head is None:
            raise RuntimeError("the application answered without calling start_response")
        self._write = self._send(*self._head)

    def _coded(self, chunk: bytes) -> bytes:
        """*chunk* in a form that the client can decode at once; empty when it is."""
        if not chunk:
            return b""
        if self._write is None:
            self._begin()
        self._left -= len(chunk)
        if self._encoder is None:
            return chunk
        coded: bytes = self._encoder.compress(chunk) + self._encoder.flush(zlib.Z_SYNC_FLUSH)
        return coded

    def _begin(self) -> None:
        if self._head is not None:
            promised = self._promised()
            self._prepare(promised)
            if self._encoder is not None:
                self._left = promised or 0
        self._pass_on()

    def _end(self) -> bytes:
        """What follows the last chunk."""
        if self._write is None:
            self._pass_on()  # an empty body stays empty
        if self._left > 0:
            raise ValueError(f"the body ended {self._left} bytes before its Content-Length")
        encoder, self._encoder = self._encoder, None
        return encoder.flush() if encoder is not None else b""

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        for chunk in self._chunks:
            if coded := self._coded(chunk):
                return coded
        if last := self._end():
            return last
        raise StopIteration

    def close(self) -> None:
        """Close the body inside."""
        if close := getattr(self._body, "close", None):
            close()


def _recoded(headers: Head) -> Iterator[tuple[str, str]]:
    """
    What is still true of the body when it is coded.

    Its bytes are others than those that a strong validator promises (RFC 9110, section 8.8.1), and no part
    of them can be asked for.
    """
    for name, value in headers:
        key = name.lower()
        if key == "etag" and not value.startswith("W/"):
            yield name, f"W/{value}"
        elif key not in ("content-length", "accept-ranges"):
            yield name, value


def _revalidated(headers: Head, validators: str) -> Head:
    """The head of a 304, whose ETag is the one that the client has (section 15.4.5)."""
    return [
        (name, f"W/{value}" if name.lower() == "etag" and f"W/{value}" in validators else value)
        for name, value in headers
    ]
