"""How often something may be asked: token buckets by address, by principal or for all, and 429 for what is too much."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from patron.cache.spec import store_problems
from patron.errors import ConfigError

if TYPE_CHECKING:
    from patron.http._limits_enforced import Limiter
    from patron.http._limits_wsgi import Limited

__all__ = ["RateLimit", "limited", "limiter"]

_BY = ("address", "principal", "route")
_OUTAGE = ("allow", "refuse")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """
    At most *rate* requests in *per* seconds, and up to *burst* of them at once: a token bucket.

    In any span of *t* seconds at most ``burst + rate * t / per`` are let in. The others are answered with 429.

    Args:
        rate: requests.
        per: seconds.
        burst: requests that may come at once, after a pause; None is *rate*, at least 1.
        by: who has a bucket: each ``address`` (in front of the authenticator), each ``principal`` (behind it), or the
            ``route`` as a whole.
        store: ``memory``, where each worker process has its share of *rate* and *burst*; the URL of a Redis
            server, or the name of a resource that is a `patron.cache.RedisStore`: all who lead there share them.
        outage: what happens to requests while the store fails: ``allow`` or ``refuse`` (503).

    Raises:
        ConfigError: a value is wrong; all of them at once.
    """

    rate: float
    per: float = 1.0
    burst: int | None = None
    by: Literal["address", "principal", "route"] = "address"
    store: str = field(default="memory", repr=False)  # a URL may have a password in it
    outage: Literal["allow", "refuse"] = "allow"

    def __post_init__(self) -> None:
        if problems := [f"rate limit: {problem}" for problem in _problems(self)]:
            raise ConfigError(*problems)

    @property
    def tokens(self) -> int:
        """How many requests may come at once."""
        return max(1, int(self.rate)) if self.burst is None else self.burst

    def __str__(self) -> str:
        return f"{self.rate:g}/{self.per:g}s by {self.by}, burst {self.tokens}"


def _problems(limit: Any) -> Iterator[str]:
    wrong = [name for name in ("rate", "per") if not _is_number(getattr(limit, name))]
    for name in wrong:
        yield f"{name} is {getattr(limit, name)!r}: use a number above 0"
    if not wrong and not 1e-9 <= limit.rate / limit.per <= 1e9:  # the buckets count nanoseconds
        yield f"rate is {limit.rate:g} in {limit.per:g} s: use from 1e-9 to 1e9 requests in a second"
    burst = limit.burst
    if burst is not None and (isinstance(burst, bool) or not isinstance(burst, int) or burst < 1):
        yield f"burst is {burst!r}: use a whole number above 0"
    if limit.by not in _BY:
        yield f"by is {limit.by!r}: use {', '.join(_BY)}"
    if limit.outage not in _OUTAGE:
        yield f"outage is {limit.outage!r}: use {', '.join(_OUTAGE)}"
    yield from store_problems(limit.store)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def limiter(
    limit: RateLimit,
    *,
    route: str,
    workers: int = 1,
    resources: Mapping[str, Any] | None = None,
    method: str = "",
    service: str = "service",
) -> Limiter:
    """
    The middleware that enforces *limit* on a route; it is closed with ``close()``.

    Args:
        limit: how much.
        route: the route's pattern, for metrics and for the keys in Redis.
        workers: processes that serve it, among which a limit in memory is divided.
        resources: what is open, by name.
        method: the route's method.
        service: what keys in Redis begin with.

    Raises:
        ConfigError: the store is no resource that can hold a limit.
        MissingExtra: redis-py is not installed.
    """
    from patron.http._limits_enforced import Limiter, buckets

    name = f"{method} {route}".strip()
    return Limiter(limit, buckets(limit, name, workers, resources or {}, service), route)


def limited(limit: RateLimit, *, route: str = "*", workers: int = 1) -> Limited:
    """
    *limit* as WSGI middleware, ``app -> app``: for mounted applications, or the whole service.

    Its ``check(environ)`` is for ``before_request`` of a blueprint. It opens its store when it is first asked.

    Args:
        limit: how much, by address or by route.
        route: what it is called in metrics, and in the keys in Redis: different ones count apart.
        workers: processes of the service, among which a limit in memory is divided.

    Raises:
        ConfigError: it is a limit by principal.
    """
    from patron.http._limits_wsgi import Limited

    return Limited(limit, route, workers)
