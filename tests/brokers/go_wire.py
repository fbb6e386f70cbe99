"""
What Patron for Go sends, as it was on the wire: recorded from its v0.44.0 and v0.73.0, each in its own vendored build.

*sender* is its package. *trace* and *span* are what the sender's own span was, in hexadecimal, which is the parent
of whoever receives; *correlation* is None where it sent none, or an empty one. Kafka's records came from a broker
(Apache Kafka 4.3), AMQP's properties out of the content header frame, the attributes of SQS and SNS (raw delivery) from
moto's server, and the heads of HTTP requests from the socket, with another ``Host``.
"""

from __future__ import annotations

from typing import NamedTuple


class Record(NamedTuple):
    """A record of Kafka; its headers in their order."""

    version: str
    sender: str
    correlation: str | None
    trace: str
    span: str
    key: bytes | None
    body: bytes
    headers: tuple[tuple[str, bytes], ...]


class Delivery(NamedTuple):
    """A message of RabbitMQ; *properties* as the frame has them (flags, then each property)."""

    version: str
    sender: str
    correlation: str | None
    trace: str
    span: str
    content_type: str | None
    properties: bytes
    body: bytes


class Letter(NamedTuple):
    """A message of SQS or SNS; its attributes with name, type and value."""

    version: str
    sender: str
    correlation: str | None
    trace: str
    span: str
    body: str
    attributes: tuple[tuple[str, str, str | bytes], ...]


class Head(NamedTuple):
    """The head of an HTTP request."""

    version: str
    sender: str
    correlation: str
    trace: str
    span: str
    head: bytes


