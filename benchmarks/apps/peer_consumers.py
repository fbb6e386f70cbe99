"""
The same work with other frameworks: receive 1 KiB, call an empty function, settle afterwards.

Each as its documentation starts it, but told to settle after the function returned, not before (``first``: as
FastStream does by default on Kafka). Their log goes where they send it, which is a file here. ``tuned`` leaves
out what can be left out; ``observed`` adds the metrics and tracing that they ship.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

from measured import LINGER, Meter, arguments


def main() -> None:
    case = arguments()
    PEERS[case["peer"]](case, Meter(case))


# FastStream


def aiokafka(case: dict[str, Any], meter: Meter) -> None:
    from faststream.kafka import KafkaBroker

    middlewares = _observing(case, "kafka", "Kafka")
    _faststream_kafka(KafkaBroker(case["url"], middlewares=middlewares, **_tuning(case)), case, meter)


def confluent(case: dict[str, Any], meter: Meter) -> None:
    from faststream.confluent import KafkaBroker

    middlewares = _observing(case, "confluent", "Kafka")
    _faststream_kafka(KafkaBroker(case["url"], middlewares=middlewares, **_tuning(case)), case, meter)


def _faststream_kafka(broker: Any, case: dict[str, Any], meter: Meter) -> None:
    from faststream import AckPolicy

    options: dict[str, Any] = {"batch": True, "max_records": 500} if case.get("batch") else {}
    subscribe = broker.subscriber(
        case["topic"],
        group_id=case["group"],
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.ACK_FIRST if case.get("first") else AckPolicy.NACK_ON_ERROR,
        **options,
    )
    _faststream(broker, subscribe, bool(case.get("batch")), meter)


def rabbit(case: dict[str, Any], meter: Meter) -> None:
    from faststream import AckPolicy
    from faststream.rabbit import Channel, RabbitBroker, RabbitQueue

    broker = RabbitBroker(
        case["url"],
        middlewares=_observing(case, "rabbit", "Rabbit"),
        default_channel=Channel(prefetch_count=case["prefetch"]),
        **_tuning(case),
    )
    queue = RabbitQueue(case["topic"], durable=True)
    _faststream(broker, broker.subscriber(queue, ack_policy=AckPolicy.NACK_ON_ERROR), False, meter)


def _faststream(broker: Any, subscribe: Any, batch: bool, meter: Meter) -> None:
    from faststream import FastStream

    note = meter.note
    app = FastStream(broker)

    async def handle(body: str) -> None:
        note(body)

    async def handle_all(bodies: list[str]) -> None:
        for body in bodies:
            note(body)

    # The body as it came, as the others' functions get it: no JSON is decoded.
    subscribe(handle_all if batch else handle, decoder=_undecoded_all if batch else _undecoded)

    async def run() -> None:
        running = asyncio.create_task(app.run())
        while not meter.done.is_set():
            await asyncio.sleep(0.01)
        # The last one is acknowledged after its function returned.
        await asyncio.sleep(LINGER)
        meter.finish(lambda: None, settled=False)
        app.exit()
        await running

    asyncio.run(run())


async def _undecoded(message: Any) -> str:
    return message.body.decode()


async def _undecoded_all(message: Any) -> list[str]:
    return [body.decode() for body in message.body]


def _tuning(case: dict[str, Any]) -> dict[str, Any]:
    return {"logger": None, "apply_types": False} if case.get("tuned") else {}


def _observing(case: dict[str, Any], package: str, prefix: str) -> list[Any]:
    if not case.get("observed"):
        return []
    from importlib import import_module

    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
    from prometheus_client import CollectorRegistry

    prometheus = import_module(f"faststream.{package}.prometheus")
    telemetry = import_module(f"faststream.{package}.opentelemetry")
    provider = TracerProvider(sampler=ParentBased(ALWAYS_OFF))
    return [
        getattr(prometheus, f"{prefix}PrometheusMiddleware")(registry=CollectorRegistry()),
        getattr(telemetry, f"{prefix}TelemetryMiddleware")(tracer_provider=provider),
    ]


# kombu


def kombu(case: dict[str, Any], meter: Meter) -> None:
    from kombu import Connection, Queue
    from kombu.mixins import ConsumerMixin

    note = meter.note

    class Worker(ConsumerMixin):
        def __init__(self, connection: Any) -> None:
            self.connection = connection

        def get_consumers(self, consumer: Any, channel: Any) -> list[Any]:
            queue = Queue(case["topic"], no_declare=True)
            return [
                consumer(
                    [queue],
                    on_message=self.on_message,
                    prefetch_count=case["prefetch"],
                )
            ]

        def on_message(self, message: Any) -> None:
            note(message.body)
            message.ack()
            if meter.done.is_set():
                meter.finish(lambda: None)
                self.should_stop = True

    with Connection(case["url"]) as connection:
        Worker(connection).run()


# dramatiq


def dramatiq(case: dict[str, Any], meter: Meter) -> None:
    import dramatiq
    from dramatiq.brokers.rabbitmq import RabbitmqBroker

    broker = RabbitmqBroker(url=case["url"])
    if case.get("observed"):
        from dramatiq.middleware.prometheus import Prometheus

        broker.add_middleware(Prometheus())
    dramatiq.set_broker(broker)
    note = meter.note

    @dramatiq.actor(actor_name="bench", queue_name=case["topic"])
    def bench(body: str) -> None:
        note(body)

    worker = dramatiq.Worker(broker, worker_threads=case["workers"])
    worker.start()
    meter.done.wait()
    meter.finish(settled=False)
    worker.stop()
    broker.close()


PEERS: dict[str, Callable[[dict[str, Any], Meter], None]] = {
    "aiokafka": aiokafka,
    "confluent": confluent,
    "rabbit": rabbit,
    "kombu": kombu,
    "dramatiq": dramatiq,
}

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()
