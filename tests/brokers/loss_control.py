"""
The control for losses.py on RabbitMQ: what pika alone sees of a quorum queue whose broker is killed.

    python tests/brokers/loss_control.py                   # one reader; connects again as soon as it can
    python tests/brokers/loss_control.py --single-active   # the same, of a queue with a single active consumer
    python tests/brokers/loss_control.py --pause 3         # the reader waits before it consumes again

Prints each message that came before its predecessor in its lane. Without single active consumer that is the
first new message of each lane, at each kill.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from brokers.loss_sources import Rabbit, SharedRabbit
from brokers.loss_subject import LANES, TOPIC


class Reader:
    """Reads the queue of *subject*, acknowledging each message, until *total* different ones came."""

    def __init__(self, subject: Rabbit, total: int, pause: float) -> None:
        self.subject = subject
        self.total = total
        self.pause = pause
        self.seen: set[tuple[int, int]] = set()
        self.following: Counter[int] = Counter()
        self.connections = 0
        self.jumps = 0

    def read(self) -> None:
        import pika
        from pika.exceptions import AMQPError

        while len(self.seen) < self.total:
            try:
                connection = pika.BlockingConnection(pika.URLParameters(self.subject.server.url))
                self._consume(connection.channel())
                connection.close()
            except (AMQPError, OSError):
                time.sleep(0.05)

    def _consume(self, channel: Any) -> None:
        self.connections += 1
        time.sleep(self.pause if self.connections > 1 else 0)
        channel.basic_qos(prefetch_count=self.subject.prefetch)
        for method, _, body in channel.consume(TOPIC):
            self._note(*map(int, body.split()))
            time.sleep(0.0005)
            channel.basic_ack(method.delivery_tag)
            if len(self.seen) == self.total:
                return

    def _note(self, lane: int, number: int) -> None:
        following = self.following[lane]
        if number > following:
            self.jumps += 1
            print(f"    connection {self.connections}, lane {lane}: {number} before {following}", flush=True)
        self.following[lane] = max(following, number + 1)
        self.seen.add((lane, number))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--single-active", action="store_true", help="make the queue with that")
    parser.add_argument("--pause", type=float, default=0, help="seconds between connecting and consuming")
    parser.add_argument("--messages", type=int, default=12_000)
    parser.add_argument("--kills", type=int, default=4, help="of the broker")
    options = parser.parse_args()
    each = options.messages // LANES
    with tempfile.TemporaryDirectory(prefix="patron-losses-") as folder:
        subject = (Rabbit if options.single_active else SharedRabbit)(Path(folder))
        subject.start()
        try:
            subject.publish(0, each)
            _kill_and_read(Reader(subject, each * LANES, options.pause), options.kills)
        finally:
            subject.close()


def _kill_and_read(reader: Reader, kills: int) -> None:
    thread = threading.Thread(target=reader.read, name="reader", daemon=True)
    thread.start()
    for number in range(kills):
        while len(reader.seen) < reader.total * (number + 0.5) / (kills + 0.5):
            time.sleep(0.02)
        print(f"{len(reader.seen)} read: {reader.subject.interrupt()}", flush=True)
    thread.join()
    print(f"{kills} kills, {reader.connections} connections: {reader.jumps} out of order")


if __name__ == "__main__":
    main()
