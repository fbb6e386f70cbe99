"""
Runs Kafka, RabbitMQ, moto's server and Redis until it is interrupted; prints the variables that lead tests to them.

    python tests/brokers/serve.py > brokers.env &    # then: . ./brokers.env; pytest
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from brokers.kafka_server import Kafka
from brokers.moto_process import VARIABLES, Moto
from brokers.processes import ServerProcess
from brokers.rabbitmq_server import RabbitMQ
from brokers.redis_server import Redis

S = TypeVar("S", bound=ServerProcess)


def main() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="patron-brokers-") as folder, ExitStack() as stack:
        kafka = _started(Kafka(Path(folder, "kafka")), stack)
        rabbitmq = _started(RabbitMQ(Path(folder, "rabbitmq")), stack)
        sqs = _started(Moto(Path(folder, "sqs")), stack)
        redis = _started(Redis(Path(folder, "redis")), stack)
        variables = {
            "PATRON_TEST_KAFKA_URL": kafka.url,
            "PATRON_TEST_KAFKA_PROXIED": f"{kafka.proxied},{kafka.proxy}",
            "PATRON_TEST_RABBITMQ_URL": rabbitmq.url,
            "PATRON_TEST_SQS_URL": sqs.url,
            "PATRON_TEST_REDIS_URL": redis.url,
            **VARIABLES,
        }
        print("\n".join(f"export {name}={value}" for name, value in variables.items()))
        print(f"# stop them: kill {os.getpid()}", flush=True)
        signal.pause()


def _started(server: S, stack: ExitStack) -> S:
    stack.callback(server.close)
    server.start()
    return server


if __name__ == "__main__":
    main()
