"""What is told of an answered request: its access log line, and the tags of its span."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from patron.observe import Operation

__all__ = ["tag", "write_line"]


def write_line(
    write: Callable[..., None],
    *,
    route: str,
    method: str,
    path: str,
    status: int,
    started: float,
    sent: int,
    remote: str | None,
    **more: Any,
) -> None:
    """The line of the access log; *started* is in monotonic seconds, *sent* in bytes."""
    write(
        "request",
        route=route,
        method=method,
        path=path,
        status=status,
        duration=round(time.monotonic() - started, 6),
        bytes=sent,
        remote=remote,
        **more,
    )


def tag(operation: Operation, environ: Mapping[str, Any], method: str, path: str, status: int) -> None:
    """The tags that the original has on the span of a request."""
    query = environ.get("QUERY_STRING")
    operation.tag("http.method", method)
    operation.tag("http.url", f"{path}?{query}" if query else path)
    operation.tag("http.status_code", status)
    if status >= 500:
        operation.tag("error", True)
