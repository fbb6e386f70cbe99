"""Cross-origin requests: which other sites' pages may read answers (the Fetch standard, section 3.3)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from patron.errors import ConfigError, Forbidden
from patron.http.vary import varying

__all__ = ["ERROR_HEADERS", "Cors", "CrossOrigin", "cors"]

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]
Head = list[tuple[str, str]]

ERROR_HEADERS = "patron.error_headers"
"""Where the WSGI environment holds the headers that an answer to an error gets as well."""

_HOST = re.compile(r"[\w.-]+(:\d+)?|\[[0-9a-f:.]+\](:\d+)?", re.ASCII | re.IGNORECASE)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ASKS_METHOD = "HTTP_ACCESS_CONTROL_REQUEST_METHOD"
_ASKS_HEADERS = "HTTP_ACCESS_CONTROL_REQUEST_HEADERS"
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Cors:
    """
    Which origins' pages may call the service, and how.

    Args:
        origins: such as ``https://shop.example``, compared exactly; ``*`` is every page there is.
        patterns: regular expressions for further origins, which match them as a whole.
        methods: what pages may do.
        headers: request headers that pages may set; ``*`` is all that they ask for.
        expose: headers of answers that pages may read, beyond the few that they always may.
        credentials: whether pages may send cookies and ``Authorization``; then *origins* must name them.
        max_age: seconds that a browser remembers what it may do.
    """

    origins: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    methods: tuple[str, ...] = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
    headers: tuple[str, ...] = ("Authorization", "Content-Type")
    expose: tuple[str, ...] = ()
    credentials: bool = False
    max_age: float = 600.0

    def __post_init__(self) -> None:
        for name in ("origins", "patterns", "methods", "headers", "expose"):
            object.__setattr__(self, name, _tuple(getattr(self, name)))
        if problems := [f"cors: {problem}" for problem in _problems(self)]:
            raise ConfigError(*problems)


def _tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else tuple(value)


def _problems(settings: Any) -> Iterator[str]:
    if not settings.origins and not settings.patterns:
        yield "origins are missing: name the pages' origins, such as https://shop.example, or '*'"
    for origin in settings.origins:
        yield from (f"origins: {problem}" for problem in _origin_problems(origin))
    for name in ("methods", "headers", "expose"):
        for word in getattr(settings, name):
            if not isinstance(word, str) or not _TOKEN.fullmatch(word):
                yield f"{name}: {word!r} is no name"
    age = settings.max_age
    if isinstance(age, bool) or not isinstance(age, int | float) or not 0 <= age < math.inf:
        yield f"max_age is {age!r}: use seconds from 0"
    yield from _pattern_problems(settings)
    if settings.credentials:
        yield from _credential_problems(settings)


def _origin_problems(origin: Any) -> Iterator[str]:
    if origin in ("*", "null"):
        return
    try:
        parts = urlsplit(str(origin))
        port = parts.port
    except ValueError as error:
        yield f"{origin!r} is no origin: {error}"
        return
    usual = _DEFAULT_PORTS.get(parts.scheme)
    host = parts.netloc.rpartition(":")[0] if port is not None and port == usual else parts.netloc
    wanted = f"{parts.scheme}://{host}".lower()
    if not parts.scheme or not _HOST.fullmatch(host):
        yield f"{origin!r} is no origin: write https://shop.example, with its port if that is not the usual one"
    elif origin != wanted:
        yield f"{origin!r} is nothing that a browser sends: write {wanted}"


def _pattern_problems(settings: Any) -> Iterator[str]:
    for pattern in settings.patterns:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            yield f"patterns: {pattern!r} is no regular expression: {error}"


def _credential_problems(settings: Any) -> Iterator[str]:
    """With credentials every page that may read answers reads those of the person who looks at it."""
    for origin in settings.origins:
        if origin in ("*", "null"):
            yield f"credentials do not go with the origin {origin!r}, which any page may have: name the origins"
    for pattern in settings.patterns:
        if _matches_anything(pattern):
            yield f"credentials do not go with the pattern {pattern!r}, which matches any page: make it narrower"


def _matches_anything(pattern: Any) -> bool:
    try:
        expression = re.compile(pattern)
    except (re.error, TypeError):
        return False
    return any(
        expression.fullmatch(origin)
        for origin in ("null", "https://an.other.invalid", "http://other.invalid")
    )


class CrossOrigin:
    """
    WSGI middleware that answers what browsers ask beforehand, and marks the answers that pages may read.

    All threads call it.
    """

    def __init__(self, application: Application, settings: Cors) -> None:
        self._application = application
        self._settings = settings
        self._origins = frozenset(settings.origins)
        self._patterns = tuple(re.compile(pattern) for pattern in settings.patterns)
        self._is_public = "*" in self._origins  # then all answers say the same, so they do not vary
        self._methods = ", ".join(settings.methods)
        self._expose = (
            [("Access-Control-Expose-Headers", ", ".join(settings.expose))] if settings.expose else []
        )

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        origin = environ.get("HTTP_ORIGIN")
        ours = self.headers(origin)
        environ[ERROR_HEADERS] = ours
        if environ["REQUEST_METHOD"] == "OPTIONS" and origin is not None and _ASKS_METHOD in environ:
            return self._preflight(origin, environ, start_response)

        def start(status: str, headers: Head, exc_info: Any = None) -> Any:
            return start_response(status, _joined(headers, ours), exc_info)

        return self._application(environ, start)

    def headers(self, origin: str | None) -> Head:
        """What an answer to a page of *origin* gets; None: the request comes from no page."""
        if self._is_public:
            return [("Access-Control-Allow-Origin", "*"), *self._expose]
        if origin is None or not self._allows(origin):
            return [("Vary", "Origin")]
        return [*self._allowance(origin), *self._expose, ("Vary", "Origin")]

    def _allows(self, origin: str) -> bool:
        return origin in self._origins or any(pattern.fullmatch(origin) for pattern in self._patterns)

    def _allowance(self, origin: str) -> Head:
        allowed = [("Access-Control-Allow-Origin", origin)]
        return (
            [*allowed, ("Access-Control-Allow-Credentials", "true")]
            if self._settings.credentials
            else allowed
        )

    def _preflight(self, origin: str, environ: Mapping[str, Any], start: Any) -> Iterable[bytes]:
        if not self._is_public and not self._allows(origin):
            raise Forbidden({"error": f"pages of {origin[:200]} may not call this service"})
        headers = [
            *self.headers(origin),
            ("Access-Control-Allow-Methods", self._methods),
            ("Access-Control-Max-Age", str(int(self._settings.max_age))),
        ]
        if allowed := ", ".join(self._allowed_headers(environ.get(_ASKS_HEADERS, ""))):
            headers.append(("Access-Control-Allow-Headers", allowed))
        start(
            "204 No Content",
            varying(headers, "Access-Control-Request-Method", "Access-Control-Request-Headers"),
        )
        return []

    def _allowed_headers(self, asked: str) -> Sequence[str]:
        """A star of the standard's own means no ``Authorization``, and nothing at all with credentials."""
        if "*" not in self._settings.headers:
            return self._settings.headers
        return [name for word in asked.split(",") if _TOKEN.fullmatch(name := word.strip())]


def _joined(headers: Head, ours: Head) -> Head:
    """*headers* with *ours*, unless the application has said by itself who may read the answer."""
    if any(name.lower() == "access-control-allow-origin" for name, _ in headers):
        return varying(headers, "Origin")
    added = [pair for pair in ours if pair[0] != "Vary"]
    return [*headers, *added] if len(added) == len(ours) else varying([*headers, *added], "Origin")


def cors(origins: Iterable[str], **options: Any) -> Callable[[Application], CrossOrigin]:
    """
    A middleware for ``Service(middlewares=[...])``: the options are those of `Cors`.

    Raises:
        ConfigError: they are wrong, or do not go together.
    """
    settings = Cors(_tuple(origins), **options)
    return lambda application: CrossOrigin(application, settings)
