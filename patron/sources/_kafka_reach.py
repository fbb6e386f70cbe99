"""Why no broker of Kafka answers: kafka-python, which tried for long, does not tell."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from patron.reasons import innermost

__all__ = ["why_not"]

_WAIT = 1.0
"""Seconds that a connection may take."""


def why_not(servers: Sequence[str]) -> str:
    """What a connection to the first of *servers* (``host:port``) says. Blocks for a second at most."""
    host, _, port = servers[0].rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _WAIT).close()
    except ValueError:
        return f"{servers[0]!r} has no port, write host:port"
    except OSError as error:
        return f"{servers[0]}: {innermost(error)}"
    return (
        f"{servers[0]} takes connections but does not answer as expected: look at port and security_protocol"
    )