KAFKA = (
    Record(
        version="v0.44.0",
        sender="client/kafka, sync",
        correlation="go-sync-json",
        trace="48b31fb1f1cf4096",
        span="5a53d16c5b2aed25",
        key=b"key-1",
        body=b'{"Firstname":"Ann","Lastname":"Lee"}',
        headers=(
            ("uber-trace-id", b"48b31fb1f1cf4096:5a53d16c5b2aed25:48b31fb1f1cf4096:1"),
            ("Content-Type", b"application/json"),
            ("X-Correlation-Id", b"go-sync-json"),
        ),
    ),
    Record(
        version="v0.44.0",
        sender="client/kafka, sync, Protocol Buffers, baggage",
        correlation="go-sync-protobuf",
        trace="15125e2dc3cd7ce2",
        span="7b208ace8fcf443b",
        key=None,
        body=b"\n\x03Ann\x12\x03Lee",
        headers=(
            ("uber-trace-id", b"15125e2dc3cd7ce2:7b208ace8fcf443b:15125e2dc3cd7ce2:1"),
            ("uberctx-Tenant", b"t 1/\xc3\xa9"),
            ("Content-Type", b"application/x-protobuf"),
            ("X-Correlation-Id", b"go-sync-protobuf"),
        ),
    ),
    Record(
        version="v0.44.0",
        sender="client/kafka, async",
        correlation="go-async-json",
        trace="1b92f5da76b35a85",
        span="77b465d1bf752c01",
        key=None,
        body=b'{"Firstname":"Ann","Lastname":"Lee"}',
        headers=(
            ("uber-trace-id", b"1b92f5da76b35a85:77b465d1bf752c01:1b92f5da76b35a85:1"),
            ("Content-Type", b"application/json"),
            ("X-Correlation-Id", b"go-async-json"),
        ),
    ),
    Record(
        version="v0.73.0",
        sender="client/kafka, sync",
        correlation="go-sync-json",
        trace="5a0e776f7466720b",
        span="18146894dfbb1c7e",
        key=b"key-1",
        body=b'{"Firstname":"Ann","Lastname":"Lee"}',
        headers=(
            ("uber-trace-id", b"5a0e776f7466720b:18146894dfbb1c7e:5a0e776f7466720b:1"),
            ("Content-Type", b"application/json"),
            ("X-Correlation-Id", b"go-sync-json"),
        ),
    ),
    Record(
        version="v0.73.0",
        sender="client/kafka, sync, baggage and headers",
        correlation="go-sync-baggage",
        trace="470bc07174b4d2f2",
        span="668d13bd03146a73",
        key=None,
        body=b'{"a":"\\u003c\\u0026\\u003e\xc3\xa9"}',
        headers=(
            ("tenant", b"t1"),
            ("tenant", b"t2"),
            ("empty", b""),
            ("uber-trace-id", b"470bc07174b4d2f2:668d13bd03146a73:470bc07174b4d2f2:1"),
            ("uberctx-Tenant", b"t 1/\xc3\xa9"),
            ("Content-Type", b"application/json"),
            ("X-Correlation-Id", b"go-sync-baggage"),
        ),
    ),
    Record(
        version="v0.73.0",
        sender="client/kafka, sync, outside of any span",
        correlation="31898289-177d-4c72-8781-5c24df034149",
        trace="63235b02db34b4a5",
        span="63235b02db34b4a5",
        key=None,
        body=b"7",
        headers=(
            ("uber-trace-id", b"63235b02db34b4a5:63235b02db34b4a5:0000000000000000:1"),
            ("Content-Type", b"application/json"),
            ("X-Correlation-Id", b"31898289-177d-4c72-8781-5c24df034149"),
        ),
    ),
    Record(
        version="v0.73.0",
        sender="client/kafka, sync, empty correlation id",
        correlation=None,
        trace="747babdad79d2ab7",
        span="3f5b87caf4e1518e",
        key=None,
        body=b'"empty correlation"',
        headers=(
            ("uber-trace-id", b"747babdad79d2ab7:3f5b87caf4e1518e:747babdad79d2ab7:1"),
            ("Content-Type", b"application/json"),
            ("X-Correlation-Id", b""),
        ),
    ),
    Record(
        version="v0.73.0",
        sender="client/kafka, sync, Protocol Buffers",
        correlation="go-sync-protobuf",
        trace="4730d12904f8cef1",
        span="61b3ef74ba553d28",
        key=b"key-2",
        body=b"\n\x03Ann\x12\x03Lee",
        headers=(
            ("uber-trace-id", b"4730d12904f8cef1:61b3ef74ba553d28:4730d12904f8cef1:1"),
            ("Content-Type", b"application/x-protobuf"),
            ("X-Correlation-Id", b"go-sync-protobuf"),
        ),
    ),
    Record(
        version="v0.73.0",
        sender="client/kafka, async",
        correlation="go-async-json",
        trace="3fb56a26e653a07e",
        span="0e0c803d3fb36468",
        key=b"key-3",
        body=b'{"Firstname":"Ann","Lastname":"Lee"}',
        headers=(
            ("uber-trace-id", b"3fb56a26e653a07e:0e0c803d3fb36468:3fb56a26e653a07e:1"),
            ("Content-Type", b"application/json"),
            ("X-Correlation-Id", b"go-async-json"),
        ),
    ),
    Record(
        version="v0.73.0",
        sender="client/kafka/v2, sync",
        correlation="go-v2-sync",
        trace="54680ca852038a62",
        span="4d3a8ae9e1061416",
        key=b"key-4",
        body=b'{"v":2}',
        headers=(
            ("X-Correlation-Id", b"go-v2-sync"),
            ("uber-trace-id", b"54680ca852038a62:4d3a8ae9e1061416:54680ca852038a62:1"),
        ),
    ),
    Record(
        version="v0.73.0",
        sender="client/kafka/v2, batch",
        correlation="go-v2-batch",
        trace="2e0a338d38f7dcd3",
        span="2d3559cfa8cab2ff",
        key=None,
        body=b'{"b":1}',
        headers=(
            ("X-Correlation-Id", b"go-v2-batch"),
            ("uber-trace-id", b"2e0a338d38f7dcd3:2d3559cfa8cab2ff:2e0a338d38f7dcd3:1"),
        ),
    ),
    Record(
        version="v0.73.0",
        sender="client/kafka/v2, async",
        correlation="go-v2-async",
        trace="5e9b8cf29d40a8e9",
        span="5ffed6773acbd549",
        key=None,
        body=b'{"v":3}',
        headers=(
            ("X-Correlation-Id", b"go-v2-async"),
            ("uber-trace-id", b"5e9b8cf29d40a8e9:5ffed6773acbd549:5e9b8cf29d40a8e9:1"),
        ),
    ),
)

