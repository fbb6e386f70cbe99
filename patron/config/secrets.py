"""What must not be shown: values whose names or places say that they are secret."""

from __future__ import annotations

import re

__all__ = ["HIDDEN", "looks_secret", "without_password"]

HIDDEN = "********"

_SECRET = re.compile(r"passw|passphrase|secret|token|api_?key|credential|private_?key", re.IGNORECASE)
_USERINFO = re.compile(r"(?<=://)([^/@:\s]*):[^/@\s]*@")
_OPTION = re.compile(r"(?<=[?&]password=)[^&\s]+", re.IGNORECASE)


def looks_secret(path: str) -> bool:
    """Whether the last name in the dotted *path* is the name of a secret."""
    return bool(_SECRET.search(path.rpartition(".")[2]))


def without_password(text: str) -> str:
    """
    *text* with the passwords of its URLs hidden.

    >>> without_password("amqp://shop:hunter2@broker/")
    'amqp://shop:********@broker/'
    >>> without_password("unix:///run/redis.sock?password=hunter2&db=1")
    'unix:///run/redis.sock?password=********&db=1'
    """
    return _OPTION.sub(HIDDEN, _USERINFO.sub(rf"\1:{HIDDEN}@", text))
