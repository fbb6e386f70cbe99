"""Which endpoint a request goes to, known before Flask sees it: the instrumentation needs the pattern."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from werkzeug.exceptions import BadRequest, HTTPException, MethodNotAllowed
from werkzeug.routing import Map, RequestRedirect, Rule

from patron.http.metrics import METRIC_SET
from patron.http.routes import METHODS, Route
from patron.observe import Instrument

__all__ = ["UNMATCHED", "Application", "Endpoint", "Match", "Router"]

UNMATCHED = "unmatched"

_RECENT = 1024
_LONGEST = 256
_KNOWN = frozenset((*METHODS, "TRACE", "CONNECT"))

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


def _label(method: str) -> str:
    """*method*, which is the client's word: unknown ones are one, or it could make series without end."""
    return method if method in _KNOWN else "other"


class Endpoint:
    """
    One pattern, the application behind it, and how it is observed. All threads share it.

    *admin* endpoints answer before the service has started. *route* says what holds for the
    processor behind it.
    """

    __slots__ = ("_instruments", "admin", "application", "max_body", "pattern", "stream", "timeout")

    def __init__(
        self, pattern: str, application: Application, *, admin: bool = False, route: Route | None = None
    ) -> None:
        self.pattern = pattern
        self.application = application
        self.admin = admin
        self.timeout = None if route is None else route.timeout
        self.max_body = None if route is None else route.max_body
        self.stream = route is not None and route.stream
        self._instruments: dict[str, Instrument] = {}

    def instrument(self, method: str) -> Instrument:
        """The instrument for *method*; made on the first request, when the process may count."""
        found = self._instruments.get(method)
        return found if found is not None else self._make(method)

    def _make(self, method: str) -> Instrument:
        label = _label(method)
        if label in self._instruments:
            return self._instruments[label]
        made = Instrument(
            "server",
            "http-server",
            self.pattern,
            name=f"{label} {self.pattern}",
            metrics=METRIC_SET,
            labels={"method": label, "path": self.pattern},
        )
        return self._instruments.setdefault(label, made)


