"""The live cache of one route: looks up, decides, lets one request run the processor, and keeps what it got."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Mapping
from typing import Any

from patron.errors import DeadlineExceeded
from patron.http.auth import Principal
from patron.http.caching.capture import Answer
from patron.http.caching.decision import (
    HIT,
    REVALIDATION_FAILED,
    STALE,
    Entitlement,
    Verdict,
    decide,
    may_join,
)
from patron.http.caching.directives import NO_WISHES, Wishes, wishes
from patron.http.caching.entry import Entry
from patron.http.caching.failing import is_failure, tell
from patron.http.caching.flight import Flight, Flights
from patron.http.caching.keeping import Rules
from patron.http.caching.key import Keys
from patron.http.caching.marks import Marks
from patron.http.caching.metrics import Tally
from patron.http.caching.replay import replay
from patron.http.caching.settings import RouteCache
from patron.http.caching.shelf import Shelf
from patron.reliability.deadline import remaining

__all__ = ["Cache", "Run"]

Run = Callable[[dict[str, Any]], Answer]
"""Runs the processor for the request in this WSGI environment."""

wall_clock: Callable[[], float] = time.time
"""Seconds since the epoch for the caches that are made from now on; a test may put its own here."""

#: What only the cache itself may answer; the processor is asked for the whole.
_OURS = ("HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_RANGE", "HTTP_IF_RANGE")

#: Why an answer is not for others, though what others have may still be right.
_PERSONAL = frozenset(("cookie", "set_cookie", "vary"))

# Whether a run is under way in this context: what it asks for in its turn must not wait for another run.
_running: contextvars.ContextVar[bool] = contextvars.ContextVar("patron_cache_running", default=False)


class Cache:
    """
    The cache of one route. All threads share it; it is opened after the fork.

    Args:
        settings: must be enabled.
        route: the pattern, for keys and metrics.
        service: its name, for keys that several services can see.
        authenticated: whether there is an authenticator of ours, so that each principal has entries of its own.
        watches: whether other processes may call `invalidate` for what this one keeps.
        marks: of the paths for which `invalidate` was called, where several caches share them.
        clock: seconds since the epoch; for tests.
    """

    def __init__(
        self,
        settings: RouteCache,
        route: str,
        *,
        service: str = "service",
        authenticated: bool = False,
        watches: bool = True,
        marks: Marks | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._settings = settings
        self._route = route
        self._authenticated = authenticated
        self._clock = clock or wall_clock
        self._keys = Keys(service, route, settings, private=authenticated)
        self._rules = Rules(settings, private=authenticated)
        self._tally = Tally(route)
        self._flights: Flights[Entry] = Flights()
        self._shelf = Shelf(settings, route, service, self._tally, watches=watches and settings.invalidate)
        self._marks = marks or Marks(settings.outlived)

    def open(self, resources: Mapping[str, Any] | None = None) -> None:
        """
        Open the store; without this it is opened at the first request, and can be no resource.

        Raises:
            ConfigError: there is no such store.
        """
        self._shelf.open(resources)

    def close(self) -> None:
        """Close the store. May be called twice."""
        self._shelf.close()

    def invalidate(self, path: str) -> None:
        """
        Serve nothing any more of what was kept for *path*, as WSGI has it in ``PATH_INFO``, in any form.

        In a store that processes share it is so for all of them, in any other one for this process. Never raises.
        """
        if not self._settings.invalidate:
            return
        if not self._shelf.mark(self._keys.mark_of(path), self._settings.outlived):
            self._marks.change(path)
        self._tally.count("invalidated")

    def answer(self, environ: dict[str, Any], accepted: str, principal: Principal | None, run: Run) -> Answer:
        """
        The answer to the request in *environ*, which is GET or HEAD, from the store or from *run*.

        Blocks while another request runs the processor for the same key, as long as its own deadline
        allows. Raises what *run* raises, and `DeadlineExceeded`.
        """
        # What most requests do not have is looked for here, without a call: this is the way of every hit.
        asks = "HTTP_CACHE_CONTROL" in environ or "HTTP_PRAGMA" in environ
        wanted = wishes(environ) if asks else NO_WISHES
        special = self._authenticated or "HTTP_AUTHORIZATION" in environ or not _has_no_body(environ)
        if special and (reason := self._bypass(environ, principal)):
            return self._bypassed(reason, environ, wanted, run)
        key = self._keys.of(environ, accepted, principal)
        if self._marks.any:
            key += self._marks.of(environ.get("PATH_INFO", ""))
        landings = self._flights.landings
        entry, mark = self._find(key, environ)
        if entry is None:
            verdict, age = decide(wanted, None, _NOTHING), 0.0
        else:
            age = self._age(entry)
            verdict = self._verdict(wanted, age, entry)
        self._tally.count(verdict.lookup, verdict.reason)
        if verdict.act == "serve" and entry is not None:
            return replay(entry, environ, age, verdict.warnings)
        if verdict.lookup == "replaced":
            self._tally.aged(age)
        if verdict.act == "refuse":
            return self._refuse()
        return self._fill(_Call(environ, key, wanted, run, entry, landings, mark))

    def _find(self, key: str, environ: Mapping[str, Any]) -> tuple[Entry | None, str]:
        """The entry for *key*, and the mark that its path has in the store."""
        if self._shelf.shared:
            return self._shelf.marked(key, self._keys.mark_of(environ.get("PATH_INFO", "")))
        return self._shelf.get(key), ""

    def _verdict(self, wanted: Wishes, age: float, entry: Entry) -> Verdict:
        if wanted is NO_WISHES and age < entry.lifetime:
            return HIT
        return decide(wanted, age, Entitlement(entry.lifetime, self._settings.min, entry.window))

    def _bypass(self, environ: Mapping[str, Any], principal: Principal | None) -> str:
        """Why this request must not meet the store; empty when it may."""
        if not _has_no_body(environ):
            return "body"  # what it says is not in the key
        if not self._authenticated:
            return "authorization" if "HTTP_AUTHORIZATION" in environ else ""
        return "" if _is_known(principal, environ) else "principal"

    def _bypassed(self, reason: str, environ: dict[str, Any], wanted: Wishes, run: Run) -> Answer:
        if wanted.only_if_cached:
            self._tally.count("miss")
            return self._refuse()
        self._tally.count("bypass", reason)
        return run(environ)

    def _refuse(self) -> Answer:
        self._tally.count("refused")
        return Answer("504 Gateway Timeout", [("Content-Length", "0")], [])

    # From here on somebody has to run the processor.

    def _fill(self, call: _Call) -> Answer:
        if call.wishes.no_store:
            return self._run(call)[0]
        flight, leads = self._flights.board(call.flight)
        if flight is None:
            return self._run(call)[0]
        if leads:
            return self._lead(call, flight)
        if _running.get() or not may_join(call.wishes, self._flights.running(flight), self._settings.min):
            return self._run(call)[0]
        return self._join(call, flight)

    def _lead(self, call: _Call, flight: Flight[Entry]) -> Answer:
        entry = None
        try:
            entry = self._landed_meanwhile(call)
            if entry is not None:
                return self._coalesced(call, entry)
            answer, entry = self._run(call)
            return answer
        finally:
            self._flights.land(call.flight, flight, entry)

    def _join(self, call: _Call, flight: Flight[Entry] | None) -> Answer:
        """Wait for the run of another request; when it fails for the next one, as long as there is time."""
        left, patience = remaining(), self._settings.wait
        hurries = left is not None and left <= patience
        until = time.monotonic() + (left if left is not None and hurries else patience)
        leads = False
        while flight is not None and not leads:
            if not flight.wait(max(0.0, until - time.monotonic())):
                return self._late(call, hurries)
            if flight.result is not None:
                return self._coalesced(call, flight.result)
            # One of those who waited leads now, or everybody does when the answer is not for others.
            flight, leads = self._flights.board(call.flight)
        return self._run(call)[0] if flight is None else self._lead(call, flight)

    def _late(self, call: _Call, hurries: bool) -> Answer:
        if not hurries:
            return self._run(call)[0]
        return self._failed(call, "deadline", DeadlineExceeded("another request's run took too long"))

    def _landed_meanwhile(self, call: _Call) -> Entry | None:
        """The entry of a run that ended between this request's lookup and now."""
        if self._flights.landings == call.landings:
            return None
        entry, _ = self._find(call.key, call.environ)
        if entry is None or entry is call.old:
            return None
        age = self._age(entry)
        return entry if self._verdict(call.wishes, age, entry).act == "serve" else None

    def _coalesced(self, call: _Call, entry: Entry) -> Answer:
        self._tally.count("coalesced")
        return replay(entry, call.environ, self._age(entry))

    def _run(self, call: _Call) -> tuple[Answer, Entry | None]:
        """Run the processor: the answer, and the entry that others may have, too."""
        token = _running.set(True)
        try:
            answer = call.run(_for_the_whole(call.environ))
        except BaseException as error:  # noqa: BLE001 - even SystemExit is one failed request
            if is_failure(error):
                return self._failed(call, "error", error), None
            return self._not_kept(call, "status", error)
        finally:
            _running.reset(token)
        if answer.code >= 500:
            return self._failed(call, "error", answer), None
        kept = self._rules.entry(answer, call.environ, self._clock())
        if call.wishes.no_store:
            kept = "no_store"
        if isinstance(kept, str):
            return self._not_kept(call, kept, answer)
        kept.mark = call.mark
        self._flights.remember(call.flight, shared=True)
        self._keep(call, kept)
        return replay(kept, call.environ, self._age(kept)), kept

    def _not_kept(
        self, call: _Call, reason: str, outcome: Answer | BaseException
    ) -> tuple[Answer, Entry | None]:
        """An answer for this client alone. What was kept before may not be the answer any more."""
        self._tally.count("not_cacheable", reason)
        if not call.wishes.no_store:
            self._flights.remember(call.flight, shared=False)
            if call.old is not None and reason not in _PERSONAL:
                self._shelf.delete(call.key)
        if isinstance(outcome, BaseException):
            raise outcome
        return _for_the_method(outcome, call.environ), None

    def _failed(self, call: _Call, reason: str, outcome: Answer | BaseException) -> Answer:
        """The old entry in the place of a failure, as far as there is one, else the failure."""
        self._tally.count("failed", reason)
        old = call.old
        age = 0.0 if old is None else self._age(old)
        if old is None or not self._settings.stale_if_error or age >= old.lifetime + old.window:
            if isinstance(outcome, BaseException):
                raise outcome
            return _for_the_method(outcome, call.environ)
        self._tally.count("stale")
        if isinstance(outcome, BaseException):
            tell(outcome, call.environ, self._route)
        else:
            outcome.close()
        warnings = (REVALIDATION_FAILED,) if age < old.lifetime else (STALE, REVALIDATION_FAILED)
        return replay(old, call.environ, age, warnings)

    def _keep(self, call: _Call, entry: Entry) -> None:
        if self._shelf.keep(call.key, entry, entry.lifetime + entry.window - self._age(entry)):
            self._tally.count("added")
        else:
            self._tally.count("not_cacheable", "store")

    def _age(self, entry: Entry) -> float:
        return max(0.0, self._clock() - entry.born)


