"""What a processor gets and gives: `Request` and `Response`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, overload
from urllib.parse import parse_qsl

from patron import correlation, encoding
from patron.errors import BadRequest, DecodeError, UnknownContentType, UnsupportedMediaType
from patron.http.body import Body
from patron.http.remote import client_address

if TYPE_CHECKING:
    from patron.http.auth import Principal

__all__ = ["Headers", "Request", "Response"]

T = TypeVar("T")


@lru_cache(maxsize=1024)
def _key(name: str) -> str:
    key = name.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + key


class Headers(Mapping[str, str]):
    """
    The headers of a request, by name in any case; a view of the WSGI environment.

    Several lines of one name are one value, joined by commas. Bytes that are not ASCII are read as
    latin-1, since headers have no other charset (RFC 9110, section 5.5).
    """

    __slots__ = ("_environ",)

    case_insensitive = True

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._environ = environ

    def get(self, name: str, default: Any = None) -> Any:
        """The value of the header *name*, or *default*."""
        return self._environ.get(_key(name), default)

    def __getitem__(self, name: str) -> str:
        value = self._environ.get(_key(name))
        if value is None:
            raise KeyError(name)
        return str(value)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and _key(name) in self._environ

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        for key in self._environ:
            if key.startswith("HTTP_"):
                yield key[5:].replace("_", "-").title()
            elif key in ("CONTENT_TYPE", "CONTENT_LENGTH") and self._environ[key]:
                yield key.replace("_", "-").title()

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<Headers {', '.join(self)}>"  # no values: some are secrets


class Request:
    """
    One HTTP request, for one processor; the thread that runs it owns it.

    Attributes:
        method: in capitals.
        route: the pattern that matched, ``/orders/<id>``.
        params: the path's parameters, converted as the pattern says.
        headers: by name in any case.
        accepted: the media type that a payload will be encoded in.
        principal: who asks, where the route has an authenticator, else None.
        environ: the WSGI environment.
    """

    __slots__ = ("_body", "_fields", "accepted", "environ", "headers", "params", "principal", "route")

    def __init__(
        self,
        environ: dict[str, Any],
        params: Mapping[str, Any],
        route: str = "",
        accepted: str = encoding.JSON,
    ) -> None:
        self.environ = environ
        self.params = params
        self.route = route
        self.accepted = accepted
        self.headers = Headers(environ)
        self.principal: Principal | None = None
        self._body: bytes | None = None
        self._fields: Mapping[str, Any] | None = None

    @property
    def method(self) -> str:
        """The method, in capitals."""
        return str(self.environ["REQUEST_METHOD"])

    @property
    def path(self) -> str:
        """The path that was asked for, decoded."""
        path: str = self.environ.get("SCRIPT_NAME", "") + self.environ.get("PATH_INFO", "")
        return path if path.isascii() else path.encode("latin-1").decode("utf-8", "replace")

    @property
    def query(self) -> str:
        """What stands behind the ``?``, as it came."""
        return str(self.environ.get("QUERY_STRING", ""))

    @property
    def fields(self) -> Mapping[str, Any]:
        """The first value of each query parameter, and over them the parameters of the path."""
        if self._fields is None:
            self._fields = {**_first_values(self.query), **self.params}
        return self._fields

    @property
    def remote(self) -> str | None:
        """The address of the peer, which may be a proxy."""
        return self.environ.get("REMOTE_ADDR") or None

    @property
    def client(self) -> str | None:
        """The address of the client, as far as ``http.trusted_proxies`` tell it; without them the peer's."""
        return client_address(self.environ)

    @property
    def correlation_id(self) -> str:
        """The correlation id of this request."""
        return correlation.current() or ""

    @property
    def content_type(self) -> str | None:
        """The ``Content-Type`` of the body, or None."""
        return self.environ.get("CONTENT_TYPE") or None

    @property
    def raw(self) -> Body:
        """The body as a stream: ``read``, ``readline``, iteration. Reading past the limit is a 413."""
        stream = self.environ["wsgi.input"]
        # Without a length there is no body, but some servers' streams would wait for one.
        return stream if isinstance(stream, Body) else Body(stream, 0, 0)

    def body(self) -> bytes:
        """The whole body; it is read once and kept."""
        if self._body is None:
            self._body = self.raw.read()
        return self._body

    @overload
    def decode(self) -> Any: ...
    @overload
    def decode(self, into: type[T]) -> T: ...
    def decode(self, into: Any = None) -> Any:
        """
        The body, decoded by its ``Content-Type`` (JSON when it has none) and checked against *into*.

        Raises:
            BadRequest: it is broken or of another shape; the payload names the wrong ``fields``.
                The `DecodeError` is its ``__cause__``.
            UnsupportedMediaType: there is no codec for its type, or it has a ``Content-Encoding``.
        """
        _refuse_coded(self.environ.get("HTTP_CONTENT_ENCODING", ""))
        try:
            return encoding.decode(self.body(), self.content_type, into)
        except DecodeError as error:
            details = {"fields": dict(error.fields)} if error.fields else {}
            raise BadRequest({"error": str(error), **details}) from error
        except UnknownContentType as error:
            raise UnsupportedMediaType({"error": str(error)}, headers={"Accept": _accept()}) from error

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.path}>"


def _first_values(query: str) -> dict[str, str]:
    values: dict[str, str] = {}
    if query:
        for name, value in parse_qsl(query, keep_blank_values=True):
            values.setdefault(name, value)
    return values


def _refuse_coded(coding: str) -> None:
    """A small compressed body may be an endless one: who wants it reads ``raw``."""
    if coding and coding.strip().lower() != "identity":
        raise UnsupportedMediaType(
            {"error": f"bodies with Content-Encoding {coding[:50]!r} are not read: send it without"},
            headers={"Accept-Encoding": "identity"},  # RFC 9110, section 15.5.16
        )


def _accept() -> str:
    return ", ".join(encoding.media_types())


@dataclass(slots=True)
class Response:
    """
    What a processor answers.

    Args:
        payload: encoded by the ``Accept`` header. With *content_type* a string or bytes are sent as
            they are; bytes without one are ``application/octet-stream``. An iterator of bytes is
            streamed. None is an empty body.
        status: None is 204 without a payload, 201 for POST, else 200.
        headers: sent as well; several values of one name are a list.
        content_type: overrides the negotiated one.
    """

    payload: Any = None
    status: int | None = None
    headers: Mapping[str, str | list[str]] | None = None
    content_type: str | None = None
