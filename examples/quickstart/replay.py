"""
Sends orders to the shop while its processes are killed, and counts what became of each.

It starts the service itself, with two worker processes, and while 20,000 orders go in it kills
workers with -9 at random, stops the service once with SIGTERM, and kills all of it twice with -9,
starting it again each time. At the end every order that was answered with 201 must have been
processed or be in the dead letters, and the orders of each customer must have been processed in
the order in which they were accepted. Exit status 0 when that holds, 1 when not.

SOURCE chooses the queue, as for the shop itself; in a broker it has a topic of its own for each run. With
SOURCE=memory nothing is killed, since what waits in a process is lost with it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from shop import queue

from patron import SqliteSource
from patron.consumer import Source
from patron.consumer.letters import Letters

HERE = Path(__file__).parent
#: What happens along the way: after which share of the orders, and what.
EVENTS: tuple[tuple[float, str], ...] = (
    (0.06, "worker"),
    (0.12, "worker"),
    (0.20, "worker"),
    (0.28, "SIGTERM"),
    (0.36, "worker"),
    (0.44, "worker"),
    (0.52, "kill all"),
    (0.60, "worker"),
    (0.68, "worker"),
    (0.76, "kill arbiter"),
    (0.84, "worker"),
    (0.92, "worker"),
)


def generate(path: Path, count: int, seed: int) -> None:
    """Write *count* orders, one a line; one in a hundred is poisonous."""
    rng = random.Random(seed)
    with path.open("w") as file:
        for _ in range(count):
            file.write(json.dumps(_order(rng)) + "\n")


def _order(rng: random.Random) -> dict[str, Any]:
    skus = ["POISON"] if rng.random() < 0.01 else [f"A{rng.randint(1, 50)}" for _ in range(rng.randint(1, 3))]
    items = [{"sku": sku, "quantity": rng.randint(1, 9)} for sku in skus]
    return {"customer": f"c{rng.randint(1, 400)}", "items": items}


@dataclass
class Shop:
    """The running service; only the thread that disturbs it starts and kills it."""

    port: int
    database: Path
    workers: int
    log: Path
    kind: queue.Kind
    topic: str
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environ = {
            **os.environ,
            "PATRON_HTTP_DEFAULT_PORT": str(self.port),
            "PATRON_WORKERS": str(self.workers),
            "SHOP_DATABASE": str(self.database),
            "SOURCE": self.kind,
            "SHOP_TOPIC": self.topic,
        }
        command = [sys.executable, "-m", "patron", "run", str(HERE / "config.yaml")]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=environ, stdout=log, stderr=log, start_new_session=True
            )
        self._until_ready()

    def _until_ready(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if self.answers("/ready"):
                return
            if self.process is not None and self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise SystemExit(f"the service does not become ready, see {self.log}")

    def answers(self, path: str) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    @property
    def source(self) -> Source:
        return queue.source(self.kind, self.topic, str(self.database))

    def dead_letters(self) -> list[str]:
        """The ids of the orders that are in the dead letters."""
        if self.kind == "memory":  # they are in the process; but it writes down what it rejects
            return [id_ for (id_,) in rows(self.database, "SELECT id FROM orders WHERE status = 'rejected'")]
        with Letters(self.source, f"{self.topic}.dlq") as letters:
            return [letter.message.decode()["id"] for letter in letters]

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def worker_pids(self) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def stop(self) -> int:
        os.kill(self.pid, signal.SIGTERM)
        assert self.process is not None
        return self.process.wait(60)

    def kill(self, everything: bool) -> None:
        (os.killpg if everything else os.kill)(self.pid, signal.SIGKILL)
        assert self.process is not None
        self.process.wait(60)


@dataclass
class Ledger:
    """What the clients know. Each client writes under the lock."""

    accepted: list[str] = field(default_factory=list)
    poisonous: set[str] = field(default_factory=set)
    retried: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)  # guards all of it


def send(port: int, orders: list[bytes], ledger: Ledger) -> None:
    """Send *orders* one after the other, each until it is answered with 201."""
    connection = HTTPConnection("127.0.0.1", port, timeout=15)
    for body in orders:
        while True:
            order_id = _post(connection, body)
            if order_id is not None:
                break
            with ledger.lock:
                ledger.retried += 1
            time.sleep(0.05)
        with ledger.lock:
            ledger.accepted.append(order_id)
            if b"POISON" in body:
                ledger.poisonous.add(order_id)
    connection.close()


def _post(connection: HTTPConnection, body: bytes) -> str | None:
    """The id of the accepted order; None when there was no answer or a 503, so that it is not known."""
    try:
        connection.request("POST", "/orders", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        data = answer.read()
    except (OSError, HTTPException):
        connection.close()
        return None
    if answer.status == 503:
        return None
    if answer.status != 201:
        raise SystemExit(f"{answer.status} for {body!r}: {data!r}")
    return str(json.loads(data)["id"])


def disturb(shop: Shop, done: Callable[[], float], rng: random.Random, say: Callable[[str], None]) -> None:
    """Carry out the events as the share of accepted orders passes each of them."""
    for share, what in EVENTS:
        while done() < share:
            time.sleep(0.01)
        if what == "worker":
            victims = shop.worker_pids()
            if victims:
                os.kill(rng.choice(victims), signal.SIGKILL)
                say("kill -9 of a worker")
        elif what == "SIGTERM":
            say(f"SIGTERM: the service ended with status {shop.stop()}, started again")
            shop.start()
        else:
            shop.kill(everything=what == "kill all")
            say("kill -9 of every process" if what == "kill all" else "kill -9 of the arbiter")
            shop.start()


def by_customer(path: Path, clients: int) -> list[list[bytes]]:
    """The orders in *path*, shared out so that each customer has one client and keeps its order."""
    shares: list[list[bytes]] = [[] for _ in range(clients)]
    for line in path.read_bytes().splitlines():
        shares[zlib.crc32(json.loads(line)["customer"].encode()) % clients].append(line)
    return shares


def rows(database: Path, sql: str) -> Iterator[tuple[Any, ...]]:
    connection = SqliteSource(path=database, topic="orders").connect()
    try:
        yield from connection.execute(sql).fetchall()
    finally:
        connection.close()


def unfinished(shop: Shop, ledger: Ledger) -> int:
    """How many orders were accepted and are neither processed nor in the dead letters."""
    done = {
        order_id for (order_id,) in rows(shop.database, "SELECT id FROM orders WHERE status = 'processed'")
    }
    left = {order_id for order_id in ledger.accepted if order_id not in done}
    return len(left) if left - ledger.poisonous else len(left.difference(shop.dead_letters()))


def report(database: Path, ledger: Ledger, letters: Counter[str]) -> bool:
    """Print what became of the orders; returns whether everything that was promised holds."""
    times = Counter(order_id for (order_id,) in rows(database, "SELECT order_id FROM processings"))
    accepted = set(ledger.accepted)
    lost = [i for i in ledger.accepted if not times[i] and not letters[i]]
    wrongly = [i for i in accepted if letters[i] and i not in ledger.poisonous]
    disordered = out_of_order(database, ledger.accepted)
    print(f"accepted (201)        {len(accepted)}")
    print(f"sent again            {ledger.retried}  (no answer, or 503)")
    print(f"processed             {sum(1 for i in accepted if times[i])}")
    print(f"processed twice       {sum(1 for i in accepted if times[i] > 1)}")
    print(
        f"dead-lettered         {sum(1 for i in accepted if letters[i])}  (poisonous: {len(ledger.poisonous)})"
    )
    print(f"dead-lettered twice   {sum(1 for i in accepted if letters[i] > 1)}")
    print(f"lost                  {len(lost)}")
    print(f"good, dead-lettered   {len(wrongly)}")
    print(f"customers             {len(set(customers(database).values()))}, out of order: {len(disordered)}")
    return not lost and not wrongly and not disordered


def customers(database: Path) -> dict[str, str]:
    return dict(rows(database, "SELECT id, customer FROM orders"))


def out_of_order(database: Path, accepted: list[str]) -> set[str]:
    """The customers whose orders were first processed in another order than they were accepted in."""
    customer_of, first = customers(database), dict[str, int]()
    for number, order_id in rows(database, "SELECT number, order_id FROM processings ORDER BY number"):
        first.setdefault(order_id, number)
    last, wrong = dict[str, int](), set[str]()
    for order_id in accepted:
        if order_id not in first:
            continue
        customer = customer_of[order_id]
        if first[order_id] < last.get(customer, 0):
            wrong.add(customer)
        last[customer] = first[order_id]
    return wrong


class Progress:
    """One line that is written over on a terminal, and a line now and then elsewhere."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._terminal = sys.stderr.isatty()
        self._next = 0.0

    def show(self, count: int, text: str) -> None:
        if not self._terminal and time.monotonic() < self._next:
            return
        self._next = time.monotonic() + 2
        end = "" if self._terminal else "\n"
        start = "\r\x1b[K" if self._terminal else ""
        print(f"{start}{text} {count}/{self._total}", end=end, file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        start = "\r\x1b[K" if self._terminal else ""
        print(f"{start}{text}", file=sys.stderr, flush=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--orders", type=int, default=20_000, help="how many orders (default 20000)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default 2)")
    parser.add_argument("--clients", type=int, default=16, help="connections that send (default 16)")
    parser.add_argument("--seed", type=int, default=1, help="of the orders and of who is killed (default 1)")
    parser.add_argument("--port", type=int, default=0, help="of the service (default: a free one)")
    parser.add_argument(
        "--folder", type=Path, help="where orders, database and log go (default: a temporary one)"
    )
    return parser.parse_args()


def replay(options: argparse.Namespace, folder: Path) -> bool:
    """The whole run; returns whether everything held."""
    file = folder / f"orders-{options.orders}-{options.seed}.jsonl"
    if not file.exists():
        generate(file, options.orders, options.seed)
    kind: Any = os.environ.get("SOURCE") or "sqlite"
    topic = "orders" if kind == "sqlite" else f"orders-{uuid.uuid4().hex[:8]}"
    workers = 1 if kind == "memory" else options.workers
    port = options.port or free_port()
    shop = Shop(port, folder / "shop.db", workers, folder / "log.jsonl", kind, topic)
    progress, ledger = Progress(options.orders), Ledger()
    try:
        shop.start()
        _send_all(options, file, shop, ledger, progress)
        _drain(shop, ledger, progress)
        letters = Counter(shop.dead_letters())
        status = shop.stop()
    finally:
        if shop.process is not None and shop.process.poll() is None:
            shop.kill(everything=True)
    print(f"exit status           {status}")
    return report(shop.database, ledger, letters) and status == 0


def _send_all(
    options: argparse.Namespace, file: Path, shop: Shop, ledger: Ledger, progress: Progress
) -> None:
    clients = [
        threading.Thread(target=send, args=(shop.port, orders, ledger), name=f"client-{n}", daemon=True)
        for n, orders in enumerate(by_customer(file, options.clients))
    ]
    rng = random.Random(options.seed)
    chaos = threading.Thread(
        target=disturb,
        args=(shop, lambda: len(ledger.accepted) / options.orders, rng, progress.say),
        name="disturb",
        daemon=True,
    )
    began = time.monotonic()
    threads = clients if shop.kind == "memory" else [*clients, chaos]
    for thread in threads:
        thread.start()
    last, seen = time.monotonic(), 0
    while any(thread.is_alive() for thread in threads):
        progress.show(len(ledger.accepted), "accepted")
        time.sleep(0.2)
        if len(ledger.accepted) > seen:
            last, seen = time.monotonic(), len(ledger.accepted)
        elif time.monotonic() - last > 120:
            raise SystemExit(f"no order was accepted for two minutes, see {shop.log}")
    progress.say(f"all were accepted within {time.monotonic() - began:.1f} s")


def _drain(shop: Shop, ledger: Ledger, progress: Progress) -> None:
    deadline = time.monotonic() + 180
    while (left := unfinished(shop, ledger)) and time.monotonic() < deadline:
        progress.show(left, "waiting for the last orders")
        time.sleep(0.2)


def main() -> None:
    options = arguments()
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
        sys.exit(0 if replay(options, options.folder) else 1)
    with tempfile.TemporaryDirectory(prefix="replay-") as folder:
        sys.exit(0 if replay(options, Path(folder)) else 1)


if __name__ == "__main__":
    main()
