"""What we lean on inside kafka-python is there, in the shape that we lean on."""

from __future__ import annotations

import importlib.metadata
import inspect

from kafka import KafkaConsumer
from kafka.consumer.fetcher import ConsumerRecord, Fetcher
from kafka.consumer.subscription_state import SubscriptionState
from kafka.coordinator.base import BaseCoordinator
from kafka.coordinator.consumer import ConsumerCoordinator
from kafka.net.compat import KafkaNetClient
from kafka.net.connection import KafkaConnection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.legacy_records import LegacyRecordBatch


def parameters(function: object) -> list[str]:
    return list(inspect.signature(function).parameters)  # type: ignore[arg-type]


def test_kafka_python_is_the_minor_version_that_we_pinned() -> None:
    assert importlib.metadata.version("kafka-python").split(".")[:2] == ["3", "0"]


def test_a_consumer_has_its_parts_and_takes_a_client_of_ours() -> None:
    source = inspect.getsource(KafkaConsumer.__init__)
    for part in ("self._coordinator =", "self._fetcher =", "self._subscription =", "'kafka_client'"):
        assert part in source
    assert parameters(SubscriptionState.is_paused) == ["self", "partition"]
    assert {"connected", "wakeup"} <= set(dir(KafkaNetClient))


def test_a_fetch_that_is_used_up_is_kept_in_hand_and_one_put_aside_waits_for_an_empty_hand() -> None:
    source = inspect.getsource(Fetcher.fetched_records)
    assert parameters(Fetcher.fetched_records) == ["self", "max_records", "update_offsets"]
    assert "if self._next_partition_records is None:" in source
    assert "if not self._next_partition_records:" in source
    assert "self._next_partition_records = self._paused_partition_records.pop(tp)" in source
    assert "completion = self._completed_fetches.popleft()" in source
    assert "discard.update(self._paused_partition_records)" in inspect.getsource(
        Fetcher._fetchable_partitions
    )
    assert "self.PartitionRecords(" in inspect.getsource(Fetcher._parse_fetched_data)
    unpack = Fetcher.PartitionRecords._unpack_records
    assert parameters(unpack) == ["self", "tp", "records", "key_deserializer", "value_deserializer"]


def test_what_was_fetched_of_a_partition_is_kept_up_to_date_while_it_is_unpacked() -> None:
    source = inspect.getsource(Fetcher.PartitionRecords._unpack_records)
    for name in ("leader_epoch", "next_fetch_offset", "bytes_read", "aborted_producer_ids", "drain()"):
        assert f"self.{name}" in source
    assert "self._consume_aborted_transactions_up_to(batch.last_offset)" in source
    assert "if self._contains_abort_marker(batch):" in source
    assert "elif self._is_batch_aborted(batch):" in source
    assert parameters(Fetcher.PartitionRecords._deserialize) == [
        "self",
        "deserializer",
        "topic",
        "headers",
        "data",
    ]
    fields = "topic partition leader_epoch offset timestamp timestamp_type key value headers checksum"
    sizes = "serialized_key_size serialized_value_size serialized_header_size"
    assert ConsumerRecord._fields == (*fields.split(), *sizes.split())


def test_the_owner_waits_while_a_listener_is_awaited() -> None:
    """Else two threads would be in the engine at once."""
    assert "self._net.run(self.ensure_active_group_async" in inspect.getsource(
        BaseCoordinator.ensure_active_group
    )
    for caller in (ConsumerCoordinator._on_join_prepare_async, ConsumerCoordinator._on_join_complete_async):
        assert "await self._invoke_rebalance_listener_async(" in inspect.getsource(caller)
    assert "await self._on_join_complete_async(" in inspect.getsource(BaseCoordinator.join_group_async)


def test_a_member_tells_its_state_and_can_be_made_to_go_on_joining() -> None:
    source = inspect.getsource(BaseCoordinator)
    assert "self.state = MemberState.UNJOINED" in source
    assert "self._heartbeat_enabled" in source
    assert parameters(BaseCoordinator.request_rejoin) == ["self"]


def test_a_batch_knows_how_far_it_was_read() -> None:
    source = inspect.getsource(DefaultRecordBatch)
    for name in ("_buffer", "_pos", "_next_record_index", "_num_records"):
        assert f"self.{name}" in source


def test_a_batch_in_an_old_format_has_its_bytes_and_when_it_was_written() -> None:
    assert {"_buffer", "_timestamp"} <= set(LegacyRecordBatch.__slots__)


def test_the_search_for_the_cluster_can_be_listened_to() -> None:
    assert "self._manager = KafkaConnectionManager(" in inspect.getsource(KafkaNetClient.__init__)
    search = inspect.getsource(KafkaConnectionManager._do_bootstrap)
    assert "conn = self.get_connection(" in search
    assert "except Errors.NodeNotReadyError:" in search, "any other error ends it"
    assert "conn.connection_made(transport)" in inspect.getsource(KafkaConnectionManager._connect)
    assert "self.close(error)" in inspect.getsource(KafkaConnection.initialize)
    assert isinstance(KafkaConnection.init_future, property)
    for transport in (KafkaTCPTransport, KafkaSSLTransport):
        assert parameters(transport._sock_recv) == ["self"]
    read = inspect.getsource(KafkaTCPTransport._read_from_sock)
    assert "if err:\n                return self.abort(error=err)" in read, (
        "what came with the end is dropped"
    )
