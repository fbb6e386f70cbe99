"""The settings of TLS, and whether its files hold what they should."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from patron.errors import ConfigError

__all__ = ["Tls"]


_NO_KEY = "the key is none in PEM: use PEM files"


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
        pair = {"certificate": self.certificate, **({"key": self.key} if self.key is not None else {})}
        authorities = {"client_ca": self.client_ca} if self.client_ca is not None else {}
        found = _unreadable(pair) or self._pair_problems(pair)
        found += _unreadable(authorities) or self._authority_problems()
        return [f"http: tls: {problem}" for problem in found]

    def _pair_problems(self, pair: Mapping[str, str]) -> list[str]:
        try:
            _context().load_cert_chain(self.certificate, self.key, password=_no_passphrase)
        except (OSError, ValueError) as error:
            named = ", ".join(f"{name} {path!r}" for name, path in pair.items())
            return [f"{named}: {_lacking(self.certificate, self.key) or _told(error)}"]
        return []

    def _authority_problems(self) -> list[str]:
        try:
            if self.client_ca is not None:
                _context().load_verify_locations(self.client_ca)
        except (OSError, ValueError) as error:
            return [f"client_ca {self.client_ca!r}: {_told(error)}"]
        return []


def _context() -> Any:
    import ssl

    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def _no_passphrase() -> NoReturn:
    """Otherwise OpenSSL asks for it at the terminal."""
    raise ValueError("the key has a passphrase: give one without")


def _unreadable(files: Mapping[str, str]) -> list[str]:
    problems = []
    for name, path in files.items():
        try:
            Path(path).read_bytes()
        except (OSError, ValueError) as error:  # ValueError: a path with a null byte
            reason = getattr(error, "strerror", None) or str(error)
            problems.append(f"{name} {path!r}: {reason}: give the path of a file that the service may read")
    return problems


def _lacking(certificate: str, key: str | None) -> str | None:
    """What the files do not have at all, which OpenSSL tells in words for nobody."""
    if b"CERTIFICATE-----" not in Path(certificate).read_bytes():
        return "the certificate is none in PEM: use PEM files"
    if b"PRIVATE KEY-----" not in Path(key or certificate).read_bytes():
        return "there is no private key with it: give its path as key" if key is None else _NO_KEY
    return None


def _told(error: Exception) -> str:
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
