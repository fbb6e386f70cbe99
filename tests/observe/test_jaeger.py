"""Spans as a Jaeger agent gets them: real datagrams, decoded with the generated types."""

from __future__ import annotations

import os
import re
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jaeger_client")

from jaeger_client.thrift_gen.agent import Agent
from thrift.protocol.TCompactProtocol import TCompactProtocol
from thrift.transport.TTransport import TMemoryBuffer

from patron.observe import TraceSettings, metrics, operation, span, trace

ROOT = Path(__file__).parents[2]


class FakeAgent:
    """A UDP socket, and what came in on it."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.sizes: list[int] = []
        self.processes: list[Any] = []

    def spans(self, count: int, timeout: float = 10.0) -> list[Any]:
        """The next *count* spans, or what came within *timeout*."""
        spans: list[Any] = []
        until = time.monotonic() + timeout
        while (
            len(spans) < count and select.select([self.socket], [], [], max(0.0, until - time.monotonic()))[0]
        ):
            datagram = self.socket.recv(1 << 17)
            self.sizes.append(len(datagram))
            batch = _decode(datagram)
            self.processes.append(batch.process)
            spans.extend(batch.spans)
        return spans


def _decode(datagram: bytes) -> Any:
    protocol = TCompactProtocol(TMemoryBuffer(datagram))
    assert protocol.readMessageBegin() == ("emitBatch", 4, 0)
    arguments = Agent.emitBatch_args()
    arguments.read(protocol)
    protocol.readMessageEnd()
    assert protocol.trans.cstringio_buf.tell() == len(datagram), "nothing follows the message"
    return arguments.batch


@pytest.fixture
def agent() -> Iterator[FakeAgent]:
    opened = FakeAgent()
    yield opened
    opened.socket.close()


def start(agent: FakeAgent, kind: str = "const", param: float = 1.0, **more: Any) -> None:
    trace.start("shop", "1.4.0", TraceSettings("127.0.0.1", agent.port, kind, param, **more))


def tags(span: Any) -> dict[str, Any]:
    values = (
        (lambda t: t.vStr),
        (lambda t: t.vDouble),
        (lambda t: t.vBool),
        (lambda t: t.vLong),
        (lambda t: t.vBinary),
    )
    return {tag.key: values[tag.vType](tag) for tag in span.tags}


def test_a_span_arrives_with_its_ids_tags_and_times(agent: FakeAgent) -> None:
    start(agent)
    began = time.time()
    headers = {"uber-trace-id": "f2345678901234561234567890123456:abc:0:1", "X-Correlation-Id": "corr"}
    with operation("server", "http", "/orders", headers) as running:
        for key, value in {
            "i": -5,
            "m": 1 << 40,
            "min": -(1 << 63),
            "big": 1 << 63,
            "f": 1.5,
            "b": False,
        }.items():
            running.tag(key, value)
        running.tag("t", "żółw 🙂 \ud800")
        running.tag("long", "x" * 5000)
        running.tag("http.status_code", 200)
    trace.stop(5.0)
    (only,) = agent.spans(1)
    assert (only.traceIdHigh & (2**64 - 1), only.traceIdLow) == (0xF234567890123456, 0x1234567890123456)
    assert only.parentSpanId == 0xABC
    assert only.spanId & (2**64 - 1) == running.context.span_id
    assert (only.operationName, only.flags) == ("http /orders", 1)
    assert began * 1e6 - 1e6 < only.startTime < began * 1e6 + 60e6
    assert 0 <= only.duration < 60e6
    assert tags(only) == {
        "component": "http", "version": "1.4.0", "correlationID": "corr", "span.kind": "server", "i": -5, "m": 1 << 40,
        "min": -(1 << 63), "big": str(1 << 63), "f": 1.5, "b": False, "t": "żółw 🙂 ?", "long": "x" * 1024,
        "http.status_code": 200,
    }  # fmt: skip
    process = agent.processes[0]
    assert process.serviceName == "shop"
    assert {"ip", "hostname", "jaeger.version"} <= {tag.key for tag in process.tags}


def test_a_failure_is_on_the_span_with_a_log(agent: FakeAgent) -> None:
    start(agent)
    with pytest.raises(ValueError, match="bad"), span("price"):
        raise ValueError("bad")
    trace.stop(5.0)
    (only,) = agent.spans(1)
    assert tags(only)["error"] is True
    assert {tag.key: tag.vStr for tag in only.logs[0].fields} == {
        "event": "error", "error.kind": "ValueError", "message": "ValueError: bad",
    }  # fmt: skip


def test_an_error_without_a_text_makes_no_operation_fail(agent: FakeAgent) -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    start(agent)
    with pytest.raises(Broken), span("price"):
        raise Broken
    trace.stop(5.0)
    assert tags(agent.spans(1)[0])["error"] is True


def test_many_spans_arrive_all_in_datagrams_that_udp_can_carry(agent: FakeAgent) -> None:
    start(agent)
    for number in range(400):
        with span("fat", number=number) as fat:
            fat.tag("text", "x" * 1000)
    trace.stop(10.0)
    arrived = agent.spans(400)
    assert [tags(each)["number"] for each in arrived] == list(range(400))
    assert max(agent.sizes) <= 65_000
    assert 6 < len(agent.sizes) < 15, "full datagrams, not one for each span"


def test_a_span_that_is_too_large_alone_is_dropped_and_counted_and_the_others_arrive(
    agent: FakeAgent,
) -> None:
    start(agent)
    with span("too large") as large:
        for number in range(80):
            large.tag(f"t{number}", "x" * 1000)
    with span("small"):
        pass
    trace.stop(5.0)
    assert [each.operationName for each in agent.spans(1)] == ["small"]
    assert dropped("too_large") == 1


def test_spans_of_eight_threads_are_all_sent(agent: FakeAgent) -> None:
    start(agent)

    def work(_: int) -> None:
        for _ in range(100):
            with span("work"):
                pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    trace.stop(10.0)
    assert len({each.spanId for each in agent.spans(800)}) == 800


def test_what_is_over_the_queue_is_dropped_and_counted(agent: FakeAgent) -> None:
    start(agent, queue=10)
    for _ in range(100):
        with span("burst"):
            pass
    trace.stop(5.0)
    sent = len(agent.spans(100, timeout=0.5))
    assert 10 <= sent < 100
    assert dropped("queue_full") == 100 - sent


def test_nothing_is_sent_and_no_thread_runs_when_nothing_is_sampled(agent: FakeAgent) -> None:
    start(agent, "probabilistic", 0.0)
    threads = threading.active_count()
    with operation("server", "http", "/"), span("inner"):
        assert threading.active_count() == threads
    trace.stop(5.0)
    assert agent.spans(1, timeout=0.1) == []


def test_a_trace_sampled_upstream_is_continued_even_with_a_sampler_that_starts_none(agent: FakeAgent) -> None:
    start(agent, "probabilistic", 0.0)
    with operation("consumer", "kafka", "orders", {"uber-trace-id": "1:2:0:1"}), span("inner"):
        pass
    with operation("consumer", "kafka", "orders", {"uber-trace-id": "3:4:0:0"}), span("inner"):
        pass
    trace.stop(5.0)
    assert [each.traceIdLow for each in agent.spans(3, timeout=0.5)] == [1, 1]


def test_a_probabilistic_sampler_samples_its_share_and_says_so(agent: FakeAgent) -> None:
    start(agent, "probabilistic", 0.5)
    for _ in range(400):
        with operation("server", "http", "/"), span("inner"):
            pass
    trace.stop(10.0)
    arrived = agent.spans(800, timeout=1.0)
    roots = [each for each in arrived if not each.parentSpanId]
    assert 120 < len(roots) < 280
    assert len(arrived) == 2 * len(roots), "a trace is sampled whole"
    assert tags(roots[0])["sampler.type"] == "probabilistic"
    assert tags(roots[0])["sampler.param"] == 0.5


def test_a_rate_limiting_sampler_lets_a_few_through(agent: FakeAgent) -> None:
    start(agent, "ratelimiting", 2)
    until = time.monotonic() + 30
    sampled = False
    while not sampled and time.monotonic() < until:
        with span("first") as first:
            sampled = first.sampled
    for _ in range(500):
        with span("burst"):
            pass
    trace.stop(5.0)
    assert 1 <= len(agent.spans(500, timeout=0.5)) < 50


def test_without_an_agent_spans_are_lost_and_nothing_else() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    trace.start("shop", "1", TraceSettings("127.0.0.1", port, "const", 1.0))
    with span("work"):
        pass
    trace.stop(5.0)


def test_an_agent_that_has_no_address_costs_spans_which_are_counted() -> None:
    trace.start("shop", "1", TraceSettings("no-such-host.invalid", 6831, "const", 1.0))
    with span("work"):
        pass
    trace.stop(30.0)
    assert dropped("unreachable") == 1


def test_stopping_from_another_thread_sends_what_is_queued_and_joins_the_thread(agent: FakeAgent) -> None:
    start(agent)
    with span("work"):
        pass
    stopping = threading.Thread(target=trace.stop, args=(5.0,))
    stopping.start()
    stopping.join()
    assert len(agent.spans(1)) == 1
    assert not [thread for thread in threading.enumerate() if thread.name == "patron-spans"]


def test_a_span_that_ends_while_others_are_sent_and_the_service_stops_is_sent_too(
    agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking_up, go_on = threading.Event(), threading.Event()
    address = socket.getaddrinfo("127.0.0.1", agent.port, type=socket.SOCK_DGRAM)

    def slow(*_: object, **__: object) -> object:
        looking_up.set()
        assert go_on.wait(30)
        return address

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    start(agent)
    with span("first"):
        pass
    assert looking_up.wait(30)
    with span("second"):
        pass
    stopping = threading.Thread(target=trace.stop, args=(30.0,))
    stopping.start()
    while trace.backend is not None:
        time.sleep(0.001)
    go_on.set()
    stopping.join()
    assert [each.operationName for each in agent.spans(2)] == ["first", "second"]
    assert dropped("abandoned") == 0


def test_after_a_fork_parent_and_children_send_their_own_spans(agent: FakeAgent) -> None:
    script = f"""
