"""The metrics of the route cache, and what binds them to a route."""

from __future__ import annotations

from typing import Any

from patron.observe import metrics
from patron.observe.metrics import Counter, Histogram

__all__ = ["EXPIRATION", "METRICS", "OPERATIONS", "Tally"]

# Every lookup is one of hit, miss, replaced (there was an entry, but not for this request; the reason is expired,
# max_age, min_fresh, no_cache, no_store) and bypass (reason: authorization, principal, body).
# Every miss and replaced ends as one of added, not_cacheable (with the reason), coalesced (another request's run
# answered), refused (only-if-cached) and failed (reason: error, deadline):
# misses + replaced = added + not_cacheable + coalesced + refused + failed.
# Beside these: invalidated (an unsafe request hid what was kept for its path), evicted (by the store; reason:
# capacity, expired), stale (an old entry in the place of a failure) and error (of the store; reason: get, set,
# delete, decode, mark).
OPERATIONS = Counter(
    "http_cache_handler_operations_total",
    "What the route cache did.",
    ("route", "operation", "reason"),
)

# How old an entry was when it was replaced, or when the store removed it.
EXPIRATION = Histogram(
    "http_cache_handler_expiration_seconds",
    "Age of entries of the route cache when they were replaced or evicted.",
    ("route",),
    (1.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0),
)

METRICS = (OPERATIONS, EXPIRATION)


class Tally:
    """The counters of one route; children are bound once. All threads share it."""

    def __init__(self, route: str) -> None:
        self._route = route
        self._counters: dict[tuple[str, str], Any] = {}
        self._ages: Any = None
        self._epoch = -1

    def count(self, operation: str, reason: str = "") -> None:
        """One more *operation*."""
        if self._epoch != metrics.epoch:
            self._forget()
        counter = self._counters.get((operation, reason))
        if counter is None:
            bound = OPERATIONS.bind_values((self._route, operation, reason))
            counter = self._counters[operation, reason] = bound.inc
        counter()

    def aged(self, seconds: float) -> None:
        """An entry of this age was replaced or evicted."""
        if self._epoch != metrics.epoch:
            self._forget()
        if self._ages is None:
            self._ages = EXPIRATION.bind_values((self._route,)).observe
        self._ages(seconds)

    def evicted(self, reason: str, age: float) -> None:
        """The store removed an entry by itself."""
        self.count("evicted", reason)
        self.aged(age)

    def _forget(self) -> None:
        self._counters, self._ages, self._epoch = {}, None, metrics.epoch
