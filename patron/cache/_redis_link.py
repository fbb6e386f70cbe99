"""One process's way to one Redis: its connections, their time-outs, the pause after a failure, and the metrics."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from patron.cache._pause import Pause
from patron.cache._redis_bounded import bounded
from patron.cache._redis_url import shown
from patron.cache.metrics import METRIC_SET
from patron.errors import CacheError, ConfigError, MissingExtra
from patron.observe import Instrument, log
from patron.observe.seldom import Seldom

__all__ = ["Options", "RedisLink", "acquire", "release"]


class Options(NamedTuple):
    """Where Redis is, and the seconds for a connection and for an answer; what *url* says itself wins."""

    url: str
    connect_timeout: float
    timeout: float


class RedisLink:
    """
    Connections to one Redis. All threads share it, and it opens none before the first call.

    After a failed connection or a time-out calls are refused at once for a moment (0.1 s, up to 1 s), so that an
    outage costs one request now and then its time-out instead of all of them.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._shown = shown(options.url)
        self._pool_class, self._kwargs = _settings(options)
        self._seldom = Seldom(10.0)
        self._told = False  # whether the last failure got its line; written by the one call that ended a term
        self._instruments: dict[str, Instrument] = {}
        self._start_afresh()

    def _start_afresh(self) -> None:
        import redis

        self._pause = Pause()
        self._client = redis.Redis(connection_pool=self._pool_class(**self._kwargs))
        self._pid = os.getpid()  # at last: other threads go by it

    def execute(self, command: str, *arguments: Any) -> Any:
        """
        Redis' answer to *command*.

        Raises:
            CacheError: there was none in time, or it was an error; or the last one was a moment ago.
        """
        if self._pid != os.getpid():  # a fork: neither its connections nor its locks are ours
            self._start_afresh()
        term = self._pause.enter()
        if term is None:
            raise CacheError(f"redis at {self._shown} failed a moment ago: not asked")
        instrument = self._instruments.get(command) or self._instrument(command)
        with instrument.start() as operation:
            operation.outcome = "false"
            answer = self._answer(term, command, arguments)
            operation.outcome = "true"
            return answer

    def _answer(self, term: int, command: str, arguments: Sequence[Any]) -> Any:
        from redis.exceptions import ConnectionError, RedisError, TimeoutError

        try:
            answer = self._client.execute_command(command, *arguments)
        except (ConnectionError, TimeoutError, OSError) as error:
            if self._pause.failed(term):
                self._tell_lost(error)
            raise self._failure(command, error) from error
        except RedisError as error:  # it is there, but it will not do this
            self._pause.succeeded(term)
            raise self._failure(command, error) from error
        except Exception as error:  # no protocol of Redis' at all: it breaks the driver's parser
            if self._pause.failed(term):
                self._tell_lost(error)
            raise self._failure(command, error) from error
        if (lasted := self._pause.succeeded(term)) is not None:
            self._tell_back(lasted)
        return answer

    def run(self, script: str, keys: Sequence[Any], arguments: Sequence[Any]) -> Any:
        """What *script* returns; its text is sent when Redis does not know it (any more). Raises as `execute`."""
        from redis.exceptions import NoScriptError

        parts = (len(keys), *keys, *arguments)
        try:
            return self.execute("EVALSHA", _digest(script), *parts)
        except CacheError as error:
            if not isinstance(error.__cause__, NoScriptError):
                raise
            return self.execute("EVAL", script, *parts)

    def _instrument(self, command: str) -> Instrument:
        made = Instrument(
            "client",
            "redis",
            self._shown,
            name=command.lower(),
            metrics=METRIC_SET,
            labels={"command": command.lower()},
            tags={"db.type": "kv", "db.instance": self._shown},
        )
        return self._instruments.setdefault(command, made)

    def _failure(self, command: str, error: BaseException) -> CacheError:
        return CacheError(f"redis at {self._shown}: {command} failed: {error or type(error).__name__}")

    def _tell_lost(self, error: BaseException) -> None:
        kept_back = self._seldom.due()
        self._told = kept_back is not None
        if kept_back is not None:
            log.warn("redis failed", server=self._shown, error=str(error), suppressed=kept_back)

    def _tell_back(self, lasted: float) -> None:
        if self._told:
            log.info("redis works again", server=self._shown, seconds=round(lasted, 3))

    def disconnect(self) -> None:
        """Close the connections of this process; the next call would open new ones."""
        if self._pid == os.getpid():
            self._client.connection_pool.disconnect()


def _settings(options: Options) -> tuple[Any, dict[str, Any]]:
    """The class of the pool and its arguments; nothing is connected."""
    try:
        from redis import ConnectionPool
        from redis.backoff import NoBackoff
        from redis.connection import Connection, parse_url
        from redis.exceptions import RedisError
        from redis.retry import Retry
    except ImportError as error:
        raise MissingExtra("redis", "redis") from error

    try:
        settings = {
            "socket_connect_timeout": options.connect_timeout,
            "socket_timeout": options.timeout,
            **parse_url(options.url),
            # Ours to say: bytes come back as bytes, and what failed is not tried again behind our back.
            "decode_responses": False,
            "protocol": 2,
            "retry_on_timeout": False,
            "retry": Retry(NoBackoff(), 0),
            "max_connections": 2**31,  # there are never more than threads
        }
        settings["connection_class"] = bounded(settings.get("connection_class", Connection))
        ConnectionPool(**settings).make_connection()
    except TypeError as error:
        raise ConfigError(f"store {shown(options.url)}: an option in the URL is unknown: {error}") from error
    except (ValueError, RedisError) as error:
        raise ConfigError(f"store {shown(options.url)}: an option in the URL is wrong: {error}") from error
    return ConnectionPool, settings


@lru_cache(maxsize=64)
def _digest(script: str) -> str:
    """By which Redis knows a script."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


class _Shared:
    """A link and how many stores use it."""

    def __init__(self, link: RedisLink) -> None:
        self.link = link
        self.users = 0


# Guards `_links`. Stores of one process that lead to one Redis share connections, and what is known of an outage.
_lock = threading.Lock()
_links: dict[Options, _Shared] = {}


def acquire(options: Options) -> RedisLink:
    """The link of this process for *options*; `release` it once. Raises `ConfigError` and `MissingExtra`."""
    with _lock:
        shared = _links.get(options)
        if shared is None:
            shared = _links[options] = _Shared(RedisLink(options))
        shared.users += 1
        return shared.link


def release(options: Options) -> None:
    """One user less; after the last one the connections are closed."""
    with _lock:
        shared = _links[options]
        shared.users -= 1
        if not shared.users:
            del _links[options]
    if not shared.users:
        shared.link.disconnect()
