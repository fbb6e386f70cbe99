"""A rate limit that is enforced: who has which bucket, and what happens to those whose bucket is empty."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from patron.cache import Borrowed, RedisStore, open_store
from patron.errors import CacheError, ConfigError, ServiceUnavailable, TooManyRequests
from patron.http._limits_memory import MemoryBuckets
from patron.http.metrics import LIMIT_ERRORS, LIMITED
from patron.http.remote import client_address, counted_as
from patron.observe import log
from patron.observe.seldom import Seldom

if TYPE_CHECKING:
    from patron.http.limits import RateLimit
    from patron.http.message import Request
    from patron.http.routes import Handler

__all__ = ["Buckets", "Limiter", "buckets"]


class Buckets(Protocol):
    """Where tokens are taken from."""

    def take(self, key: str) -> float: ...
    def close(self) -> None: ...


def buckets(limit: RateLimit, name: str, workers: int, resources: Mapping[str, Any], service: str) -> Buckets:
    rate = limit.rate / limit.per
    if limit.store == "memory":
        return MemoryBuckets(rate / workers, max(1, limit.tokens // workers))
    from patron.http._limits_redis import RedisBuckets

    store = open_store(limit.store, resources, prefix=f"{service}:limit")
    borrowed = isinstance(
        store, Borrowed
    )  # then other things and services may have keys with its prefix, too
    inner = store.store if isinstance(store, Borrowed) else store
    if not isinstance(inner, RedisStore):
        raise ConfigError(
            f"rate limit: the store {limit.store!r} is a {type(inner).__name__}, which cannot count for several: use "
            'store "memory" (each worker process counts for itself, no resource is needed), the URL of a Redis '
            "server, or a resource that is a patron.cache.RedisStore"
        )
    # Buckets of different sizes are different ones, as when the limit was changed by the last deployment.
    key = f"{f'{service}:limit:' * borrowed}{name}:{limit.by}:{limit.rate:g}/{limit.per:g}/{limit.tokens}"
    return RedisBuckets(rate, limit.tokens, inner, key, borrowed=borrowed)


class Limiter:
    """A limit that is enforced: ``handler -> handler``. All threads share it."""

    def __init__(self, limit: RateLimit, buckets: Buckets, route: str) -> None:
        self.limit = limit
        self._buckets = buckets
        self._labels = {"path": route, "by": limit.by}
        self._seldom = Seldom(10.0)

    def __call__(self, handler: Handler) -> Handler:
        """*handler* behind the limit."""
        key_of, take = _KEYS[self.limit.by], self.take

        def limited(request: Request) -> Any:
            take(key_of(request))
            return handler(request)

        return limited

    def take(self, key: str) -> None:
        """
        Let one request of *key*'s pass.

        Raises:
            TooManyRequests: there is no token left; ``Retry-After`` says when there will be one.
            ServiceUnavailable: the store failed, and the limit refuses then.
        """
        try:
            wait = self._buckets.take(key)
        except CacheError as error:
            self._without_store(error)
            return
        if wait > 0:
            LIMITED.bind(**self._labels).inc()
            raise TooManyRequests(headers={"Retry-After": str(math.ceil(wait))})

    def _without_store(self, error: CacheError) -> None:
        LIMIT_ERRORS.bind(**self._labels).inc()
        allowed = self.limit.outage == "allow"
        kept_back = self._seldom.due()
        if kept_back is not None:
            log.warn(
                "rate limit cannot be checked",
                **self._labels,
                requests="allowed" if allowed else "refused",
                error=str(error),
                suppressed=kept_back,
            )
        if not allowed:
            raise ServiceUnavailable(headers={"Retry-After": "1"}) from error

    def close(self) -> None:
        """Close the store. May be called twice."""
        self._buckets.close()

    def __repr__(self) -> str:
        return f"<Limiter {self.limit}>"


def _by_address(request: Request) -> str:
    return counted_as(client_address(request.environ))


def _by_principal(request: Request) -> str:
    principal = request.principal
    if principal is None:  # a chain of somebody's own, without an authenticator in front
        return "unknown"
    name = principal.name
    return name if len(name) <= 64 else hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def _by_route(request: Request) -> str:
    return ""


_KEYS: Mapping[str, Callable[[Request], str]] = {
    "address": _by_address,
    "principal": _by_principal,
    "route": _by_route,
}
