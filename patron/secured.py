"""What goes wrong between a client and a server with TLS, and what to do about it in the words of its settings."""

from __future__ import annotations

import os

from patron.errors import ConfigError

__all__ = ["amqp_explained", "check_files", "tls_remedy"]

# What stands in the texts of drivers and of OpenSSL, in small letters.
_NAME = ("hostname mismatch", "ip address mismatch", "doesn't match")
_EXPIRED = ("certificate has expired",)
_UNKNOWN = ("certificate verify failed", "certificate_verify_failed")
_WANTED = ("bad certificate", "bad_certificate", "certificate required", "certificate_required", "unknown ca")
_PLAIN = ("wrong version number", "wrong_version_number", "unexpected_eof", "plaintext broker listener")


def tls_remedy(text: str, ca: str, certificate: str, port: str) -> str:
    """
    What to do about *text*, as a driver said it; "" when it is nothing of TLS.

    Args:
        text: the error.
        ca: the setting that says whom to trust.
        certificate: those that say who we are.
        port: those that say where to connect, and whether with TLS.

    >>> tls_remedy("[SSL: WRONG_VERSION_NUMBER]", "ca_file", "cert_file and key_file", "url")
    'does this port speak TLS? Look at url'
    """
    said = text.lower()
    for signs, remedy in (
        (_NAME, "connect by a name that stands in its certificate"),
        (_EXPIRED, "its certificate must be renewed"),
        (_UNKNOWN, f"give who vouches for it as {ca}"),
        (_WANTED, f"it wants a certificate that it trusts: give {certificate}"),
        (_PLAIN, f"does this port speak TLS? Look at {port}"),
    ):
        if any(sign in said for sign in signs):
            return remedy
    return ""


def amqp_explained(text: str) -> str:
    """
    What a driver of RabbitMQ said, and what to do about it where that is known.

    RabbitMQ hangs up without a word on who begins in another way than it waits for.
    """
    port = "url: amqps:// or amqp://, and its port"
    remedy = tls_remedy(text, "ca_file", "cert_file and key_file", port)
    if not remedy and "IncompatibleProtocolError" in text:
        remedy = f"it hangs up: look at {port}; it may also want a certificate: cert_file and key_file"
    return f"{text}: {remedy}" if remedy else text


def check_files(**files: str | None) -> None:
    """Raise ConfigError when one of *files*, by names of settings, cannot be read; drivers do not say which."""
    wrong = [(name, path) for name, path in files.items() if path and not os.access(path, os.R_OK)]
    if wrong:
        raise ConfigError(*(f"{name} {path!r} cannot be read" for name, path in wrong))
