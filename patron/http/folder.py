"""The WSGI application of a folder: sends its files whole, in part, or says that the client has them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, BinaryIO
from urllib.parse import quote

from werkzeug.http import http_date

from patron.errors import HTTPError, MethodNotAllowed
from patron.http.auth import identify
from patron.http.codings import wish
from patron.http.conditions import part, precondition
from patron.http.failure import STATUS_LINES
from patron.http.files import File, content_type, is_asset, open_file, safe_segments
from patron.http.message import Request
from patron.http.negotiate import parse
from patron.http.static import StaticFiles

__all__ = ["Folder"]

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]
Head = list[tuple[str, str]]

_METHODS = "GET, HEAD, OPTIONS"
_CHUNK = 65536
_SUFFIXES = {"br": ".br", "gzip": ".gz"}


class Folder:
    """
    The WSGI application of *settings*; what it has no file for goes to *otherwise*. All threads call it.

    The folder is resolved with each request, so that a deployment may exchange it.
    """

    def __init__(self, settings: StaticFiles, otherwise: Application) -> None:
        self._settings = settings
        self._otherwise = otherwise
        self._folder = os.path.abspath(settings.folder)
        self._prefix = settings.prefix.rstrip("/")
        self._excluded = tuple(path.rstrip("/") + "/" for path in settings.exclude)
        self._codings = tuple(_SUFFIXES) if settings.precompressed else ()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if self._settings.authenticator is not None:
            identify(self._settings.authenticator, Request(environ, {}, self._settings.pattern))
        path = _text(environ.get("PATH_INFO", ""))
        names = safe_segments(path[len(self._prefix) + 1 :])
        if names is None:
            return self._otherwise(environ, start_response)
        root = os.path.realpath(self._folder)
        if names[-1] and (file := self._opened(environ, root, names)):
            return self._answer(file, environ, start_response, self._cache_control())
        if file := self._index(environ, root, names):
            if path.endswith("/"):
                return self._answer(file, environ, start_response, "no-cache")
            file.stream.close()  # its links would lead elsewhere without the slash
            return _moved(environ, start_response)
        if self._falls_back(environ, path) and (file := self._fallback(environ, root)):
            return self._answer(file, environ, start_response, "no-cache", varies="Accept")
        return self._otherwise(environ, start_response)

    def _index(self, environ: Mapping[str, Any], root: str, names: Sequence[str]) -> File | None:
        """The page of the directory *names*."""
        index = self._settings.index
        return self._opened(environ, root, (*filter(None, names), index)) if index is not None else None

    def _fallback(self, environ: Mapping[str, Any], root: str) -> File | None:
        return self._opened(environ, root, str(self._settings.fallback).split("/"))

    def _falls_back(self, environ: Mapping[str, Any], path: str) -> bool:
        """Whether a person's browser asks for a page, which the application in it knows."""
        return (
            self._settings.fallback is not None
            and environ["REQUEST_METHOD"] in ("GET", "HEAD")
            and not (path + "/").startswith(self._excluded)
            and _wants_page(environ.get("HTTP_ACCEPT", ""))
            and not is_asset(path.rpartition("/")[2])
        )

    def _opened(self, environ: Mapping[str, Any], root: str, names: Sequence[str]) -> File | None:
        """The file, or the one beside it that has its content in a coding that the client wants."""
        accepted = environ.get("HTTP_ACCEPT_ENCODING")
        offers = self._codings
        while coding := wish(accepted, offers).coding if offers else None:
            packed = open_file(root, (*names[:-1], names[-1] + _SUFFIXES[coding]))
            if packed is not None:
                return packed._replace(content_type=content_type(names[-1]), coding=coding)
            offers = tuple(offer for offer in offers if offer != coding)
        return open_file(root, names)

    def _cache_control(self) -> str:
        age = self._settings.max_age
        if age is None:
            return "no-cache"  # which is: ask each time whether it has changed
        shared = "public" if self._settings.authenticator is None else "private"
        return f"{shared}, max-age={int(age)}{', immutable' if self._settings.immutable else ''}"

    def _answer(
        self, file: File, environ: dict[str, Any], start: Any, cache_control: str, varies: str = ""
    ) -> Iterable[bytes]:
        """What the request wants of *file*, which is closed at the end."""
        vary = [name for name in (varies, "Accept-Encoding" if self._codings else "") if name]
        headers = [("ETag", file.etag), ("Cache-Control", cache_control)]
        headers += [("Vary", ", ".join(vary))] if vary else []
        headers += [("Last-Modified", http_date(file.modified))] if file.modified is not None else []
        try:
            body = _answered(file, environ, start, headers)
        except BaseException:
            file.stream.close()
            raise
        if not isinstance(body, _Chunks):
            file.stream.close()
        return body