import os
from patron.observe import TraceSettings, span, trace
trace.start("shop", "1", TraceSettings("127.0.0.1", {agent.port}, "const", 1.0))
with span("before"): pass
children = []
for number in range(3):
    pid = os.fork()
    if pid == 0:
        with span("child"): pass
        trace.stop(5.0)
        os._exit(0)
    children.append(pid)
assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
with span("after"): pass
trace.stop(5.0)
"""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
    arrived = agent.spans(5)
    assert sorted(each.operationName for each in arrived) == ["after", "before", "child", "child", "child"]
    assert len({each.spanId for each in arrived}) == len({each.traceIdLow for each in arrived}) == 5


def test_without_the_package_ids_propagate_all_the_same() -> None:
    script = """
import sys
sys.modules["jaeger_client"] = None
from patron import correlation
from patron.observe import TraceSettings, operation, trace
trace.start("shop", "1", TraceSettings(sampler_type="const", sampler_param=1))
with operation("server", "http", "/", {"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01"}):
    assert correlation.outgoing()["uber-trace-id"].startswith("1" * 32), correlation.outgoing()
trace.stop(1.0)
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)


def test_a_package_that_does_not_import_costs_the_spans_and_not_the_service(tmp_path: Path) -> None:
    (tmp_path / "jaeger_client.py").write_text("import a_module_that_nobody_has\n")
    script = """
from patron.observe import LogSettings, TraceSettings, log, operation, trace
log.start("shop", "1", LogSettings())
for param in (0, 1):
    trace.start("shop", "1", TraceSettings(sampler_type="const", sampler_param=param))
    for number in range(3):
        with operation("server", "http", "/", {"uber-trace-id": "1:2:0:1"}): pass
        with operation("server", "http", "/"): pass
    trace.stop(1.0)
"""
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, timeout=60
    )
    assert (done.returncode, done.stderr.count(b"no spans are sent")) == (0, 2), done.stderr


def dropped(reason: str) -> float:
    page = metrics.exposition()[0].decode()
    match = re.search(rf"spans_dropped_total\{{reason=\"{reason}\"\}} (\S+)", page)
    return float(match[1]) if match else 0.0
