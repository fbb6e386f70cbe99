"""The only place of the clients that knows boto3: clients by the time that a call may take, and their errors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from patron import aws
from patron.errors import ConfigError, MissingExtra, PublishFailed

__all__ = ["Clients", "Endpoint", "refusals_as_failures"]

_TRIES = 3
_SHORTEST = 0.1
_LIBRARIES = ("boto3", "botocore", "urllib3")


@dataclass(frozen=True)
class Endpoint:
    """Where a service is; what is None is where boto3 finds it. Raises ConfigError when the URL is none."""

    service: str
    region: str | None
    endpoint_url: str | None

    def __post_init__(self) -> None:
        if problem := aws.endpoint_problem(self.endpoint_url):
            raise ConfigError(problem)


class Clients:
    """
    boto3's clients of one service in one process. Any thread may call.

    A client's time-outs are fixed when it is made, so there is one for each halving of *timeout* that
    a deadline has asked for.
    """

    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        # Guards `_by_timeout`, and the making of clients, which boto3 does not do in several threads.
        self._lock = threading.Lock()
        self._by_timeout: dict[float, Any] = {}

    def within(self, seconds: float) -> Any:
        """A client whose calls take about *seconds* at most, all tries included."""
        timeout = self._timeout
        while timeout > seconds and timeout > _SHORTEST:
            timeout /= 2
        with self._lock:
            client = self._by_timeout.get(timeout)
            if client is None:
                client = self._by_timeout[timeout] = _made(self._endpoint, timeout)
            return client

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            clients = list(self._by_timeout.values())
            self._by_timeout.clear()
        for client in clients:
            client.close()


def _made(endpoint: Endpoint, timeout: float) -> Any:
    try:
        import boto3.session
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, NoRegionError
    except ImportError as error:
        raise MissingExtra("boto3", "sqs") from error
    aws.quieten()
    config = Config(
        connect_timeout=timeout / _TRIES,
        read_timeout=timeout / _TRIES,
        retries={"mode": "standard", "total_max_attempts": _TRIES},
        max_pool_connections=32,
    )
    try:
        session = boto3.session.Session(region_name=endpoint.region)
        return session.client(endpoint.service, endpoint_url=endpoint.endpoint_url, config=config)  # type: ignore[call-overload]
    except NoRegionError as error:
        raise ConfigError(f"{endpoint.service}: {aws.NO_REGION}") from error
    except (BotoCoreError, ValueError) as error:  # ValueError: a wrong URL in AWS_ENDPOINT_URL
        raise ConfigError(f"{endpoint.service}: {error}") from error


@contextmanager
def refusals_as_failures(doing: str) -> Iterator[None]:
    """Raise `PublishFailed` from what AWS or the network said in the block."""
    try:
        yield
    except Exception as error:
        # By the module, for nobody needs boto3 before the first message; its errors have no root in common.
        if type(error).__module__.partition(".")[0] in _LIBRARIES:
            raise PublishFailed(f"{doing}: {error}") from error
        raise
