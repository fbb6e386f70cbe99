"""
An endpoint of SQS with canned answers, as fast as one process of Python can be: what a client costs shows against it.

    python benchmarks/apps/canned_sqs.py COUNT      # prints its address; each queue has COUNT messages, given out once

It speaks the JSON protocol as far as consumers need it, on 127.0.0.1 only. It keeps no leases: a message that is
not deleted is only missing from the count. GetQueueAttributes tells how many wait and how many are out.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

from loads import CORRELATION, TRACE, TYPE, body

ATTRIBUTES = {
    name: {"DataType": "String", "StringValue": value}
    for name, value in (("X-Correlation-Id", CORRELATION), ("traceparent", TRACE), ("Content-Type", TYPE))
}
EMPTY_WAIT = 0.05  # seconds that a request waits at an empty queue, whatever it asks for


class Queue:
    """Messages by their numbers, each given out once."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.given = 0
        self.deleted = 0

    def take(self, most: int) -> bytes:
        """The answer to ReceiveMessage."""
        numbers = range(self.given, min(self.given + most, self.count))
        self.given += len(numbers)
        return b'{"Messages": [%s]}' % b", ".join(map(message, numbers)) if numbers else b"{}"


def _template() -> bytes:
    """A message as JSON, with a place for its number in its id, its receipt handle and its body."""
    canned = {
        "MessageId": "11111111-2222-3333-4444-0000@@@@@@@@",
        "ReceiptHandle": "AQEB" + "h" * 180 + "@@@@@@@@",
        "MD5OfBody": "0" * 32,
        "Body": body(0).replace("00000000", "@@@@@@@@"),
        "Attributes": {
            "SenderId": "AIDAIENQZJOLO23YVJ4VO",
            "SentTimestamp": "1700000000000",
            "ApproximateReceiveCount": "1",
            "ApproximateFirstReceiveTimestamp": "1700000000001",
        },
        "MD5OfMessageAttributes": "0" * 32,
        "MessageAttributes": ATTRIBUTES,
    }
    return json.dumps(canned).encode().replace(b"%", b"%%").replace(b"@@@@@@@@", b"%08d")


TEMPLATE = _template()


def message(number: int) -> bytes:
    """Message *number* as JSON."""
    return TEMPLATE % (number, number, number)


class Server:
    """What the connections share. One thread: the event loop's."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._queues: dict[str, Queue] = {}
        self._port = 0

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(self.answer), "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        print(f"http://127.0.0.1:{self._port}", flush=True)
        await server.serve_forever()

    def answer(self, action: bytes, request: dict[str, Any]) -> bytes:
        """The body of the answer to *request*."""
        if action in (b"GetQueueUrl", b"CreateQueue"):
            url = f"http://127.0.0.1:{self._port}/000000000000/{request['QueueName']}"
            return json.dumps({"QueueUrl": url}).encode()
        queue = self._queue(request["QueueUrl"])
        if action == b"ReceiveMessage":
            return queue.take(request.get("MaxNumberOfMessages", 1))
        if action == b"GetQueueAttributes":
            waiting, out = queue.count - queue.given, queue.given - queue.deleted
            numbers = {"ApproximateNumberOfMessages": waiting, "ApproximateNumberOfMessagesNotVisible": out}
            return json.dumps(
                {"Attributes": {name: str(number) for name, number in numbers.items()}}
            ).encode()
        entries = request.get("Entries", ())
        if action == b"DeleteMessageBatch":
            queue.deleted += len(entries)
        return json.dumps({"Successful": [{"Id": entry["Id"]} for entry in entries], "Failed": []}).encode()

    def _queue(self, url: str) -> Queue:
        queue = self._queues.get(url)
        if queue is None:
            queue = self._queues[url] = Queue(self._count)
        return queue


class Connection(asyncio.Protocol):
    """One connection of a client: a request at a time, as HTTP clients do it."""

    def __init__(self, answer: Callable[[bytes, dict[str, Any]], bytes]) -> None:
        self._answer = answer
        self._received = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, rest = self._received.partition(b"\r\n\r\n")
        if not found or len(rest) < (length := int(_header(head, b"content-length"))):
            return
        self._received = rest[length:]
        action = _header(head, b"x-amz-target").rpartition(b".")[2]
        answer = self._answer(action, json.loads(rest[:length]))
        if answer == b"{}" and action == b"ReceiveMessage":
            asyncio.get_running_loop().call_later(EMPTY_WAIT, self._send, answer)
        else:
            self._send(answer)

    def _send(self, answer: bytes) -> None:
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\n"
            b"x-amzn-RequestId: 11111111-2222-3333-4444-555555555555\r\nContent-Length: %d\r\n\r\n%b"
            % (len(answer), answer)
        )


def _header(head: bytes, name: bytes) -> bytes:
    at = head.lower().find(b"\r\n" + name + b":")
    return b"0" if at < 0 else head[at + len(name) + 3 :].split(b"\r\n", 1)[0].strip()


if __name__ == "__main__":
    asyncio.run(Server(int(sys.argv[1])).serve())
