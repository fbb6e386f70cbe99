"""The bare drivers' tightest loops, at least once: what is settled has been processed."""

from __future__ import annotations

import queue
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from measured import SLOW, Meter, arguments

HELD = 512
"""What a loop with threads holds at most, as Patron does with 32 workers."""
COMMIT_EVERY = 0.1


def main() -> None:
    case = arguments()
    LOOPS[case["loop"]](case, Meter(case))


# Kafka


def kafka_python(case: dict[str, Any], meter: Meter) -> None:
    """Poll and commit, 500 at a time; with ``wait`` false the commit is on its way while the next are processed."""
    consumer = _kafka_consumer(case)
    note = meter.note
    while meter.left > 0:
        for records in consumer.poll(timeout_ms=1000).values():
            for record in records:
                note(record.value)
        if case["wait"]:
            consumer.commit()
        else:
            consumer.commit_async()
    consumer.commit()
    meter.finish()
    consumer.close()


def confluent(case: dict[str, Any], meter: Meter) -> None:
    """Consume 500 at a time, and store their offsets, which librdkafka commits in the background, and on close."""
    consumer = _confluent_consumer(case)
    note = meter.note
    while meter.left > 0:
        messages = consumer.consume(min(500, meter.left), 1.0)
        for message in messages:
            note(message.value())
        if messages:
            consumer.commit(asynchronous=True)
    from confluent_kafka import KafkaException

    with suppress(KafkaException):  # nothing is left to commit; whether all is, the broker is asked
        consumer.commit(asynchronous=False)
    meter.finish()
    consumer.close()


def kafka_threads(case: dict[str, Any], meter: Meter) -> None:
    """Threads that process in any order; committed is up to the first of each partition that is not done."""
    from kafka import TopicPartition
    from kafka.structs import OffsetAndMetadata

    consumer = _kafka_consumer(case)
    threads = Threads(case["workers"], meter, lambda record: record.value)
    marks: dict[int, int] = {}
    ahead: defaultdict[int, set[int]] = defaultdict(set)
    committed = time.monotonic()
    held = 0

    def commit() -> None:
        offsets = {TopicPartition(case["topic"], p): OffsetAndMetadata(o, "", -1) for p, o in marks.items()}
        consumer.commit(offsets)

    while meter.left > 0 or held:
        for record in threads.taken():
            held -= 1
            done = ahead[record.partition]
            done.add(record.offset)
            while marks[record.partition] in done:
                done.remove(marks[record.partition])
                marks[record.partition] += 1
        if time.monotonic() - committed > COMMIT_EVERY and marks:
            committed = time.monotonic()
            commit()
        if held >= HELD:
            time.sleep(0.001)
            continue
        # 5 ms would be too short to join the group.
        for records in consumer.poll(timeout_ms=5 if held else 500, max_records=HELD - held).values():
            for record in records:
                marks.setdefault(record.partition, record.offset)
                threads.put(record)
                held += 1
    commit()
    meter.finish()
    threads.stop()
    consumer.close()


def _kafka_consumer(case: dict[str, Any]) -> Any:
    from kafka import KafkaConsumer

    return KafkaConsumer(
        case["topic"],
        bootstrap_servers=case["url"],
        group_id=case["group"],
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )


def _confluent_consumer(case: dict[str, Any]) -> Any:
    from confluent_kafka import Consumer

    options = {
        "bootstrap.servers": case["url"],
        "group.id": case["group"],
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
    }
    consumer = Consumer(options)
    consumer.subscribe([case["topic"]])
    return consumer


# RabbitMQ


def pika_each(case: dict[str, Any], meter: Meter) -> None:
    """Acknowledge each message."""
    connection, channel = _channel(case)
    note = meter.note

    def received(channel: Any, method: Any, properties: Any, body: bytes) -> None:
        note(body)
        channel.basic_ack(method.delivery_tag)

    channel.basic_consume(case["topic"], received)
    while meter.left > 0:
        connection.process_data_events(time_limit=1)
    _finish_pika(connection, meter)


