"""
kafka-python 3.0: what we use of it, made with our settings, and its errors as ours. Nothing else here imports it.

Beyond what it documents we lean on the following, which ``tests/sources/test_kafka_internals.py`` holds
against the installed version; a new minor version is taken over by making that test pass again.

==============================================  ==================================================
``KafkaConsumer._coordinator``, ``_fetcher``    its parts
``KafkaConsumer._subscription.is_paused``       of a partition
``_coordinator.request_rejoin``                 lets a join that was given up go on
``_coordinator.state``, ``_heartbeat_enabled``  stable without heartbeats: fenced
``_fetcher._completed_fetches``                 answers that were not looked at, with their partition
``_fetcher._next_partition_records``            the answer in hand; falsy and not None: it is used up
``_fetcher._paused_partition_records``          answers put aside; the first one that is not paused is taken up
``_fetcher.fetched_records``                    gives out without asking the network
``_fetcher.PartitionRecords._unpack_records``   the records of an answer; what of the answer it keeps up to date
                                                and how it finds aborted transactions
``ConsumerRecord``                              its fields, in their order
``DefaultRecordBatch._buffer``, ``_pos``,       where a batch is read on
``_next_record_index``, ``_num_records``
``LegacyRecordBatch._buffer``, ``_timestamp``   what is kept of a damaged one
``KafkaNetClient.connected``, ``wakeup``        of the client that a consumer is given as ``kafka_client``
``KafkaNetClient._manager.get_connection``,     how it connects: see `patron.kafka.Search`
``KafkaConnection.connection_made``, ``close``,
``init_future``, ``KafkaTCPTransport._sock_recv``
==============================================  ==================================================
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from patron.errors import ConfigError, ConnectionLost, MissingExtra, PatronError, SourceError, Stale
from patron.kafka import Search, explained
from patron.secured import check_files
from patron.sources import _kafka_codes as codes

try:
    import kafka
except ModuleNotFoundError as error:
    raise MissingExtra("kafka-python", "kafka") from error

from kafka import errors
from kafka.consumer.fetcher import ConsumerRecord
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from kafka.future import Future
from kafka.net.compat import KafkaNetClient
from kafka.protocol.consumer import IsolationLevel
from kafka.record.default_records import DefaultRecord, DefaultRecordBatch
from kafka.record.util import decode_varint
from kafka.structs import MemberState, OffsetAndMetadata, TopicPartition

if TYPE_CHECKING:
    from patron.sources.kafka import KafkaSource

__all__ = [
    "READ_COMMITTED",
    "Client",
    "ConsumerRecord",
    "DefaultRecord",
    "DefaultRecordBatch",
    "Future",
    "MemberState",
    "OffsetAndMetadata",
    "RebalanceListener",
    "TopicPartition",
    "admin",
    "assignors",
    "consumer",
    "decode_varint",
    "errors",
    "producer",
    "translated",
    "translation",
]

Client = Any
"""A consumer, producer or admin client of kafka-python, which has no types."""

READ_COMMITTED = IsolationLevel.READ_COMMITTED

RebalanceListener: type = kafka.AsyncConsumerRebalanceListener

_RECONNECT = {"reconnect_backoff_ms": 50, "reconnect_backoff_max_ms": 2000}


def consumer(source: KafkaSource, group: str, **settings: Any) -> tuple[Client, Client]:
    """
    A consumer, and the network client in it; it knows the cluster already.

    Raises:
        ConnectionLost: no broker answered. NotASource: the cluster refuses us.
    """
    given = {
        **_common(source),
        "group_id": group,
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "metrics_enabled": False,
        "bootstrap_timeout_ms": _ms(source.connect_timeout),
        "isolation_level": "read_committed" if source.read_committed else "read_uncommitted",
        "session_timeout_ms": _ms(source.session_timeout),
        "heartbeat_interval_ms": _ms(source.heartbeat_interval),
        "max_poll_interval_ms": _ms(source.max_poll_interval),
        "fetch_min_bytes": source.fetch_min_bytes,
        "fetch_max_wait_ms": _ms(source.fetch_max_wait),
        "fetch_max_bytes": source.fetch_max_bytes,
        "max_partition_fetch_bytes": source.max_partition_fetch_bytes,
        **settings,
        **source.options,
    }
    return _made(kafka.KafkaConsumer, given)


def producer(source: KafkaSource) -> Client:
    """A producer whose sends are confirmed by all replicas in sync, once each; it knows the cluster already."""
    given = {
        **_common(source),
        "acks": "all",
        "enable_idempotence": True,
        "metrics_enabled": False,
        "bootstrap_timeout_ms": _ms(source.connect_timeout),
        "delivery_timeout_ms": _ms(source.delivery_timeout),
        "request_timeout_ms": _ms(min(source.request_timeout, source.delivery_timeout)),
        "max_block_ms": _ms(source.delivery_timeout),
        "max_request_size": source.max_message_bytes,
    }
    return _made(kafka.KafkaProducer, given)[0]


def admin(source: KafkaSource) -> Client:
    """A client that makes topics and lists them."""
    given = {**_common(source), "bootstrap_timeout_ms": _ms(source.connect_timeout)}
    return _made(kafka.KafkaAdminClient, given)[0]


def assignors(assignment: str) -> list[type]:
    """How the partitions of a group are shared out."""
    if assignment == "cooperative":
        return [CooperativeStickyAssignor]
    return [RangePartitionAssignor, StickyPartitionAssignor]


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise our errors instead of the driver's; *doing* says what the block does, for the message."""
    try:
        yield
    except errors.KafkaError as error:
        raise translation(error, doing) from error


