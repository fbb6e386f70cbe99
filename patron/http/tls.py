"""The settings of TLS, and whether its files hold what they should."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from patron.errors import ConfigError

__all__ = ["Tls"]


@dataclass(frozen=True, slots=True)
class Tls:
    """
    Serve HTTPS, and only that, on the HTTP port.

    Args:
        certificate: path of the certificate and the chain behind it, in PEM.
        key: path of its private key, without a passphrase; None when it is in the same file.
        client_ca: path of the authorities, in PEM, by one of which every client must have a certificate;
            None asks for none. The probes of an orchestrator are clients too.
        minimum: the oldest version of TLS that is spoken.
    """

    certificate: str
    key: str | None = None
    client_ca: str | None = None
    minimum: Literal["1.2", "1.3"] = "1.2"

    def __post_init__(self) -> None:
        if problems := list(_problems(self)):
            raise ConfigError(*problems)

    def problems(self) -> list[str]:
        """What is wrong with the files, which are read now; not when the settings are built, elsewhere perhaps."""
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        found = []
        try:
            context.load_cert_chain(self.certificate, self.key, password=_no_passphrase)
        except (OSError, ValueError) as error:
            found.append(f"http: tls: certificate {self.certificate!r}, key {self.key!r}: {_told(error)}")
        try:
            if self.client_ca is not None:
                context.load_verify_locations(self.client_ca)
        except (OSError, ValueError) as error:
            found.append(f"http: tls: client_ca {self.client_ca!r}: {_told(error)}")
        return found


def _no_passphrase() -> NoReturn:
    """Otherwise OpenSSL asks for it at the terminal."""
    raise ValueError("the key has a passphrase: give one without")


def _told(error: Exception) -> str:
    if isinstance(error, FileNotFoundError | PermissionError):
        return f"{error.strerror}: give paths of files that the service may read"
    if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
        return "the key does not belong to the certificate"
    return f"{error}: use PEM files" if isinstance(error, OSError) else str(error)


def _problems(tls: Any) -> Iterator[str]:
    for name in ("certificate", "key", "client_ca"):
        value = getattr(tls, name)
        if not (isinstance(value, str) and value) and (value is not None or name == "certificate"):
            yield f"http: tls: {name} is {value!r}: use the path of a PEM file"
    if tls.minimum not in ("1.2", "1.3"):
        yield f"http: tls: minimum is {tls.minimum!r}: use 1.2 or 1.3"
