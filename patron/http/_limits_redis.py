"""Token buckets in Redis, which all processes that lead there share."""

from __future__ import annotations

from patron.cache import RedisStore
from patron.errors import CacheError

__all__ = ["RedisBuckets"]

# What is kept is how many microseconds the bucket takes to be full again, and when that was so, by the clock of
# Redis: the clocks of its clients differ. The script runs alone, so nobody comes between reading and writing. A clock
# that was put back gives nothing and takes nothing. A full bucket is not kept: it expires by then.
_TAKE = """
local token, room = tonumber(ARGV[1]), tonumber(ARGV[2])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local missing = 0
local kept = redis.call('GET', KEYS[1])
if kept then
  local since, was = string.match(kept, '^(%d+) (%S+)$')
  missing = math.max(0, tonumber(was) - math.max(0, now - tonumber(since)))
end
local after = missing + token
if after > room then
  return math.ceil(after - room)
end
redis.call('SET', KEYS[1], string.format('%.0f %.17g', now, after), 'PX', math.ceil(after / 1000))
return 0
"""


class RedisBuckets:
    """
    One token bucket for each key. All threads share it.

    Args:
        rate: tokens that come back in each second.
        burst: tokens that a full bucket has.
        store: where they are kept; closed with this.
        name: what the keys begin with, behind the store's prefix.
    """

    def __init__(
        self, rate: float, burst: int, store: RedisStore, name: str, *, borrowed: bool = False
    ) -> None:
        token = 1e6 / rate
        self._arguments = (repr(token), repr(token * burst))
        self._store = store
        self._name = name
        self._borrowed = borrowed

    def take(self, key: str) -> float:
        """
        Take a token of *key*'s: 0.0; or, without taking one, the seconds until there is one.

        Raises:
            CacheError: Redis did not say.
        """
        wait = self._store.run(_TAKE, [f"{self._name}:{key}"], self._arguments)
        if not isinstance(wait, int):
            raise CacheError(f"{self._store!r}: the answer to a script is {wait!r:.100}, and no number")
        return wait / 1e6

    def close(self) -> None:
        """Close the store, if it is our own."""
        if not self._borrowed:
            self._store.close()
