"""The only place of the sources that knows boto3: connecting, finding and making queues, and what its errors mean."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from patron import aws
from patron.errors import ConfigError, ConnectionLost, MissingExtra, NotASource, SourceError

__all__ = ["HOPELESS", "QueueSettings", "Queues", "translated"]

_CONNECT = 3.0  # seconds to connect
_ANSWER = 5.0  # seconds that an answer may take; the owner of a subscription waits for it
_TRIES = 3
_TRIES_WAITING = 2  # of requests that are repeated anyway
_KEPT = "1209600"  # seconds that a queue of ours keeps messages: 14 days, the most that SQS allows

HOPELESS = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidAddress",
        "InvalidClientTokenId",
        "InvalidSecurity",
        "KmsAccessDenied",
        "KmsDisabled",
        "KmsInvalidKeyUsage",
        "KmsInvalidState",
        "KmsNotFound",
        "KmsOptInRequired",
        "MissingAuthenticationToken",
        "NonExistentQueue",
        "OptInRequired",
        "QueueDoesNotExist",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
        "UnsupportedOperation",
    }
)
"""Codes of errors that no new attempt can help."""

_MISSING = frozenset({"NonExistentQueue", "QueueDoesNotExist"})

# Guards the loader, which all sessions share: it remembers the service descriptions, 50 ms of reading each.
_lock = threading.Lock()


@dataclass(frozen=True)
class QueueSettings:
    """Where queues are, and how those are made that are missing; see `patron.sources.sqs.SqsSource`."""

    owner: str | None
    region: str | None
    endpoint_url: str | None
    create: bool
    attributes: Mapping[str, str]


class Queues:
    """A client, and the addresses of the queues that it was asked for. Any thread may use it."""

    def __init__(self, settings: QueueSettings) -> None:
        self._settings = settings
        self._urls: dict[str, str] = {}
        self.client = _client(settings, _ANSWER, _TRIES)

    def waiting(self, seconds: float) -> Any:
        """Another client, whose requests may wait *seconds* at a queue. The caller closes it."""
        return _client(self._settings, seconds + _ANSWER, _TRIES_WAITING)

    def url(self, queue: str) -> str:
        """
        The address of *queue*, which is its name or its address; with ``create``, a missing one is made.

        Raises:
            NotASource: there is none, or it may not be used. ConnectionLost: AWS cannot be reached.
        """
        if "://" in queue:
            return queue
        known = self._urls.get(queue)
        if known is None:
            known = self._urls[queue] = self._find(queue)
        return known

    def close(self) -> None:
        """Close the client's connections."""
        self.client.close()

    def _find(self, queue: str) -> str:
        name = aws.queue_name(queue)
        with translated(f"queue {queue}" if name == queue else f"queue {name} for {queue}"):
            try:
                return self._look_up(name)
            except Exception as error:
                if aws.code_of(error) not in _MISSING or not self._settings.create:
                    raise
            return self._make(name)

    def _look_up(self, name: str) -> str:
        owner = {"QueueOwnerAWSAccountId": self._settings.owner} if self._settings.owner else {}
        return str(self.client.get_queue_url(QueueName=name, **owner)["QueueUrl"])

    def _make(self, name: str) -> str:
        fifo = {"FifoQueue": "true"} if name.endswith(".fifo") else {}
        attributes = {"MessageRetentionPeriod": _KEPT, **fifo, **self._settings.attributes}
        try:
            return str(self.client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"])
        except Exception as error:
            # Somebody made it at the same moment, with other attributes.
            if aws.code_of(error) not in ("QueueAlreadyExists", "QueueNameExists"):
                raise
            return self._look_up(name)


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """boto3's errors as Patron's: what was being done is in *what*."""
    from botocore import exceptions as boto

    try:
        yield
    except boto.ClientError as error:
        raise _client_error(what, error) from error
    except boto.NoRegionError as error:
        raise ConfigError(f"{what}: {aws.NO_REGION}") from error
    except (
        boto.InvalidRegionError,
        boto.ProfileNotFound,
        boto.ParamValidationError,
    ) as error:
        raise ConfigError(f"{what}: {error}") from error
    except (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError) as error:
        raise NotASource(f"{what}: {error}: give the usual AWS variables, a profile or a role") from error
    except (boto.HTTPClientError, boto.ConnectionError, OSError) as error:
        raise ConnectionLost(f"{what}: {error}") from error
    except boto.BotoCoreError as error:
        raise SourceError(f"{what}: {error}") from error


def _client_error(what: str, error: Any) -> SourceError:
    code = aws.code_of(error)
    if code in _MISSING:
        return NotASource(
            f"{what}: it does not exist in this account and region: make it, or say create: true ({error})"
        )
    if code in HOPELESS:
        return NotASource(f"{what}: {error}")
    return SourceError(f"{what}: {error}")


def _client(settings: QueueSettings, timeout: float, tries: int) -> Any:
    try:
        import boto3.session
        import botocore.session
        from botocore.config import Config
    except ImportError as error:
        raise MissingExtra("boto3", "sqs") from error
    aws.quieten()
    config = Config(
        connect_timeout=_CONNECT,
        read_timeout=timeout,
        max_pool_connections=32,
        retries={"mode": "standard", "total_max_attempts": tries},
    )
    with translated("SQS"), _lock:
        core = botocore.session.Session()
        core.register_component("data_loader", _loader())
        session = boto3.session.Session(botocore_session=core, region_name=settings.region)
        try:
            return session.client("sqs", endpoint_url=settings.endpoint_url, config=config)
        except ValueError as error:  # from AWS_ENDPOINT_URL or the profile: the setting was checked
            raise ConfigError(f"SQS: {error}") from error


@cache
def _loader() -> Any:
    import botocore.session

    return botocore.session.Session().get_component("data_loader")