class Match:
    """
    Where one request goes.

    *rule* and *args*, or *error*, are what Flask's own matching would say; with none of them Flask
    has to match by itself.
    """

    __slots__ = ("args", "endpoint", "error", "method", "path", "raw", "rule")

    def __init__(
        self,
        endpoint: Endpoint,
        method: str,
        path: str,
        raw: str,
        rule: Rule | None = None,
        args: Mapping[str, Any] | None = None,
        error: Exception | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.method = method
        self.path = path
        self.raw = raw
        self.rule = rule
        self.args = args
        self.error = error


class Router:
    """
    Admin routes first, then mounted applications, then Flask, then folders. All threads share it.

    *endpoint* makes the endpoint of a rule of Flask's and one method; without a rule the one of what
    nothing matches.
    """

    def __init__(
        self,
        endpoint: Callable[[Rule | None, str], Endpoint],
        url_map: Map,
        admin: Mapping[str, Endpoint],
        mounts: Mapping[str, Endpoint],
        folders: Mapping[str, Endpoint] | None = None,
    ) -> None:
        self._folders = folders or {}
        self._make = endpoint
        self._adapter = url_map.bind("localhost")
        self._admin = admin
        self._mounts = mounts
        self._unmatched = endpoint(None, "")
        self._endpoints: dict[tuple[str, str, str], Endpoint] = {}
        # (method, path) → where it goes: the rules without parameters that have matched so far, ...
        self._fixed: dict[tuple[str, str], tuple[Endpoint, Rule]] = {}
        # ... and paths with parameters that were asked for lately. A converter of the user's may decide otherwise
        # the next time. Any thread adds; at `_RECENT` entries all are forgotten.
        self._recent: dict[tuple[str, str], tuple[Endpoint, Rule, Mapping[str, Any]]] = {}
        self._remembers = url_map.converters == dict(Map.default_converters)

    def match(self, method: str, raw: str) -> Match:
        """Where *method* and *raw*, the path as WSGI has it, go. Never raises."""
        path = raw or "/"
        if not path.isascii() or not path.isprintable():
            decoded = _decoded(path)
            if decoded is None:
                error = BadRequest("the path has bytes that are no text")
                return Match(self._unmatched, method, ascii(path)[1:-1], raw, error=error)
            path = decoded
        if path in self._admin:
            return Match(self._admin[path], method, path, raw)
        if self._mounts and (mount := self._mounted(path)) is not None:
            return Match(mount, method, path, raw)
        return self._in_flask(method, path, raw)

    def _mounted(self, path: str) -> Endpoint | None:
        """The mounted application with the longest prefix of *path*."""
        while path:
            if path in self._mounts:
                return self._mounts[path]
            path = path.rpartition("/")[0]
        return None

    def _in_flask(self, method: str, path: str, raw: str) -> Match:
        fixed = self._fixed.get((method, path))
        if fixed is not None:
            return Match(fixed[0], method, path, raw, fixed[1], {})
        recent = self._recent.get((method, path))
        if recent is not None:
            # Hooks of Flask's may change the arguments.
            return Match(recent[0], method, path, raw, recent[1], dict(recent[2]))
        try:
            rule, args = self._adapter.match(path, method, return_rule=True)
        except RequestRedirect:
            # To a path with or without a slash; only Flask knows what the service is mounted at.
            return Match(self._unmatched, method, path, raw)
        except MethodNotAllowed as error:
            if method in ("GET", "HEAD") and (folder := self._folder(path)) is not None:
                return Match(folder, method, path, raw, error=error)
            return Match(self._other_method(path, error), method, path, raw, error=error)
        except HTTPException as error:
            return Match(self._folder(path) or self._unmatched, method, path, raw, error=error)
        except Exception as error:  # noqa: BLE001 - a converter of the user's: Flask makes it one failed request
            return Match(self._unmatched, method, path, raw, error=error)
        endpoint = self._endpoint(rule, method)
        if method in _KNOWN:
            self._remember(method, path, endpoint, rule, args)
        return Match(endpoint, method, path, raw, rule, args)

    def _remember(
        self, method: str, path: str, endpoint: Endpoint, rule: Rule, args: Mapping[str, Any]
    ) -> None:
        if not rule.arguments and not args and path == rule.rule:
            self._fixed[method, path] = endpoint, rule
        elif self._remembers and len(path) <= _LONGEST:
            if len(self._recent) >= _RECENT:
                self._recent.clear()
            self._recent[method, path] = endpoint, rule, dict(args)

    def _folder(self, path: str) -> Endpoint | None:
        """The folder with the longest prefix of *path*; it gives to Flask what it has no file for."""
        while self._folders and path:
            if path in self._folders:
                return self._folders[path]
            path = path.rpartition("/")[0]
        return self._folders.get("")

    def _endpoint(self, rule: Rule, method: str) -> Endpoint:
        method = _label(method)
        key = rule.rule, rule.endpoint, method
        found = self._endpoints.get(key)
        return found if found is not None else self._endpoints.setdefault(key, self._make(rule, method))

    def _other_method(self, path: str, error: MethodNotAllowed) -> Endpoint:
        """For Flask to refuse, but with the pattern that has other methods."""
        try:
            rule, _ = self._adapter.match(path, next(iter(error.valid_methods or ())), return_rule=True)
        except Exception:  # noqa: BLE001 - no pattern, whatever a converter of the user's has against the path
            return self._unmatched
        return self._endpoint(rule, "OPTIONS")


def _decoded(path: str) -> str | None:
    """*path* as text; None when it is no UTF-8, or has control characters, which belong in no log."""
    try:
        text = path.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return None
    return None if any(letter < " " or "\x7f" <= letter <= "\x9f" for letter in text) else text
