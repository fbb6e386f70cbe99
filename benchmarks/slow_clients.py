"""
How long other clients wait while two hundred slow connections are open, and while they are not, in one run.

    python benchmarks/slow_clients.py [--slow 200] [--seconds 5] [--rounds 3] [--worker patron|gthread]

A quarter each of the slow connections sends half a head, half a body, nothing at all, or reads nothing of
an answer of 4 MB. Beside them a few clients ask for a small answer, one request after the other, on connections
that they keep. What they wait is measured with and without the slow ones, alternating. ``--worker
gthread`` asks gunicorn's own threaded worker the same. Server and clients share the machine: compare the two lines.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

MODULE = """
BIG = bytes(4_000_000)

def app(environ, start_response):
    body = BIG if "big" in environ["QUERY_STRING"] else b"hello"
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
CONFIG = """
name: slow
grace: 1
log: {level: error}
http:
  threads: 8
  max_connections: 2000
  mounts: {/app: "slow_app:app"}
"""
SLOW = (
    b"GET /app HTTP/1.1\r\nHost: x\r\nX-Half",
    b"POST /app HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf",
    b"",
    b"GET /app?big HTTP/1.1\r\nHost: x\r\n\r\n",
)
ASK = b"GET /app HTTP/1.1\r\nHost: x\r\n\r\n"


def command(worker: str, port: int) -> list[str]:
    if worker == "patron":
        return [sys.executable, "-m", "patron", "run", "config.yaml"]
    options = ["-k", "gthread", "--threads", "8", "-b", f"127.0.0.1:{port}", "--keep-alive", "75"]
    return [sys.executable, "-m", "gunicorn", *options, "--no-control-socket", "--worker-connections", "2000"]


@contextlib.contextmanager
def server(worker: str, port: int) -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "slow_app.py").write_text(MODULE)
        (Path(folder) / "config.yaml").write_text(CONFIG)
        environ = {**os.environ, "PYTHONPATH": folder, "PATRON_HTTP_DEFAULT_PORT": str(port)}
        arguments = command(worker, port) + ([] if worker == "patron" else ["slow_app:app"])
        process = subprocess.Popen(arguments, cwd=folder, env=environ)
        try:
            wait_for(port)
            yield
        finally:
            process.send_signal(signal.SIGQUIT if worker == "patron" else signal.SIGTERM)
            process.wait(60)


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), connect(port) as client:
            client.sendall(ASK)
            if b" 200 " in client.recv(4096):
                return
        time.sleep(0.05)
    raise SystemExit("the server does not start")


def connect(port: int) -> socket.socket:
    client = socket.socket()
    client.settimeout(60)
    client.connect(("127.0.0.1", port))
    return client


@contextlib.contextmanager
def slow_clients(port: int, count: int) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for number in range(count):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(60)
            client.connect(("127.0.0.1", port))
            client.sendall(SLOW[number % len(SLOW)])
        yield


def ask(port: int, until: float, waited: list[float]) -> None:
    """Ask again and again; *waited* gets the milliseconds of each answer."""
    with connect(port) as client:
        while (began := time.perf_counter()) < until:
            client.sendall(ASK)
            received = b""
            while not received.endswith(b"hello"):
                piece = client.recv(4096)
                if not piece:
                    raise SystemExit("a client that is not slow lost its connection")
                received += piece
            waited.append(1000 * (time.perf_counter() - began))


def measure(port: int, clients: int, seconds: float) -> list[float]:
    waited: list[float] = []
    until = time.perf_counter() + seconds
    threads = [threading.Thread(target=ask, args=(port, until, waited)) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return waited


def line(name: str, waited: list[float]) -> str:
    if len(waited) < 2:
        return f"{name:32}{len(waited):10}   no other client was served"
    cuts = statistics.quantiles(waited, n=1000)
    return f"{name:32}{len(waited):10}{cuts[499]:10.2f}{cuts[989]:10.2f}{max(waited):10.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slow", type=int, default=200)
    parser.add_argument("--clients", type=int, default=2, help="that are not slow")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", choices=("patron", "gthread"), default="patron")
    options = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    alone: list[float] = []
    beside: list[float] = []
    with server(options.worker, port):
        measure(port, options.clients, 1.0)
        for _ in range(options.rounds):
            alone += measure(port, options.clients, options.seconds)
            with slow_clients(port, options.slow):
                beside += measure(port, options.clients, options.seconds)
    print(f"{'milliseconds':32}{'answers':>10}{'p50':>10}{'p99':>10}{'longest':>10}")
    print(line("without slow connections", alone))
    print(line(f"beside {options.slow} slow connections", beside))


if __name__ == "__main__":
    main()