AMQP = (
    Delivery(
        version="v0.44.0",
        sender="client/amqp",
        correlation="go-json",
        trace="2fc5a53cb73f8690",
        span="5d7c6e8a08015112",
        content_type="application/json",
        properties=(
            b"\xa0\x00\x10application/json"
            b"\x00\x00\x00d"
            b"\ruber-trace-idS\x00\x00\x0042fc5a53cb73f8690:5d7c6e8a08015112:2fc5a53cb73f8690:1"
            b"\x10X-Correlation-IdS\x00\x00\x00\x07go-json"
        ),
        body=b'{"Firstname":"Ann","Lastname":"Lee"}',
    ),
    Delivery(
        version="v0.44.0",
        sender="client/amqp, Protocol Buffers, baggage",
        correlation="go-protobuf",
        trace="7e742e5baee3a867",
        span="380c8c2ac1886c1f",
        content_type="application/x-protobuf",
        properties=(
            b"\xa0\x00\x16application/x-protobuf\x00\x00\x00\x82"
            b"\ruber-trace-idS\x00\x00\x0047e742e5baee3a867:380c8c2ac1886c1f:7e742e5baee3a867:1"
            b"\x0euberctx-TenantS\x00\x00\x00\x06t 1/\xc3\xa9"
            b"\x10X-Correlation-IdS\x00\x00\x00\x0bgo-protobuf"
        ),
        body=b"\n\x03Ann\x12\x03Lee",
    ),
    Delivery(
        version="v0.73.0",
        sender="client/amqp",
        correlation="go-json",
        trace="60a4582a2962c14e",
        span="78724232bfddac1a",
        content_type="application/json",
        properties=(
            b"\xa0\x00\x10application/json"
            b"\x00\x00\x00d"
            b"\ruber-trace-idS\x00\x00\x00460a4582a2962c14e:78724232bfddac1a:60a4582a2962c14e:1"
            b"\x10X-Correlation-IdS\x00\x00\x00\x07go-json"
        ),
        body=b'{"Firstname":"Ann","Lastname":"Lee"}',
    ),
    Delivery(
        version="v0.73.0",
        sender="client/amqp, Protocol Buffers, baggage",
        correlation="go-protobuf",
        trace="5369548dbf871ff5",
        span="36a9a5bd73be8554",
        content_type="application/x-protobuf",
        properties=(
            b"\xa0\x00\x16application/x-protobuf\x00\x00\x00\x82"
            b"\x0euberctx-TenantS\x00\x00\x00\x06t 1/\xc3\xa9"
            b"\x10X-Correlation-IdS\x00\x00\x00\x0bgo-protobuf"
            b"\ruber-trace-idS\x00\x00\x0045369548dbf871ff5:36a9a5bd73be8554:5369548dbf871ff5:1"
        ),
        body=b"\n\x03Ann\x12\x03Lee",
    ),
    Delivery(
        version="v0.73.0",
        sender="client/amqp, no content type",
        correlation="c1ee83c9-08f7-432a-9df2-d4591df6a0e3",
        trace="4bcae2b3cc3557ac",
        span="4bcae2b3cc3557ac",
        content_type=None,
        properties=(
            b" \x00\x00\x00\x00\x81"
            b"\x10X-Correlation-IdS\x00\x00\x00$c1ee83c9-08f7-432a-9df2-d4591df6a0e3"
            b"\ruber-trace-idS\x00\x00\x0044bcae2b3cc3557ac:4bcae2b3cc3557ac:0000000000000000:1"
        ),
        body=b'{"no":"type"}',
    ),
    Delivery(
        version="v0.73.0",
        sender="client/amqp, text, empty correlation id",
        correlation=None,
        trace="3e12cb97fe1858c2",
        span="4e0c6119de2e6947",
        content_type="text/plain",
        properties=(
            b"\xa0\x00\ntext/plain\x00\x00\x00]"
            b"\ruber-trace-idS\x00\x00\x0043e12cb97fe1858c2:4e0c6119de2e6947:3e12cb97fe1858c2:1"
            b"\x10X-Correlation-IdS\x00\x00\x00\x00"
        ),
        body=b"text",
    ),
    Delivery(
        version="v0.73.0",
        sender="client/amqp/v2, headers of other types",
        correlation="go-v2",
        trace="2d52e6189656a134",
        span="45fbf1cf6062eabd",
        content_type="application/json",
        properties=(
            b"\xb0\x80\x10application/json"
            b"\x00\x00\x00\x87\x04textS\x00\x00\x00\x01t"
            b"\ruber-trace-idS\x00\x00\x0042d52e6189656a134:45fbf1cf6062eabd:2d52e6189656a134:1"
            b"\x10X-Correlation-IdS\x00\x00\x00\x05go-v2"
            b"\x01nI\x00\x00\x00\x05\x03bigl\x00\x00\x01\x00\x00\x00\x00\x00\x03yest\x01\x02\x03m-1"
        ),
        body=b'{"v":2}',
    ),
)

