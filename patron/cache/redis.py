"""The store in Redis: shared by processes and machines, and lasting longer than they do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from patron.cache._redis_link import Options, RedisLink, acquire, release
from patron.cache._redis_url import shown, url_problems
from patron.errors import CacheError, ConfigError

__all__ = ["RedisStore"]

_FOREVER = 10.0**9  # seconds, about 30 years
_BATCH = 500


class RedisStore:
    """
    A `Store` in Redis (one server, version 4 or later), for bytes of any kind.

    It connects when it is first used, in each process for itself; threads, and the stores of a process that have
    the same *url* and time-outs, share the connections. While Redis is away, calls fail at once but for one now and
    then that tries, and they work again by themselves when it is back.

    Args:
        url: ``redis://``, ``rediss://`` (TLS) or ``unix://``, as redis-py reads it; its options, such as
            ``?socket_timeout=0.5``, are redis-py's, and go before the arguments here.
        prefix: what its keys begin with, followed by a colon; `purge` removes these, and those of every
            prefix that continues this one with a colon.
        timeout: seconds that Redis may take for an answer.
        connect_timeout: seconds that a connection may take.

    Raises:
        ConfigError: the URL or a time-out is wrong.
        MissingExtra: redis-py is not installed.
    """

    def __init__(
        self, url: str, prefix: str = "patron", *, timeout: float = 0.25, connect_timeout: float = 0.25
    ) -> None:
        problems = [f"redis store: {problem}" for problem in url_problems(url)]
        for name, seconds in (("timeout", timeout), ("connect_timeout", connect_timeout)):
            if not 0 < seconds < 3600:
                problems.append(f"redis store: {name} is {seconds!r}: use seconds above 0")
        if not prefix:
            problems.append(
                "redis store: the prefix is empty: name the service, so that purge spares the others"
            )
        if problems:
            raise ConfigError(*problems)
        self._shown = shown(url)
        self._prefix = prefix
        self._options = Options(url, connect_timeout, timeout)
        self._open: RedisLink | None = acquire(self._options)

    def get(self, key: str) -> bytes | None:
        """What was set for *key*, or None."""
        value: bytes | None = self._link().execute("GET", self._key(key))
        return value

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """What was set for each of *keys*, or None, in one trip."""
        values: list[bytes | None] = self._link().execute("MGET", *map(self._key, keys))
        return values

    def set(self, key: str, value: bytes, ttl: float) -> None:
        """Keep *value* for *ttl* seconds, to the millisecond."""
        if not ttl > 0:
            self.delete(key)
        elif ttl < _FOREVER:
            self._link().execute("SET", self._key(key), value, "PX", max(1, int(ttl * 1000)))
        else:
            self._link().execute("SET", self._key(key), value)

    def delete(self, key: str) -> None:
        """Forget *key*."""
        self._link().execute("DEL", self._key(key))

    def purge(self) -> None:
        """Forget every key with this prefix, in batches; Redis serves others meanwhile."""
        for keys in self._keys():
            self._link().execute("UNLINK", *keys)

    def _keys(self) -> Iterator[list[bytes]]:
        # In a pattern these would stand for other keys, too: https://redis.io/commands/keys
        pattern = re.sub(rb"([*?\[\]\\^-])", rb"\\\1", self._prefix.encode()) + b":*"
        cursor = b"0"
        while True:
            cursor, keys = _cursor_and_keys(
                self._link().execute("SCAN", cursor, "MATCH", pattern, "COUNT", _BATCH)
            )
            if keys:
                yield keys
            if cursor == b"0":
                return

    def run(self, script: str, keys: Sequence[str], arguments: Sequence[str | bytes | float] = ()) -> Any:
        """What the Lua *script* returns, which gets *keys*, each with this prefix, as one step of Redis'."""
        return self._link().run(script, [self._key(key) for key in keys], arguments)

    def close(self) -> None:
        """Close the connections, unless another store uses them."""
        link, self._open = self._open, None
        if link is not None:
            release(self._options)

    def _link(self) -> RedisLink:
        if self._open is None:
            raise CacheError(f"redis at {self._shown}: the store is closed")
        return self._open

    def _key(self, key: str) -> bytes:
        return f"{self._prefix}:{key}".encode("utf-8", "surrogatepass")

    def __repr__(self) -> str:
        return f"<RedisStore {self._shown} prefix={self._prefix!r}>"


def _cursor_and_keys(answer: tuple[int | bytes, list[bytes]]) -> tuple[bytes, list[bytes]]:
    """redis-py turns the cursor into a number."""
    return str(int(answer[0])).encode(), answer[1]
