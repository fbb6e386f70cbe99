"""Clients that are slow to send or to read cost no thread: the others are served as if they were not there."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import ServiceProcess

pytestmark = pytest.mark.server

SIZE = 6_000_128
MODULE = """
    import hashlib, threading, time
    from patron import Response

    BIG = bytes(range(256)) * 23438

    def fast(request):
        return {"threads": sum(t.name.startswith("patron-http") for t in threading.enumerate())}

    def big(request):
        return BIG

    def stream(request):
        def pieces():
            for at in range(0, len(BIG), 50_000):
                yield BIG[at : at + 50_000]
        return Response(pieces(), content_type="application/octet-stream")

    def echo(request):
        return {"length": len(request.raw.read())}

    def upload(request):
        digest, size = hashlib.sha256(), 0
        while piece := request.raw.read(65536):
            digest.update(piece)
            size += len(piece)
        return {"size": size, "digest": digest.hexdigest()}

    def first_line(request):
        return {"line": request.raw.readline().decode()}

    def stubborn(request):
        for _ in range(5):
            try:
                request.raw.read(10)
            except Exception:
                pass
        return "whatever"

    def refuse(request):
        return Response({"no": "thanks"}, status=403)

    def waited(environ, start_response):
        body = b"%.3f" % (time.monotonic() - environ["patron.arrived"])
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
"""
CONFIG = """
    name: shop
    grace: 3
    http:
      threads: 4
      read_timeout: 2
      write_timeout: %s
      routes:
        - {method: GET, path: /fast, processor: "shop:fast"}
        - {method: GET, path: /big, processor: "shop:big"}
        - {method: GET, path: /stream, processor: "shop:stream"}
        - {method: POST, path: /echo, processor: "shop:echo"}
        - {method: POST, path: /upload, processor: "shop:upload", stream: true, max_body: 50000000}
        - {method: POST, path: /line, processor: "shop:first_line", stream: true}
        - {method: POST, path: /stubborn, processor: "shop:stubborn", stream: true}
        - {method: POST, path: /refuse, processor: "shop:refuse", stream: true}
      mounts: {/waited: "shop:waited"}
"""


@pytest.fixture(scope="module")
def shop(shared_service: ServiceProcess) -> ServiceProcess:
    """One service for all the tests that leave it as it was."""
    shared_service.write(MODULE, CONFIG % 30)
    return shared_service.start()


@pytest.fixture
def own_shop(service: ServiceProcess) -> ServiceProcess:
    """A service for one test."""
    service.write(MODULE, CONFIG % 30)
    return service.start()


def patient(service: ServiceProcess, grace: int) -> ServiceProcess:
    """A service for one test, which waits long for what its clients send."""
    waits = (CONFIG % 30).replace("grace: 3", f"grace: {grace}")
    service.write(MODULE, waits.replace("read_timeout: 2", "read_timeout: 200"))
    return service.start()


@contextmanager
def connection(shop: ServiceProcess, data: bytes = b"", room: int = 4096) -> Iterator[socket.socket]:
    """A connection for which the kernel holds few bytes that were not read, about *room*."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        client.settimeout(10)
        client.connect(("127.0.0.1", shop.port))
        client.sendall(data)
        yield client


def get(path: str, version: str = "1.1") -> bytes:
    return f"GET {path} HTTP/{version}\r\nHost: x\r\n\r\n".encode()