SQS = (
    Letter(
        version="v0.44.0",
        sender="client/sqs, baggage",
        correlation="go-sqs",
        trace="09308406150514be",
        span="10c7c4e6ec13947b",
        body='{"v":1}',
        attributes=(
            ("X-Correlation-Id", "String", "go-sqs"),
            ("uber-trace-id", "String", "09308406150514be:10c7c4e6ec13947b:09308406150514be:1"),
            ("uberctx-Tenant", "String", "t 1/é"),
        ),
    ),
    Letter(
        version="v0.73.0",
        sender="client/sqs",
        correlation="go-sqs",
        trace="21d5706a68392a36",
        span="6250d887c81416cf",
        body='{"v":1}',
        attributes=(
            ("X-Correlation-Id", "String", "go-sqs"),
            ("uber-trace-id", "String", "21d5706a68392a36:6250d887c81416cf:21d5706a68392a36:1"),
        ),
    ),
    Letter(
        version="v0.73.0",
        sender="client/sqs, baggage, attributes of other types",
        correlation="go-sqs-baggage",
        trace="2f8fda7a677c9221",
        span="12092663fafd0e3f",
        body='{"v":2}',
        attributes=(
            ("Content-Type", "String", "application/json"),
            ("X-Correlation-Id", "String", "go-sqs-baggage"),
            ("b", "Binary", b"\x00\xff"),
            ("n", "Number", "5"),
            ("uber-trace-id", "String", "2f8fda7a677c9221:12092663fafd0e3f:2f8fda7a677c9221:1"),
            ("uberctx-Tenant", "String", "t 1/é"),
        ),
    ),
    Letter(
        version="v0.73.0",
        sender="client/sqs, outside of any span",
        correlation="cad182d7-be54-4ed3-8075-fe5d08ebc3cf",
        trace="7e71c9baf46d612f",
        span="7e71c9baf46d612f",
        body='{"v":3}',
        attributes=(
            ("X-Correlation-Id", "String", "cad182d7-be54-4ed3-8075-fe5d08ebc3cf"),
            ("uber-trace-id", "String", "7e71c9baf46d612f:7e71c9baf46d612f:0000000000000000:1"),
        ),
    ),
)

SNS = (
    Letter(
        version="v0.44.0",
        sender="client/sns",
        correlation="go-sns",
        trace="63d84588ef4ebe75",
        span="431e43bb41b61932",
        body='{"v":2}',
        attributes=(
            ("X-Correlation-Id", "String", "go-sns"),
            ("s", "String", "t"),
            ("uber-trace-id", "String", "63d84588ef4ebe75:431e43bb41b61932:63d84588ef4ebe75:1"),
        ),
    ),
    Letter(
        version="v0.73.0",
        sender="client/sns",
        correlation=None,
        trace="1cfbd1fb56fb2a3b",
        span="5c062147d84479ab",
        body='{"sns":1}',
        attributes=(
            ("tags", "String.Array", '["a",1]'),
            ("uber-trace-id", "String", "1cfbd1fb56fb2a3b:5c062147d84479ab:1cfbd1fb56fb2a3b:1"),
        ),
    ),
)

HTTP = (
    Head(
        version="v0.44.0",
        sender="client/http, baggage",
        correlation="go-http",
        trace="7f163c5b3f1fe85c",
        span="40ebf1be6db42df2",
        head=(
            b"GET /orders?x=1 HTTP/1.1\r\n"
            b"Host: shop\r\n"
            b"User-Agent: Go-http-client/1.1\r\n"
            b"Uber-Trace-Id: 7f163c5b3f1fe85c:40ebf1be6db42df2:0a146e1f85ad7531:1\r\n"
            b"Uberctx-Tenant: t+1%2F%C3%A9\r\n"
            b"X-Correlation-Id: go-http\r\n"
            b"Accept-Encoding: gzip\r\n"
            b"\r\n"
        ),
    ),
    Head(
        version="v0.73.0",
        sender="client/http",
        correlation="go-http",
        trace="4267b78d4fafcdbe",
        span="77c69da59a89d729",
        head=(
            b"GET /orders?x=1 HTTP/1.1\r\n"
            b"Host: shop\r\n"
            b"User-Agent: Go-http-client/1.1\r\n"
            b"Uber-Trace-Id: 4267b78d4fafcdbe:77c69da59a89d729:541c6418c1944343:1\r\n"
            b"X-Correlation-Id: go-http\r\n"
            b"Accept-Encoding: gzip\r\n"
            b"\r\n"
        ),
    ),
    Head(
        version="v0.73.0",
        sender="client/http, baggage",
        correlation="go-http",
        trace="68c07813c485def0",
        span="0192896fa1d0e92f",
        head=(
            b"GET /orders?x=1 HTTP/1.1\r\n"
            b"Host: shop\r\n"
            b"User-Agent: Go-http-client/1.1\r\n"
            b"Uber-Trace-Id: 68c07813c485def0:0192896fa1d0e92f:5b5f4f5ea38adb6c:1\r\n"
            b"Uberctx-Tenant: t+1%2F%C3%A9\r\n"
            b"X-Correlation-Id: go-http\r\n"
            b"Accept-Encoding: gzip\r\n"
            b"\r\n"
        ),
    ),
)
