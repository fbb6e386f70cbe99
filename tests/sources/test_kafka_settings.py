"""The settings of the Kafka source, and the parts of it that need no broker."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patron.errors import ConfigError, ConnectionLost, NotASource, SourceError, Stale
from patron.sources import _kafka_codes as codes
from patron.sources import _kafka_handled as handling
from patron.sources import _kafka_messages as reading
from patron.sources import _kafka_start as starting
from patron.sources._kafka_lanes import Lanes, Partition
from patron.sources.kafka import KafkaSource


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"topic": ""}, "topic is empty"),
        ({"topic": ()}, "topic is empty"),
        ({"topic": ("a", "")}, "topic is empty"),
        ({"topic": "new topic!"}, "topic 'new topic!' is no name for Kafka: use letters, digits"),
        ({"topic": ("a", "é")}, "topic 'é' is no name"),
        ({"topic": "x" * 250}, "at most 249"),
        ({"topic": ".."}, r"topic '\.\.' is no name"),
        ({"topic": "orders\n"}, "is no name"),
        ({"group": ""}, "group is empty"),
        ({"brokers": ""}, "brokers are empty or have an empty value"),
        ({"brokers": ("a:1", "")}, "brokers are empty or have an empty value"),
        ({"driver": "librdkafka"}, "driver 'librdkafka' is not one of kafka-python, confluent"),
        ({"assignment": "sticky"}, "assignment 'sticky' is not one of cooperative, eager"),
        ({"group_instance_id": "a b"}, "group_instance_id 'a b': use letters"),
        ({"start": "latest"}, "start 'latest' is not oldest, newest, a time or a duration"),
        ({"start": "2026-01-31T12:00:00"}, "a time needs its zone"),
        ({"start": -1.0}, "is in the future"),
        ({"request_timeout": 0}, "request_timeout 0 is not above 0"),
        ({"fetch_max_wait": -1}, "fetch_max_wait -1 is below 0"),
        ({"fetch_max_bytes": 0}, "fetch_max_bytes 0 is below 1"),
        ({"partitions": 0}, "partitions 0 is below 1"),
        ({"heartbeat_interval": 20.0}, "above a third of session_timeout"),
        ({"security_protocol": "TLS"}, "security_protocol 'TLS' is not one of"),
        ({"security_protocol": "SASL_SSL"}, "needs a sasl_mechanism"),
        ({"sasl_username": "me"}, "sasl settings are not used with security_protocol PLAINTEXT"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_value(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        KafkaSource(**{"topic": "orders", "group": "shop"} | settings)


def test_every_name_that_kafka_takes_is_taken() -> None:
    topics = ("x" * 249, "...", "a.b", "A_b-9", "-", "_")
    assert KafkaSource(topics, "shop").topics == topics


def test_a_dead_letter_topic_that_kafka_does_not_take_is_refused_before_any_broker_is_asked() -> None:
    with pytest.raises(ConfigError, match="topic 'orders dlq' is no name for Kafka"):
        KafkaSource("orders", "shop", brokers="localhost:1").prepare(["orders dlq"])


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as refused:
        KafkaSource("", "", brokers="", start="never")
    assert len(refused.value.problems) == 4


def test_secrets_are_not_printed() -> None:
    source = KafkaSource(
        "orders",
        "shop",
        security_protocol="SASL_SSL",
        sasl_mechanism="PLAIN",
        sasl_username="shop",
        sasl_password="hunter2",
        ssl_password="hunter3",
        options={"ssl_password": "hunter4"},
    )
    assert "hunter" not in repr(source)


def test_topics_and_brokers_may_be_one_or_several() -> None:
    one = KafkaSource("orders", "shop", brokers="a:1, b:2")
    several = KafkaSource(("orders", "refunds"), "shop", brokers=("a:1", "b:2"))
    assert (one.topics, one.target, one.servers) == (("orders",), "orders", ["a:1", "b:2"])
    assert (several.topics, several.target) == (("orders", "refunds"), "orders,refunds")
    assert several.servers == one.servers


@pytest.mark.parametrize("driver", ["kafka-python", "confluent"])
def test_the_driver_is_not_imported_with_the_settings(driver: str) -> None:
    code = (
        "import sys; from patron.sources.kafka import KafkaSource; "
        f"KafkaSource('orders', 'shop', driver={driver!r}); "
        "print([name for name in sys.modules if name.split('.')[0] in ('kafka', 'confluent_kafka')])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("oldest", "oldest"),
        ("newest", "newest"),
        ("1970-01-01T00:01:40Z", 100_000),
        ("1970-01-01 01:01:40+01:00", 100_000),
        ("2h30m ago", 1_000_000),
        ("9000s", 1_000_000),
        (9000.0, 1_000_000),
        ("99999d", 0),
    ],
)
def test_where_a_group_begins(start: str | float, expected: Any) -> None:
    assert starting.problem(start) is None
    assert starting.point(start, 10_000.0) == expected


@given(st.integers(0, 10**12), st.sets(st.integers(0, 400)))
def test_what_was_handled_is_what_was_noted(base: int, handled: set[int]) -> None:
    offsets = {base + offset for offset in handled}
    assert handling.decode(base, handling.encode(base, offsets)) == offsets


@pytest.mark.parametrize("metadata", [None, "", "something of somebody else"])
def test_metadata_of_somebody_else_says_nothing(metadata: str | None) -> None:
    assert handling.decode(7, metadata) == set()


@given(st.binary(max_size=20) | st.none())
def test_every_key_survives_being_text(key: bytes | None) -> None:
    message = reading.message("t", 0, 7, key, b"", None, None, None, lane=Partition("t", 0))
    assert reading.encode_key(message.key) == key


@given(st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=5) | st.none()), max_size=5))
def test_every_header_becomes_text_or_a_problem(headers: list[tuple[str, bytes | None]]) -> None:
    message = reading.message("t", 0, 7, None, b"", headers, None, None, lane=Partition("t", 0))
    assert set(message.headers) == {name for name, _ in headers}
    whole = all(value is None or _is_text(value) for _, value in headers)
    assert (message.problem is None) == whole


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_a_time_stamp_of_milliseconds_is_one_of_seconds_and_none_is_none() -> None:
    def stamp(timestamp: int | None) -> float | None:
        lane = Partition("t", 0)
        return reading.message("t", 0, 7, None, b"", None, timestamp, None, lane=lane).timestamp

    assert (stamp(1500), stamp(None), stamp(-1)) == (1.5, None, None)


@pytest.mark.parametrize(
    ("code", "kind"),
    [(22, Stale), (25, Stale), (82, NotASource), (29, NotASource), (58, NotASource), (13, ConnectionLost)],
)
def test_an_error_code_says_what_to_do(code: int, kind: type[SourceError]) -> None:
    assert type(codes.refusal(code, "cannot commit", "no")) is kind
    assert type(codes.refusal(14, "cannot commit", "loading")) is SourceError


# The partitions that a subscription has


def given_out(lanes: Lanes, partition: Partition, *offsets: int) -> list[Any]:
    found = [
        reading.message(*partition, offset, None, b"", None, 1000, None, lane=partition) for offset in offsets
    ]
    for message in found:
        lanes[partition].gave(message)
    return found


def test_the_last_of_each_partition_is_committed_and_strangers_are_stale() -> None:
    lanes, mine, theirs = Lanes(), Partition("t", 0), Partition("t", 1)
    lanes.assign(mine, 0)
    own = given_out(lanes, mine, 3, 4)
    strange = reading.message("t", 1, 9, None, b"", None, None, None, lane=theirs)
    last, stale = lanes.furthest([own[1], strange, own[0]])
    assert (last, stale) == ({mine: own[1]}, [strange])


def test_what_is_given_back_counts_its_deliveries_until_it_is_settled() -> None:
    lanes, at = Lanes(), Partition("t", 0)
    lane = lanes.assign(at, 0)
    messages = given_out(lanes, at, 0, 1, 2)
    assert lane.give_back(messages[1:], 0.0) == 1
    assert [lane.count(offset) for offset in (0, 1, 2)] == [1, 2, 2]
    lane.settle(2)
    assert [lane.count(offset) for offset in (1, 2)] == [1, 2]


def test_a_backlog_with_gaps_at_its_end_is_over_when_all_that_was_given_out_is_settled() -> None:
    lanes, at = Lanes(), Partition("t", 0)
    lane = lanes.assign(at, 0)
    lane.end = 5
    given_out(lanes, at, 0, 1)

    def stats(position: int) -> Any:
        return lanes.stats(lambda _: position, lambda _: 5, now=3.0)[0]

    assert (stats(2).backlog, stats(2).lag, stats(2).oldest_age) == (5, 3, 2.0)
    assert stats(5).backlog == 5  # read to the end, and nothing settled
    lane.settle(2)
    assert (stats(5).backlog, stats(5).lag, stats(5).oldest_age) == (0, 0, None)


def test_what_the_driver_does_not_know_yet_is_unknown() -> None:
    lanes = Lanes()
    lanes.assign(Partition("t", 0), 0)
    stats, behind = lanes.stats(lambda _: 0, lambda _: None, now=0.0)
    assert (stats.assigned, stats.lag, stats.backlog, behind) == (1, None, None, {})