_NOTHING = Entitlement(0.0)


class _Call:
    """A request for which the processor has to be run, by it or by another one."""

    __slots__ = ("environ", "flight", "key", "landings", "mark", "old", "run", "wishes")

    def __init__(
        self,
        environ: dict[str, Any],
        key: str,
        wanted: Wishes,
        run: Run,
        old: Entry | None,
        landings: int,
        mark: str,
    ) -> None:
        self.environ = environ
        self.key = key
        self.wishes = wanted
        self.run = run
        self.old = old
        self.landings = landings
        self.mark = mark
        # What was made for a request with cookies can often not be shared: let no others wait for it.
        self.flight = f"{key}\0{mark}\0cookie" if "HTTP_COOKIE" in environ else f"{key}\0{mark}"


def _has_no_body(environ: Mapping[str, Any]) -> bool:
    length = environ.get("CONTENT_LENGTH")
    return (not length or length == "0") and "HTTP_TRANSFER_ENCODING" not in environ


def _is_known(principal: Principal | None, environ: Mapping[str, Any]) -> bool:
    """Whether *principal* is one, and not just somebody: authenticators may say only yes."""
    if principal is None:
        return False
    return principal.name != "anonymous" or "HTTP_AUTHORIZATION" in environ


def _for_the_whole(environ: dict[str, Any]) -> dict[str, Any]:
    """*environ* as the processor sees it, which makes the whole representation for all kinds of requests."""
    if environ["REQUEST_METHOD"] == "GET" and environ.keys().isdisjoint(_OURS):
        return environ
    whole = {name: value for name, value in environ.items() if name not in _OURS}
    whole["REQUEST_METHOD"] = "GET"
    return whole


def _for_the_method(answer: Answer, environ: Mapping[str, Any]) -> Answer:
    return answer.without_body() if environ["REQUEST_METHOD"] == "HEAD" else answer