def pika_many(case: dict[str, Any], meter: Meter) -> None:
    """Acknowledge with ``multiple``, once for each 64 messages and once for what is left when nothing more waits."""
    connection, channel = _channel(case)
    note = meter.note
    last = acked = 0

    def received(channel: Any, method: Any, properties: Any, body: bytes) -> None:
        nonlocal last, acked
        note(body)
        last = method.delivery_tag
        if last - acked >= 64:
            channel.basic_ack(last, multiple=True)
            acked = last

    channel.basic_consume(case["topic"], received)
    while meter.left > 0:
        connection.process_data_events(time_limit=1)
        if last > acked:
            channel.basic_ack(last, multiple=True)
            acked = last
    _finish_pika(connection, meter)


def pika_threads(case: dict[str, Any], meter: Meter) -> None:
    """Threads that process; the connection's thread acknowledges what they finished."""
    connection, channel = _channel(case)
    threads = Threads(case["workers"], meter, lambda item: item[1])
    due = threading.Lock()  # held while the connection's thread is already called
    acked = 0

    def finished() -> None:
        if due.acquire(blocking=False):
            connection.add_callback_threadsafe(settle)

    def settle() -> None:
        nonlocal acked
        due.release()
        for tag, _ in threads.taken():
            channel.basic_ack(tag)
            acked += 1

    threads.finished = finished
    channel.basic_consume(
        case["topic"], lambda channel, method, properties, body: threads.put((method.delivery_tag, body))
    )
    while acked < case["count"]:
        connection.process_data_events(time_limit=1)
    _finish_pika(connection, meter)
    threads.stop()


def _channel(case: dict[str, Any]) -> tuple[Any, Any]:
    import pika

    connection = pika.BlockingConnection(pika.URLParameters(case["url"]))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=case.get("prefetch", HELD))
    return connection, channel


def _finish_pika(connection: Any, meter: Meter) -> None:
    connection.process_data_events(time_limit=0)
    meter.finish(lambda: connection.process_data_events(time_limit=0.3))
    connection.close()


# SQS


def boto3(case: dict[str, Any], meter: Meter) -> None:
    """Receive ten, delete them in one call; as many loops as there are receivers, each with a client of its own."""
    loops = [
        threading.Thread(target=_receiving, args=(_sqs(case), case, meter)) for _ in range(case["receivers"])
    ]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join()
    meter.finish()


def _receiving(client: Any, case: dict[str, Any], meter: Meter) -> None:
    url = client.get_queue_url(QueueName=case["topic"])["QueueUrl"]
    note = meter.note
    while meter.left > 0:
        answer = client.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=10,
            WaitTimeSeconds=1,
            MessageAttributeNames=["All"],
            AttributeNames=["All"],
        )
        messages = answer.get("Messages", ())
        for message in messages:
            note(message["Body"])
        if messages:
            entries = [{"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(messages)]
            assert not client.delete_message_batch(QueueUrl=url, Entries=entries).get("Failed")


def _sqs(case: dict[str, Any]) -> Any:
    from boto3.session import Session

    return Session().client("sqs", endpoint_url=case["url"])


class Threads:
    """Threads that take from a queue, sleep, and put what they did on another."""

    def __init__(self, count: int, meter: Meter, body: Callable[[Any], bytes]) -> None:
        self._items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._done: deque[Any] = deque()
        self._meter = meter
        self._body = body
        self.put = self._items.put
        self.finished: Callable[[], None] = lambda: None
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        note, body, done, get = self._meter.note, self._body, self._done.append, self._items.get
        while (item := get()) is not None:
            time.sleep(SLOW)
            note(body(item))
            done(item)
            self.finished()

    def taken(self) -> list[Any]:
        """What was finished since the last call."""
        return [self._done.popleft() for _ in range(len(self._done))]

    def stop(self) -> None:
        """End the threads."""
        for _ in self._threads:
            self.put(None)
        for thread in self._threads:
            thread.join()


LOOPS: dict[str, Callable[[dict[str, Any], Meter], None]] = {
    "kafka-python": kafka_python,
    "confluent": confluent,
    "kafka-threads": kafka_threads,
    "pika-each": pika_each,
    "pika-many": pika_many,
    "pika-threads": pika_threads,
    "boto3": boto3,
}

if __name__ == "__main__":
    main()
