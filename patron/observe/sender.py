"""
The thread that sends finished spans to the Jaeger agent.

jaeger-client's own reporter loses spans silently: at 4,000 a second it drops a tenth, batches over
64 kB vanish, and it is dead after a fork. This one has a bounded queue and counts what it drops.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
import time
import weakref
from collections.abc import Iterable
from typing import Any

from patron.observe import metrics, thrift

__all__ = ["METRICS", "SpanSender"]

SENT = metrics.Counter("observability_spans_sent_total", "Spans handed to the network.")
# The reasons: queue_full, too_large (for one datagram), unencodable, unreachable, abandoned (at stop).
DROPPED = metrics.Counter(
    "observability_spans_dropped_total", "Spans that were lost, by reason.", ("reason",)
)
METRICS = (SENT, DROPPED)

_interval = 0.5
_resolve_again = 60.0


class SpanSender:
    """
    Takes finished spans of jaeger-client's tracer, which calls it a reporter, from any thread.

    Its thread starts with the first span, in the process that has it: after a fork the child begins
    with an empty queue and a thread of its own.
    """

    def __init__(self, host: str, port: int, most: int) -> None:
        self._agent = _Agent(host, port)
        self._most = most
        self._process = b""
        self._clear()
        _senders.add(self)

    def _clear(self) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # guards the start of the thread
        self._agent.close()

    def set_process(self, service_name: str, tags: Any, max_length: int) -> None:
        """Who sends; the tracer tells it when it is made."""
        from jaeger_client.thrift import make_process

        made = make_process(service_name, tags, max_length)
        self._process = thrift.encode_process(made.serviceName, made.tags)

    def report_span(self, span: Any) -> None:
        """Queue *span*; never blocks, never raises."""
        if self._queue.qsize() >= self._most:
            _drop("queue_full")
            return
        if self._closing.is_set():
            _drop("abandoned")
            return
        self._queue.put(span)
        if self._thread is None:
            self._start()

    def close(self, timeout: float = 1.0) -> None:
        """Send what is queued and end the thread, in at most *timeout* seconds; what is left is counted."""
        self._closing.set()
        thread = self._thread
        if thread is not None:
            self._queue.put(None)
            thread.join(timeout)
        _drop("abandoned", sum(1 for span in self._drain() if span is not None))

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._run, name="patron-spans", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        """Wait for a span, then for more, then send all there are, until None comes; a burst wakes it once."""
        try:
            last = False
            while not last:
                first = self._queue.get()
                if first is not None:
                    self._closing.wait(_interval)
                batch = [first, *self._drain()]
                last = any(span is None for span in batch)
                self._send(span for span in batch if span is not None)
        finally:
            self._agent.close()

    def _drain(self) -> Iterable[Any]:
        spans = []
        with contextlib.suppress(queue.Empty):
            while True:
                spans.append(self._queue.get_nowait())
        return spans

    def _send(self, spans: Iterable[Any]) -> None:
        encoded = [each for each in map(_encode, spans) if each is not None]
        for datagram, count in thrift.batches(self._process, encoded):
            if self._agent.send(datagram):
                SENT.bind().inc(count)
            else:
                _drop("unreachable", count)


class _Agent:
    """A UDP socket to the agent; belongs to the sender's thread."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._socket: socket.socket | None = None
        self._until = 0.0
        self._address: Any = None

    def send(self, datagram: bytes) -> bool:
        """Send *datagram*, looking the host up again now and then; False when it did not leave."""
        try:
            if self._socket is None or time.monotonic() > self._until:
                self._open()
            assert self._socket is not None
            self._socket.sendto(datagram, self._address)
        except OSError:
            self.close()
            return False
        return True

    def close(self) -> None:
        """Close the socket; the next datagram opens it again."""
        opened, self._socket = self._socket, None
        if opened is not None:
            opened.close()

    def _open(self) -> None:
        self.close()
        family, kind, protocol, _, self._address = socket.getaddrinfo(
            self._host, self._port, type=socket.SOCK_DGRAM
        )[0]
        self._socket = socket.socket(family, kind, protocol)
        self._until = time.monotonic() + _resolve_again


def _encode(span: Any) -> bytes | None:
    try:
        encoded = thrift.encode_span(span)
    except Exception:  # noqa: BLE001 - one odd span must not end the sender of all others
        _drop("unencodable")
        return None
    if len(encoded) > thrift.MOST_BYTES - 4096:
        _drop("too_large")
        return None
    return encoded


def _drop(reason: str, count: int = 1) -> None:
    if count:
        DROPPED.bind(reason=reason).inc(count)


_senders: weakref.WeakSet[SpanSender] = weakref.WeakSet()


def _after_fork() -> None:
    for sender in list(_senders):
        sender._clear()


os.register_at_fork(after_in_child=_after_fork)
