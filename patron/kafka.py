"""
What a Kafka that is secured asks of its clients, for source and producer: settings, refusals, and what to do then.

kafka-python tells only its log why it finds no cluster, and librdkafka tells it in words of its own.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from patron.reasons import innermost
from patron.secured import tls_remedy

__all__ = ["PROTOCOLS", "Search", "explained", "security_problems", "with_remedy"]

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")

_WAIT = 1.0
"""Seconds that a connection may take which only asks why there was none."""

_PASSWORDS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

# What stands in the texts of the drivers and the broker, in small letters → what to do about it.
_REMEDIES = (
    (
        ("invalid frame length", "invalid message size", "ssl broker listener"),
        "does this port speak TLS only? Look at brokers and security_protocol",
    ),
    (
        ("illegalsaslstate", "current sasl state"),
        "this port asks for no password: look at brokers and security_protocol",
    ),
    (
        ("unsupportedsaslmechanism", "unsupported sasl mechanism"),
        "use a sasl_mechanism that the broker has enabled",
    ),
    (
        ("saslauthenticationfailed", "sasl authentication error"),
        "check sasl_username, sasl_password and sasl_mechanism",
    ),
)

_REFUSALS = frozenset(
    {"IllegalSaslStateError", "SaslAuthenticationFailedError", "UnsupportedSaslMechanismError"}
)
"""kafka-python's errors that no other try can help."""


def with_remedy(text: str) -> str:
    """
    What a driver said, and what to do about it where that is known.

    >>> with_remedy("SaslAuthenticationFailedError: Invalid username or password")
    'SaslAuthenticationFailedError: Invalid username or password: check sasl_username, sasl_password and sasl_mechanism'
    """
    settings = ("ssl_cafile", "ssl_certfile and ssl_keyfile", "brokers and security_protocol")
    if remedy := tls_remedy(text, *settings):
        return f"{text}: {remedy}"
    said = text.lower()
    for signs, remedy in _REMEDIES:
        if any(sign in said for sign in signs):
            return f"{text}: {remedy}"
    return text


def explained(said: str, servers: Sequence[str]) -> str:
    """
    Why no broker of *servers* (``host:port``) answers, as a driver *said* ("": nothing), and what to do about it.

    Where that tells little it looks itself whether the first one takes connections, for a second at most.
    """
    better = with_remedy(said)
    if better != said:
        return better
    return f"{said}; {_looked(servers[0])}" if said else _looked(servers[0])


def _looked(server: str) -> str:
    host, _, port = server.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _WAIT).close()
    except ValueError:
        return f"{server!r} has no port, write host:port"
    except OSError as error:
        return f"{server}: {innermost(error)}"
    return f"{server} takes connections but does not answer as expected: look at port and security_protocol"


def security_problems(
    protocol: str,
    mechanism: str | None,
    username: str | None,
    password: str | None,
    options: Mapping[str, Any],
) -> Iterator[str]:
    """What is wrong with the settings of these names, one line each; *options* may say what they do not."""
    if protocol not in PROTOCOLS:
        yield f"security_protocol {protocol!r} is not one of {', '.join(PROTOCOLS)}"
    sasl = protocol.startswith("SASL")
    more = any(name.startswith("sasl") for name in options)
    if sasl and not mechanism and not more:
        yield f"security_protocol {protocol} needs a sasl_mechanism"
    if sasl and mechanism in _PASSWORDS and not (username and password) and not more:
        yield f"sasl_mechanism {mechanism} needs sasl_username and sasl_password"
    if not sasl and (mechanism or username or password):
        yield f"sasl settings are not used with security_protocol {protocol}"


class Search:
    """
    What a client of kafka-python meets while it looks for its cluster, until `end`.

    A refusal ends the search, which the driver would go on with until its time is up.

    Args:
        client: the driver's network client, which was just made.
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        self._manager = client._manager
        self._connect = self._manager.get_connection
        self._manager.get_connection = self._connecting
        # Appended to by the driver's thread.
        self._met: list[BaseException] = []

    def end(self) -> None:
        """The cluster was found: from now on a refusal may be passing, as while a password is changed."""
        del self._manager.get_connection

    def told(self) -> str:
        """What went wrong last that says something; "" when nothing did."""
        said = [text for error in self._met if (text := str(error))]
        known = [text for text in said if with_remedy(text) != text]
        return (known or said or [""])[-1]  # what has a remedy says more than that the connection ended

    def _connecting(self, *arguments: Any, **options: Any) -> Any:
        for error in self._met:
            if type(error).__name__ in _REFUSALS:
                raise error
        connection = self._connect(*arguments, **options)
        connection.init_future.add_errback(self._met.append)
        close, made = connection.close, connection.connection_made

        def closing(error: BaseException | None = None) -> None:
            if error is not None:
                self._met.append(error)
            close(error)

        def connection_made(transport: Any) -> None:
            transport._sock_recv = _to_the_last(transport._sock_recv)
            made(transport)

        connection.close, connection.connection_made = closing, connection_made
        return connection


def _to_the_last(receive: Callable[[], tuple[bytes, Any]]) -> Callable[[], tuple[bytes, Any]]:
    """
    *receive*, with what came before the end.

    A broker closes right after a refusal, and the driver drops what it reads together with the end.
    """

    def received() -> tuple[bytes, Any]:
        data, error = receive()
        return data, None if data else error  # the next call finds the end again

    return received