def post(path: str, length: int, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def read_all(client: socket.socket) -> bytes:
    received = b""
    while piece := client.recv(1 << 20):
        received += piece
    return received


def answer(client: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """The next answer on *client*, and not a byte more: status, headers, body."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = client.recv(1)
        assert byte, head
        head += byte
    first, *lines = head.decode().strip().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = b""
    while len(body) < int(headers.get("content-length", 0)):
        body += client.recv(int(headers["content-length"]) - len(body))
    return int(first.split()[1]), headers, body


def metrics(shop: ServiceProcess, path: str) -> dict[tuple[str, str], float]:
    """(method, status) → count, of the requests of *path*."""
    found = {}
    for line in shop.get("/metrics").body.decode().splitlines():  # type: ignore[attr-defined]
        if line.startswith("component_http_handled_total{") and f'path="{path}"' in line:
            labels = dict(part.split("=") for part in line[line.index("{") + 1 : line.index("}")].split(","))
            found[labels["method"].strip('"'), labels["status_code"].strip('"')] = float(line.split()[-1])
    return found


# ------------------------------------------------------------------------------------------- slow readers


@pytest.mark.parametrize("path", ["/big", "/stream"])
def test_an_answer_that_is_read_slowly_arrives_as_a_whole_and_the_connection_goes_on(
    shop: ServiceProcess, path: str
) -> None:
    with connection(shop, get(path) + get("/fast"), room=200_000) as client:
        shop.until(lambda: shop.get("/fast").status == 200)
        received = b""
        while b'{"threads":' not in received[-200:]:
            piece = client.recv(1 << 20)
            assert piece, received[-200:]
            received += piece
    assert received.count(b"HTTP/1.1 200") == 2
    body = received.partition(b"\r\n\r\n")[2]
    if path == "/big":
        assert body[:SIZE] == bytes(range(256)) * (SIZE // 256)


def test_clients_that_do_not_read_hold_no_thread(shop: ServiceProcess) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(connection(shop, get("/big"))) for _ in range(8)]  # twice the threads
        assert [shop.get("/fast", timeout=5).status for _ in range(10)] == [200] * 10
        assert all(client.recv(12) == b"HTTP/1.1 200" for client in clients)


def test_a_client_that_takes_nothing_is_given_up(service: ServiceProcess) -> None:
    service.write(MODULE, CONFIG % 1)
    service.start()
    with connection(service, get("/big")), connection(service, get("/stream")):
        service.until(lambda: service.lines("answer cut off"))
        [line] = service.lines("answer cut off")
        assert line["request"] == "GET /big"
        assert line["reason"] == "the client reads too slowly"
    assert service.get("/fast").status == 200


def test_more_unsent_bytes_than_a_worker_may_hold_cost_the_slowest_clients_their_answers(
    own_shop: ServiceProcess,
) -> None:
    with ExitStack() as stack:
        for _ in range(40):  # 240 MB
            stack.enter_context(connection(own_shop, get("/big")))
        own_shop.until(lambda: len(own_shop.lines("answer cut off")) >= 15)
        assert {line["reason"] for line in own_shop.lines("answer cut off")} == {
            "too many bytes wait for slow clients"
        }
        assert own_shop.get("/fast").status == 200
        assert len(own_shop.lines("answer cut off")) < 40


def test_a_stop_waits_for_answers_that_are_being_read(own_shop: ServiceProcess) -> None:
    with connection(own_shop, get("/big", "1.0"), room=200_000) as client:
        assert client.recv(12) == b"HTTP/1.0 200"
        own_shop.signal(signal.SIGTERM)
        own_shop.until(lambda: not listens(own_shop))
        assert len(read_all(client)) > SIZE
    assert own_shop.wait() == 0


def listens(shop: ServiceProcess) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", shop.port)) == 0


def test_a_stop_names_the_answers_that_nobody_read(own_shop: ServiceProcess) -> None:
    with connection(own_shop, get("/big")):
        own_shop.until(lambda: metrics(own_shop, "/big") == {("GET", "200"): 1.0})
        own_shop.signal(signal.SIGTERM)
        assert own_shop.wait() == 1
    [line] = own_shop.lines("work abandoned at the end of the stop budget")
    assert line["count"] == 1
    assert "GET /big: " in json.dumps(line["abandoned"])


@pytest.mark.parametrize(
    "half", [get("/fast")[:20], post("/echo", 9) + b"half"], ids=["half a head", "half a body"]
)
def test_a_stop_refuses_what_does_not_arrive_and_ends_cleanly(service: ServiceProcess, half: bytes) -> None:
    own_shop = patient(service, grace=3)
    with connection(own_shop) as silent, connection(own_shop, half) as client:
        own_shop.until(lambda: own_shop.get("/fast").status == 200)
        own_shop.signal(signal.SIGTERM)
        status, headers, body = answer(client)
        assert (status, headers["connection"]) == (408, "close")
        assert b"not received before the service stopped" in body
        assert silent.recv(10) == b""
    assert own_shop.wait() == 0


def test_a_stop_waits_no_longer_for_a_head_than_for_those_who_ask_for_nothing(
    service: ServiceProcess,
) -> None:
    patient(service, grace=300)
    with connection(service, get("/fast")[:20]) as early, connection(service) as late:
        service.until(lambda: service.get("/fast").status == 200)
        service.signal(signal.SIGTERM)
        service.until(lambda: not listens(service))
        late.sendall(b"G")  # the first byte gives no new wait either
        assert answer(early)[0] == 408
        assert service.wait() == 0


def test_a_stop_lets_a_head_arrive_that_is_on_its_way_and_its_body_too(service: ServiceProcess) -> None:
    own_shop = patient(service, grace=60)
    request = post("/echo", 9)
    with connection(own_shop, request[:20]) as client:
        own_shop.until(lambda: own_shop.get("/fast").status == 200)
        own_shop.signal(signal.SIGTERM)
        client.sendall(request[20:] + b"half")
        own_shop.until(lambda: not listens(own_shop))
        client.sendall(b" done")
        status, headers, body = answer(client)
        assert (status, headers["connection"], json.loads(body)) == (201, "close", {"length": 9})
    assert own_shop.wait() == 0


# -------------------------------------------------------------------------------------- bodies that stream


def test_a_streamed_body_may_be_larger_than_what_is_read_ahead(shop: ServiceProcess) -> None:
    body = bytes(range(256)) * 160_000  # 41 MB
    done = json.loads(shop.request("POST", "/upload", body).body)  # type: ignore[attr-defined]
    assert done["size"] == len(body)


def test_the_application_reads_a_streamed_body_while_it_arrives(shop: ServiceProcess) -> None:
    with connection(shop, post("/line", 100) + b"first\n") as client:
        status, headers, body = answer(client)
        assert (status, json.loads(body)) == (201, {"line": "first\n"})
        assert headers["connection"] == "close"  # the rest of the body may come or not
        assert client.recv(10) == b""


def test_a_streamed_body_that_was_read_to_its_end_keeps_the_connection(shop: ServiceProcess) -> None:
    with connection(shop) as client:
        for _ in range(3):
            client.sendall(post("/upload", 5) + b"hello")
            status, headers, body = answer(client)
            assert (status, json.loads(body)["size"], headers["connection"]) == (201, 5, "keep-alive")
        client.sendall(
            b"POST /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            + get("/fast")
        )
        assert json.loads(answer(client)[2])["size"] == 3
        assert answer(client)[0] == 200


@pytest.mark.parametrize(("path", "first"), [("/upload", b"HTTP/1.1 100"), ("/refuse", b"HTTP/1.1 403")])
def test_a_client_that_asks_is_told_to_go_on_only_when_its_body_is_read(
    shop: ServiceProcess, path: str, first: bytes
) -> None:
    with connection(shop, post(path, 3, "Expect: 100-continue")) as client:
        assert client.recv(12) == first


@pytest.mark.parametrize("framing", ["Content-Length: 9", "Transfer-Encoding: chunked"])
def test_a_streamed_body_that_stops_coming_is_a_408_and_one_that_ends_early_a_400(
    shop: ServiceProcess, framing: str
) -> None:
    head = f"POST /upload HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode()
    with connection(shop, head + b"5\r\nab") as waiting, connection(shop, head + b"5\r\nab") as ending:
        ending.shutdown(socket.SHUT_WR)
        assert answer(ending)[0] == 400
        status, headers, _ = answer(waiting)
        assert (status, headers["connection"]) == (408, "close")
        assert waiting.recv(10) == b""


def test_where_a_streamed_body_ends_is_not_guessed_when_its_chunks_are_none(shop: ServiceProcess) -> None:
    head = b"POST /stubborn HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connection(shop, head + b"zz\r\n\r\n0\r\n\r\n" + get("/fast")) as client:
        status, headers, _ = answer(client)
        assert (status, headers["connection"]) == (201, "close")
        assert client.recv(10) == b""


CHUNKED = b"POST /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_a_streamed_body_may_come_one_byte_a_chunk(shop: ServiceProcess) -> None:
    with connection(shop, CHUNKED + b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n", room=100_000) as client:
        status, headers, body = answer(client)
    assert (status, headers["connection"], json.loads(body)["size"]) == (201, "keep-alive", 100_000)


def test_chunks_that_are_hardly_anything_but_their_frames_are_refused(shop: ServiceProcess) -> None:
    chunk = b"1;" + b"a" * 1000 + b"\r\nx\r\n"
    with connection(shop, CHUNKED + chunk * 50) as client:
        with suppress(OSError):  # it does not read on to the end
            client.sendall(chunk * 20_000)
        status, headers, body = answer(client)
    assert (status, headers["connection"]) == (413, "close")
    assert b"the chunks hold too little" in body


def test_a_streamed_body_over_its_limit_is_refused(shop: ServiceProcess) -> None:
    with connection(shop, post("/upload", 50_000_001)) as client:
        status, headers, _ = answer(client)
        assert (status, headers["connection"]) == (413, "close")
    with connection(shop, post("/echo", 2_000_000)) as client:  # the usual limit
        assert answer(client)[0] == 413


# -------------------------------------------------------------------- what is refused, and what is counted

REFUSED = {
    408: b"GET /half HTTP/1.1\r\nX-Correlation-Id: order-408\r\nHost: x\r\n",
    413: b"POST /echo HTTP/1.1\r\nX-Correlation-Id: order-413\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFF\r\n",
    431: b"GET /large HTTP/1.1\r\nX-Correlation-Id: order-431\r\nCookie: " + b"a" * 66_000,
    400: b"GET /fast HTTP/1.1\r\nX-Correlation-Id: order-400\r\nHost : x\r\n\r\n",
    414: b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nX-Correlation-Id: order-414\r\n\r\n",
    417: b"GET /fast HTTP/1.1\r\nX-Correlation-Id: order-417\r\nExpect: gold\r\n\r\n",
    501: b"POST /echo HTTP/1.1\r\nX-Correlation-Id: order-501\r\nTransfer-Encoding: lzw\r\n\r\n",
}


@pytest.mark.parametrize("status", REFUSED)
def test_what_the_server_itself_refuses_is_answered_counted_and_logged_once(
    shop: ServiceProcess, status: int
) -> None:
    method = REFUSED[status].split()[0].decode()
    before = metrics(shop, "refused").get((method, str(status)), 0.0)
    with connection(shop, REFUSED[status]) as client:
        got, headers, body = answer(client)
        assert client.recv(10) == b""
    assert (got, headers["connection"]) == (status, "close")
    assert json.loads(body)["detail"]
    assert headers["x-correlation-id"] == f"order-{status}"
    assert metrics(shop, "refused")[method, str(status)] == before + 1
    [line] = [entry for entry in shop.lines("request") if entry["correlationID"] == f"order-{status}"]
    assert (line["status"], line["method"], line["route"]) == (status, method, "refused")
    assert line["path"] == REFUSED[status].split()[1].decode()[:2000]
    assert line["remote"] == "127.0.0.1"
    assert line["reason"]
    assert sum(f"order-{status}" in text for text in shop.output().splitlines()) == 1


def test_cookies_inside_the_limit_are_taken(shop: ServiceProcess) -> None:
    assert shop.get("/fast", Cookie="a=" + "b" * 60_000).status == 200


def test_the_application_knows_when_the_head_of_its_request_was_there(shop: ServiceProcess) -> None:
    with connection(shop, post("/waited", 1)) as client:
        time.sleep(0.3)
        client.sendall(b"x")
        waited = float(answer(client)[2])
        assert 0.2 < waited < 30
    # That of the next request counts for itself; a busy machine may be slow to hand it over.
    shop.until(lambda: float(shop.get("/waited").body) < 0.2)  # type: ignore[attr-defined]


# --------------------------------------------------------------------------------------- two hundred of them


def test_two_hundred_slow_connections_disturb_nobody(own_shop: ServiceProcess) -> None:
    slow = (get("/fast")[:20], post("/echo", 100) + b"half", get("/big"), b"")
    with ExitStack() as stack:
        for number in range(200):
            stack.enter_context(connection(own_shop, slow[number % 4]))
        for _ in range(3):  # of four threads: a stream keeps the one that makes it
            stack.enter_context(connection(own_shop, get("/stream")))
        threads = set()
        for _ in range(50):
            reply = own_shop.get("/fast", timeout=5)
            assert reply.status == 200
            threads.add(json.loads(reply.body)["threads"])  # type: ignore[attr-defined]
    assert max(threads) <= 4
