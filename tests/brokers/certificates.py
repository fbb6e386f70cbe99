"""Certificates for servers of tests: an authority of their own, what it vouches for, and one that nobody knows."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from brokers.processes import Unavailable

__all__ = ["Authority", "Pair"]

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
_HERE = "subjectAltName=DNS:localhost,IP:127.0.0.1"


class Pair(NamedTuple):
    """The files of a certificate and of its key, both PEM."""

    certificate: str
    key: str


class Authority:
    """
    An authority whose files are in *folder*; *file* is what its friends trust.

    Raises:
        Unavailable: there is no openssl.
    """

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._own = self._made(name, "-addext", "keyUsage=critical,keyCertSign")
        self.file = self._own.certificate

    def vouches_for(self, name: str) -> Pair:
        """A certificate for *name* at localhost and 127.0.0.1, good for both sides of a connection."""
        return self._made(name, "-CA", self._own.certificate, "-CAkey", self._own.key, "-addext", _HERE)

    def _made(self, name: str, *options: str) -> Pair:
        pair = Pair(str(self._folder / f"{name}.pem"), str(self._folder / f"{name}.key"))
        files = ("-out", pair.certificate, "-keyout", pair.key)
        if not Path(pair.certificate).exists():  # a server that starts again has the same
            command = [_openssl(), "req", "-x509", *_KEY, "-subj", f"/CN={name}", *options, *files]
            subprocess.run(command, check=True, capture_output=True)
        return pair


def _openssl() -> str:
    found = shutil.which("openssl")
    if found is None:
        raise Unavailable("openssl is not installed, which makes the certificates")
    return found