def translation(error: BaseException, doing: str) -> PatronError:
    """Our error for *error* of the driver."""
    if isinstance(error, errors.CommitFailedError):
        return _commit_failed(error, doing)
    if isinstance(error, errors.BrokerResponseError):
        return codes.refusal(error.errno, doing, str(error))
    if isinstance(error, errors.KafkaConfigurationError):
        return ConfigError(f"{doing}: {error}")
    return SourceError(f"{doing}: {error}")


def _commit_failed(error: Any, doing: str) -> SourceError:
    """Only a rebalance that is still going on lets the same commit succeed later."""
    if error.args and isinstance(error.args[0], errors.RebalanceInProgressError):
        return SourceError(f"{doing}: the group is being rebalanced")
    return Stale(f"{doing}: the group goes on without us")


def _made(make: Callable[..., Client], given: dict[str, Any]) -> tuple[Client, Client]:
    """A client, and its network client, which is closed when the client cannot be made: it has a thread."""
    _calm()
    searches: list[Search] = []

    def kept(**configs: Any) -> Any:
        searches.append(Search(KafkaNetClient(**configs)))
        return searches[-1].client

    try:
        made = make(**given, kafka_client=kept)
        searches[-1].end()
        return made, searches[-1].client
    except BaseException as error:
        for search in searches:
            search.client.close()
        if isinstance(error, errors.KafkaTimeoutError):
            servers = given["bootstrap_servers"]
            why = explained("".join(search.told() for search in searches), servers)
            raise ConnectionLost(f"no broker of {', '.join(servers)} answers: {why}") from error
        if isinstance(error, errors.KafkaError):
            raise translation(error, "cannot connect") from error
        if isinstance(error, AssertionError | TypeError | ValueError):
            raise ConfigError(f"kafka-python refuses the settings: {error}") from error
        raise


def _common(source: KafkaSource) -> dict[str, Any]:
    return {
        "bootstrap_servers": source.servers,
        "client_id": f"patron-{socket.gethostname()}",
        "request_timeout_ms": _ms(source.request_timeout),
        **_RECONNECT,
        **_security(source),
    }


def _security(source: KafkaSource) -> dict[str, Any]:
    check_files(
        ssl_cafile=source.ssl_cafile, ssl_certfile=source.ssl_certfile, ssl_keyfile=source.ssl_keyfile
    )
    named = {
        "security_protocol": source.security_protocol,
        "sasl_mechanism": source.sasl_mechanism,
        "sasl_plain_username": source.sasl_username,
        "sasl_plain_password": source.sasl_password,
        "ssl_cafile": source.ssl_cafile,
        "ssl_certfile": source.ssl_certfile,
        "ssl_keyfile": source.ssl_keyfile,
        "ssl_password": source.ssl_password,
    }
    return {name: value for name, value in named.items() if value is not None}


def _calm() -> None:
    """The driver logs every try to reconnect; what matters of that is told once, by the engine."""
    logger = logging.getLogger("kafka")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL)


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
