"""Who asks: authenticators of routes, and the principal that they find."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from patron.errors import ConfigError, Unauthorized

if TYPE_CHECKING:
    from patron.http.message import Request

__all__ = ["ApiKey", "Authenticator", "Basic", "Bearer", "Principal", "identify"]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: a *name* that may be logged and counted, and whatever else is known."""

    name: str
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)


@runtime_checkable
class Authenticator(Protocol):
    """
    Finds out who asks. All threads share it.

    An attribute ``challenge``, if there is one, is the ``WWW-Authenticate`` header of the 401.
    """

    def authenticate(self, request: Request) -> Principal | None:
        """
        Who sends *request*; None when that is not known (the answer is 401).

        It may raise an `HTTPError`; whatever else it raises is answered with 500, and logged.
        """
        ...


# What a user's own validator may say: a principal or its name, or just yes or no.
Answer = Principal | str | bool | None


def identify(authenticator: Authenticator, request: Request) -> Principal:
    """
    Who sends *request*.

    Raises:
        Unauthorized: that is not known.
    """
    found = _principal(authenticator.authenticate(request), "anonymous")
    if found is None:
        challenge = getattr(authenticator, "challenge", None) or type(authenticator).__name__
        raise Unauthorized(headers={"WWW-Authenticate": challenge})
    return found


def _principal(answer: Answer, name: str) -> Principal | None:
    if isinstance(answer, Principal):
        return answer
    if isinstance(answer, str):
        return Principal(answer) if answer else None
    return Principal(name) if answer else None


def _credentials(request: Request, scheme: str) -> str | None:
    """What stands behind *scheme* in the ``Authorization`` header; the scheme's case does not matter."""
    header = request.headers.get("Authorization") or ""
    given, _, credentials = header.strip().partition(" ")
    return credentials.strip() or None if given.lower() == scheme else None


def _digest(secret: str) -> bytes:
    # Of equal length whatever the secret's, so that comparing tells nothing about it.
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def _wire_text(text: str) -> str:
    """Header text (latin-1 by WSGI) as the UTF-8 that was sent, if it is that."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


class ApiKey:
    """
    ``Authorization: Apikey KEY``.

    Args:
        keys: the accepted keys; several at once let keys rotate. A mapping names them: name → key.
        validator: decides instead of *keys*: it gets the key.
        realm: names the protected space in the challenge.

    Keys are kept as digests only, and each request is compared with all of them in constant time.
    """

    def __init__(
        self,
        keys: Iterable[str] | Mapping[str, str] = (),
        *,
        validator: Callable[[str], Answer] | None = None,
        realm: str = "service",
    ) -> None:
        named = _named_keys(keys)
        if bool(named) == (validator is not None):
            raise ConfigError("ApiKey needs either keys or a validator")
        self.challenge = f'Apikey realm="{_realm(realm)}"'
        self._digests = tuple((name, _digest(key)) for name, key in named)
        self._validator = validator

    def authenticate(self, request: Request) -> Principal | None:
        """The principal that the key belongs to."""
        given = _credentials(request, "apikey")
        if given is None:
            return None
        if self._validator is not None:
            return _principal(self._validator(_wire_text(given)), "apikey")
        digest = _digest(_wire_text(given))
        # No early end: how long it takes must not tell which key was close.
        matches = [name for name, known in self._digests if hmac.compare_digest(known, digest)]
        return Principal(matches[0]) if matches else None


def _named_keys(keys: Iterable[str] | Mapping[str, str]) -> list[tuple[str, str]]:
    if isinstance(keys, str):
        raise ConfigError("ApiKey needs a list of keys, not one string")
    named = list(keys.items()) if isinstance(keys, Mapping) else [("apikey", key) for key in keys]
    if any(not isinstance(key, str) or not key.strip() for _, key in named):
        raise ConfigError("ApiKey: a key is empty or no string")
    return [(name, key.strip()) for name, key in named]


class Basic:
    """
    HTTP basic authentication (RFC 7617), in UTF-8.

    Args:
        users: user → password.
        validator: decides instead of *users*: it gets user and password.
        realm: names the protected space in the challenge.
    """

    def __init__(
        self,
        users: Mapping[str, str] | None = None,
        *,
        validator: Callable[[str, str], Answer] | None = None,
        realm: str = "service",
    ) -> None:
        if bool(users) == (validator is not None):
            raise ConfigError("Basic needs either users or a validator")
        self.challenge = f'Basic realm="{_realm(realm)}", charset="UTF-8"'
        self._digests = {user: _digest(password) for user, password in (users or {}).items()}
        self._validator = validator

    def authenticate(self, request: Request) -> Principal | None:
        """The user, if the password is right."""
        pair = _basic_pair(_credentials(request, "basic"))
        if pair is None:
            return None
        user, password = pair
        if self._validator is not None:
            return _principal(self._validator(user, password), user)
        # An unknown user costs the same comparison as a known one.
        right = hmac.compare_digest(self._digests.get(user, b"\0" * 32), _digest(password))
        return Principal(user) if right else None


def _basic_pair(credentials: str | None) -> tuple[str, str] | None:
    if credentials is None:
        return None
    try:
        text = base64.b64decode(credentials, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return None
    user, colon, password = text.partition(":")
    return (user, password) if colon and user else None


class Bearer:
    """
    ``Authorization: Bearer TOKEN`` (RFC 6750); *validator* gets the token and says whose it is.

    A refused token is answered with ``error="invalid_token"``, as section 3.1 wants it.
    """

    def __init__(self, validator: Callable[[str], Answer], *, realm: str = "service") -> None:
        if not callable(validator):
            raise ConfigError(f"Bearer needs a validator that can be called, not {type(validator).__name__}")
        self.challenge = f'Bearer realm="{_realm(realm)}"'
        self._validator = validator

    def authenticate(self, request: Request) -> Principal | None:
        """Whose token it is."""
        token = _credentials(request, "bearer")
        if token is None:
            return None
        found = _principal(self._validator(token), "bearer")
        if found is None:
            raise Unauthorized(headers={"WWW-Authenticate": f'{self.challenge}, error="invalid_token"'})
        return found


def _realm(realm: str) -> str:
    if not realm.isascii() or not realm.isprintable() or '"' in realm or "\\" in realm:
        raise ConfigError(f"realm {realm!r} must be printable ASCII without quotes and backslashes")
    return realm
