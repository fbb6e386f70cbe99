"""Whether the bytes received so far hold one whole request; decided without parsing it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from enum import Enum

__all__ = ["READ_AHEAD", "Incoming", "Plan", "State"]

#: Given method and target of a request: the bytes that its body may have, and whether it is left on the connection.
Plan = Callable[[str, str], tuple[int, bool]]

#: Bytes of a body that are read before a thread takes the request; of a larger one the thread reads the rest.
READ_AHEAD = 16 * 1024 * 1024

_HEAD_END = b"\r\n\r\n"
#: How version 2 of the PROXY protocol begins; two bytes of kind follow, and two of the length of the rest.
_PROXY = b"\r\n\r\n\0\r\nQUIT\n"
_LENGTH = re.compile(rb"\r\ncontent-length[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE)
_CODING = re.compile(rb"\r\ntransfer-encoding[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE)
# HTTP/1.0 does not know the expectation (RFC 9110 section 10.1.1).
_EXPECT = re.compile(
    rb"[^\r\n]* HTTP/1\.[1-9]\r\n(?:.*\r\n)?expect[ \t]*:[ \t]*100-continue[ \t]*\r\n", re.I | re.S
)
_CHUNK_SIZE = re.compile(rb"0*([0-9A-Fa-f]{0,16})(?![0-9A-Fa-f])")
#: A chunk's size line, extensions included (RFC 9112 section 7.1), or the trailers, are cut off here.
_MAX_LINE = 8192


class State(Enum):
    """What to do with the connection next."""

    MORE = "read on"
    CONTINUE = "send 100 Continue (RFC 9110 section 10.1.1), then read on"
    WHOLE = "a request is there, or something that only the parser can refuse"
    FLOWING = "the head is there; whoever wants the body reads it from the connection"
    HEAD_TOO_LARGE = "the header section is over its limit"
    BODY_TOO_LARGE = "the chunks add up to more than the limit"


class Incoming:
    """
    The bytes of one connection until they hold a whole request. One thread at a time may call.

    It only finds where the request ends; the parser judges it afterwards. Whatever is malformed, or
    announces more than its limit, counts as whole too, so that the parser or the application
    refuses it without reading on; `complete` tells whether the end was really seen. *plan* is asked
    for the limit when a body is announced; without it, *max_body* is the limit.
    """

    __slots__ = (
        "_body_at",
        "_chunked",
        "_end",
        "_limit",
        "_max_body",
        "_max_head",
        "_plan",
        "_scanned",
        "arrived",
        "complete",
        "data",
        "expects",
    )

    def __init__(self, max_head: int, max_body: int, plan: Plan | None = None) -> None:
        self._max_head = max_head
        self._max_body = max_body
        self._plan = plan
        self.arrived = 0.0  # monotonic seconds when the head was complete
        self._reset()

    def _reset(self) -> None:
        self.data = bytearray()
        self.complete = False
        self.expects = False  # whether the client waits for 100 Continue
        self._limit = self._max_body  # bytes of this body
        self._body_at = 0  # offset of the body, 0 until the header section is complete
        self._chunked = False
        self._end = 0  # offset behind the body, if its length is known
        self._scanned = 0  # offset up to which the head or the chunks were looked at

    def __len__(self) -> int:
        return len(self.data)

    @property
    def has_head(self) -> bool:
        """Whether the header section of this request is there."""
        return self._body_at > 0

    @property
    def limit(self) -> int:
        """Bytes that the body of this request may have."""
        return self._limit

    def feed(self, data: bytes) -> State:
        """Add *data*; says what to do next."""
        self.data += data
        if not self._body_at:
            state = self._find_head()
            if state is not None:
                return state
        return self._body_state()

    def take(self) -> bytes:
        """Everything received, and forget it."""
        data = bytes(self.data)
        self._reset()
        return data

    def _find_head(self) -> State | None:
        """None when the header section is complete and the body may follow."""
        start = self._behind_proxy_header()
        found = self.data.find(_HEAD_END, max(start, self._scanned - 3))
        if found < 0:
            self._scanned = len(self.data)
            return State.HEAD_TOO_LARGE if len(self.data) > self._max_head else State.MORE
        if found > self._max_head:
            return State.HEAD_TOO_LARGE
        self.arrived = time.monotonic()
        self._body_at = self._scanned = found + len(_HEAD_END)
        return self._plan_body(_request(bytes(self.data[start : self._body_at])))

    def _behind_proxy_header(self) -> int:
        """Where the request begins, on a connection whose balancer first says who the client is."""
        if not self.data.startswith(_PROXY[: len(self.data)]):
            return 0
        return 16 + int.from_bytes(self.data[14:16], "big")

    def _plan_body(self, head: bytes) -> State | None:
        lengths, codings = _LENGTH.findall(head), _CODING.findall(head)
        if not lengths and not codings:
            return self._completed()
        streams = self._ask(head)
        if codings:
            if lengths or not _ends_chunked(codings):
                return State.WHOLE  # the parser refuses it, or the application does
            self._chunked = True
        else:
            length = _length(lengths)
            if length is None or length > self._limit:
                return State.WHOLE
            self._end = self._body_at + length
            streams = streams or length > READ_AHEAD
        self.expects = bool(_EXPECT.match(head))
        if streams:
            return State.FLOWING
        state = self._body_state()
        if state is State.MORE and self.expects:
            self.expects = False  # of a body that flows later on, the rest is not waited for
            return State.CONTINUE
        return state

    def _ask(self, head: bytes) -> bool:
        """Find out what body is allowed; returns whether it stays on the connection."""
        if self._plan is None:
            return False
        method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        self._limit, streams = self._plan(method, rest.rpartition(" ")[0])
        return streams

    def _body_state(self) -> State:
        if not self._chunked:
            return self._completed() if len(self.data) >= self._end else State.MORE
        received = len(self.data) - self._body_at
        if received > 2 * self._limit + _MAX_LINE:
            return State.BODY_TOO_LARGE  # the frames count too: one byte a chunk is an attack
        state = self._scan_chunks()
        return State.FLOWING if state is State.MORE and received > READ_AHEAD else state

    def _completed(self) -> State:
        self.complete = True
        return State.WHOLE

    def _scan_chunks(self) -> State:
        while True:
            line_end = self.data.find(b"\r\n", self._scanned, self._scanned + _MAX_LINE)
            if line_end < 0:
                return State.WHOLE if len(self.data) - self._scanned >= _MAX_LINE else State.MORE
            size = _CHUNK_SIZE.match(self.data, self._scanned)
            if size is None or not size[0]:
                return State.WHOLE  # no chunk: the parser refuses it
            length = int(size[1] or b"0", 16)
            if length == 0:
                return self._trailers_state(line_end)
            following = line_end + 2 + length + 2
            if following > len(self.data):
                return State.BODY_TOO_LARGE if length > self._limit else State.MORE
            self._scanned = following

    def _trailers_state(self, line_end: int) -> State:
        """The last chunk is there; the message ends with an empty line behind the trailers."""
        if self.data.find(_HEAD_END, line_end) >= 0:
            return self._completed()
        return State.WHOLE if len(self.data) - line_end > self._max_head else State.MORE


def _request(head: bytes) -> bytes:
    """*head* from its request line on: an empty line, or version 1 of the PROXY protocol, may be in front of it."""
    head = head.lstrip()
    return head.partition(b"\r\n")[2] if head.startswith(b"PROXY ") else head


def _ends_chunked(values: list[bytes]) -> bool:
    """Whether chunks say where the body ends, with nothing in front that the parser refuses at once."""
    names = [name.strip().lower() for value in values for name in value.split(b",")]
    return names[-1] == b"chunked" and set(names[:-1]) <= _IN_FRONT


# What is inside the chunks; identity was a coding once (RFC 9112, section 7.1).
_IN_FRONT = {b"identity", b"gzip", b"deflate", b"compress"}


def _length(values: list[bytes]) -> int | None:
    """The one content length, or None when there are several or it is no sensible number."""
    digits = values[0].strip()
    if len(values) > 1 or not digits.isdigit():
        return None
    significant = digits.lstrip(b"0") or b"0"
    return int(significant) if len(significant) <= 18 else None
