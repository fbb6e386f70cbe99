"""Patron's side: a service as anybody runs it, with HTTP, metrics, correlation, unsampled trace and a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from measured import SLOW, Meter, arguments

from patron import HttpSettings, ProcessSettings, Service
from patron.consumer import Batch, Consumer, Message, Source
from patron.observe import LogSettings


def main() -> None:
    case = arguments()
    meter = Meter(case)
    consumer = Consumer("bench", source(case), processor(case, meter), **settings(case))
    service = Service(
        "benchmark",
        components=[consumer, Ending(consumer, meter)],
        http=HttpSettings(host="127.0.0.1", port=case["port"]),
        log=LogSettings(),
        process=ProcessSettings(workers=1),
    )
    sys.exit(service.run())


def processor(case: dict[str, Any], meter: Meter) -> Callable[..., None]:
    """The function that notes what it gets, and nothing else; or sleeps before."""
    note = meter.note

    def empty(message: Message) -> None:
        note(message.body)

    def slow(message: Message) -> None:
        time.sleep(SLOW)
        note(message.body)

    def batch(messages: Sequence[Message]) -> None:
        for message in messages:
            note(message.body)

    return batch if case.get("batch") else slow if case.get("slow") else empty


def settings(case: dict[str, Any]) -> dict[str, Any]:
    """What is not the default of a consumer."""
    found = {name: case[name] for name in ("workers", "order", "prefetch") if name in case}
    if case.get("batch"):
        found["batch"] = Batch(size=case["batch"], wait=0.05)
    return found


def source(case: dict[str, Any]) -> Source:
    """The source of the broker, with its defaults."""
    return SOURCES[case["system"]](case)


def kafka(case: dict[str, Any]) -> Source:
    from patron.sources.kafka import KafkaSource

    options = {"driver": case["driver"]} if "driver" in case else {}
    return KafkaSource(
        case["topic"], group=case["group"], brokers=case["url"], start="oldest", create=True, **options
    )


def rabbitmq(case: dict[str, Any]) -> Source:
    from patron.sources.amqp import AmqpSource

    return AmqpSource(case["topic"], url=case["url"], create=True)


def sqs(case: dict[str, Any]) -> Source:
    from patron.sources.sqs import SqsSource

    return SqsSource(case["topic"], endpoint_url=case["url"], receivers=case["receivers"], create=True)


SOURCES: dict[str, Callable[[dict[str, Any]], Source]] = {"kafka": kafka, "rabbitmq": rabbitmq, "sqs": sqs}


class Ending:
    """Waits until all is processed and settled, and writes the result."""

    name = "ending"

    def __init__(self, consumer: Consumer, meter: Meter) -> None:
        self._consumer = consumer
        self._meter = meter

    def run(self, stop: Any) -> None:
        threading.Thread(target=self._watch, daemon=True).start()
        stop.wait()

    def _watch(self) -> None:
        self._meter.done.wait()
        while self._consumer.info()["held"]:
            time.sleep(0.001)
        self._meter.finish()


if __name__ == "__main__":
    main()