def _answered(file: File, environ: dict[str, Any], start: Any, headers: Head) -> Iterable[bytes]:
    method = environ["REQUEST_METHOD"]
    if method not in ("GET", "HEAD"):
        return _other_method(method, start)
    status = precondition(environ, file.etag, file.modified)
    if status == 412:
        raise HTTPError(status=412)
    if status == 304:
        start(STATUS_LINES[304], headers)
        return []
    wanted = part(environ, file.size, file.etag, file.modified) if method == "GET" else None
    return _sent(
        file, range(file.size) if wanted is None else wanted, wanted is not None, method, start, headers
    )


def _sent(
    file: File, wanted: range, is_part: bool, method: str, start: Any, headers: Head
) -> Iterable[bytes]:
    headers += [("Content-Type", file.content_type), ("Content-Length", str(len(wanted)))]
    headers += [("Accept-Ranges", "bytes"), ("X-Content-Type-Options", "nosniff")]
    headers += [("Content-Encoding", file.coding)] if file.coding is not None else []
    if is_part:
        if not wanted:
            raise HTTPError(status=416, headers={"Content-Range": f"bytes */{file.size}"})
        headers.append(("Content-Range", f"bytes {wanted[0]}-{wanted[-1]}/{file.size}"))
    start(STATUS_LINES[206 if is_part else 200], headers)
    if method == "HEAD":
        return []
    file.stream.seek(wanted.start)
    chunks = _Chunks(file.stream, len(wanted))
    return list(chunks) if len(wanted) <= _CHUNK else chunks


def _other_method(method: str, start: Any) -> Iterable[bytes]:
    if method != "OPTIONS":
        raise MethodNotAllowed(headers={"Allow": _METHODS})
    start(STATUS_LINES[204], [("Allow", _METHODS)])
    return []


def _moved(environ: Mapping[str, Any], start: Any) -> Iterable[bytes]:
    """To the same path with a slash; without a host, and no way to name one in the path (//host)."""
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    location = "/" + quote(path.encode("latin-1")).lstrip("/") + "/"
    if query := environ.get("QUERY_STRING"):
        location += f"?{query}"
    start(STATUS_LINES[308], [("Location", location), ("Content-Length", "0")])
    return []


class _Chunks:
    """*left* bytes of a file that closes it; fewer when it has become shorter, which the next layer notices."""

    def __init__(self, stream: BinaryIO, left: int) -> None:
        self._stream = stream
        self._left = left

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        data = self._stream.read(min(_CHUNK, self._left))
        if not data:
            raise StopIteration
        self._left -= len(data)
        return data

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def _text(path: str) -> str:
    """A path of WSGI as text; what is no UTF-8 becomes a mark, which no file's name has."""
    return path if path.isascii() else path.encode("latin-1").decode("utf-8", "replace")


@lru_cache(maxsize=256)
def _pages(accept: str) -> bool:
    return any(wanted.quality > 0 and (wanted.type, wanted.subtype) in _PAGES for wanted in parse(accept))


_PAGES = (("text", "html"), ("application", "xhtml+xml"))


def _wants_page(accept: str) -> bool:
    """Whether ``Accept`` names pages, as browsers do for what they show; ``*/*`` is what scripts send."""
    return _pages(accept[:1024])
