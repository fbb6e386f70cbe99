"""What may be kept: the rules for the answer (RFC 9111, section 3), and the entry that is made of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from hashlib import blake2b
from typing import Any

from patron import correlation
from patron.http.caching.capture import Answer
from patron.http.caching.directives import parse, seconds
from patron.http.caching.entry import Entry
from patron.http.caching.settings import RouteCache
from patron.http.head import by_name

__all__ = ["Rules"]

#: The successful ones of those that may be kept without saying so: RFC 9110, section 15.1. 206 is a part only.
_STATUSES = frozenset((200, 203, 204))
#: They belong to one connection or to one answer: RFC 9111, section 3.1, and what `replay` says anew.
_DROPPED = frozenset(
    (
        "age",
        "cache-control",
        "connection",
        "etag",
        "expires",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "proxy-connection",
        "te",  # codespell:ignore
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
_ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]*")
_LIFETIMES = ("s-maxage", "max-age")
_FORBIDDEN = ("no-store", "private", "no-cache")

Header = tuple[str, str]


class Rules:
    """The rules of one route; *private* ones have entries of one principal only."""

    def __init__(self, settings: RouteCache, *, private: bool) -> None:
        self._settings = settings
        self._private = private
        self._covered = {"accept", *(name.lower() for name in settings.vary)}
        if private:
            self._covered.add("authorization")

    def entry(self, answer: Answer, environ: Mapping[str, Any], now: float) -> Entry | str:
        """What is kept of *answer*, which was made *now* for the request in *environ*; else why nothing is."""
        headers = by_name(answer.headers)
        control = _directives(headers.get("cache-control", ""))
        if reason := self._obstacle(answer, headers, control, environ):
            return reason
        age = seconds(headers.get("age"))
        lifetime = min(self._settings.max, _promised(headers, control, now) - age)
        if lifetime <= 0:
            return "expired"
        strict = not control.keys().isdisjoint(("must-revalidate", "proxy-revalidate"))
        body = b"".join(answer.body)
        etag = _etag(headers, body)
        return Entry(
            answer.status,
            self._headers(answer.headers, headers, control, lifetime, etag, len(body)),
            body,
            born=now - age,
            lifetime=lifetime + age,
            window=0.0 if strict else self._settings.stale_if_error,
            etag=etag,
            modified=headers.get("last-modified"),
        )

    def _obstacle(
        self,
        answer: Answer,
        headers: Mapping[str, str],
        control: Mapping[str, Any],
        environ: Mapping[str, Any],
    ) -> str:
        if answer.code not in _STATUSES:
            return "status"
        if not answer.complete:
            return "streamed"
        if (size := sum(map(len, answer.body))) > self._settings.max_body:
            return "too_large"
        if headers.get("content-length", str(size)) != str(size) or (answer.code == 204 and size):
            return "length"
        if "set-cookie" in headers:
            return "set_cookie"
        for name in _FORBIDDEN:
            if name in control:
                return name.replace("-", "_")
        if not self._covers(headers.get("vary", "")):
            return "vary"
        return "" if self._may_share(control, environ) else "cookie"

    def _covers(self, vary: str) -> bool:
        """Whether everything that the answer depends on is in the key."""
        return all(name in self._covered for part in vary.split(",") if (name := part.strip().lower()))

    def _may_share(self, control: Mapping[str, Any], environ: Mapping[str, Any]) -> bool:
        """
        Whether the answer may go to others.

        With a cookie in the request it may be about the one who sent it, unless it says that it is not.
        """
        if self._private or "HTTP_COOKIE" not in environ or "cookie" in self._covered:
            return True
        return "public" in control or "s-maxage" in control

    def _headers(
        self,
        all_of_them: Iterable[Header],
        joined: Mapping[str, str],
        control: Mapping[str, str | None],
        lifetime: float,
        etag: str,
        length: int,
    ) -> list[Header]:
        dropped = {name.strip().lower() for name in joined.get("connection", "").split(",")} | _DROPPED
        dropped.add(
            correlation.settings().header.lower()
        )  # of the one request, should an inner layer echo it
        kept = [(name, value) for name, value in all_of_them if name.lower() not in dropped]
        if "content-length" not in joined and length:
            kept.append(("Content-Length", str(length)))
        said = {name.strip().lower() for name in joined.get("vary", "").split(",")}
        if vary := [name for name in self._settings.vary if name.lower() not in said]:
            kept.append(("Vary", ", ".join(vary)))
        kept.append(("ETag", etag))
        kept.append(("Cache-Control", _control(control, lifetime, private=self._private)))
        return kept


def _directives(text: str) -> dict[str, str | None]:
    """What the answer says; of a lifetime that is there twice the shorter one counts (RFC 9111, section 4.2.1)."""
    found: dict[str, str | None] = {}
    for name, value in parse(text):
        if name not in found or (name in _LIFETIMES and seconds(value) < seconds(found[name])):
            found[name] = value
    return found


def _promised(headers: Mapping[str, str], control: Mapping[str, str | None], now: float) -> float:
    """The seconds for which the answer itself says that it is fresh: RFC 9111, section 4.2.1."""
    for name in _LIFETIMES:
        if name in control:
            return seconds(control[name])
    if "expires" not in headers:
        return float("inf")
    try:
        return parsedate_to_datetime(headers["expires"]).timestamp() - now
    except (ValueError, OverflowError):
        return 0.0  # section 5.3: what is no date is in the past


def _control(control: Mapping[str, str | None], lifetime: float, *, private: bool) -> str:
    others = [
        name if value is None else f"{name}={_quoted(value)}"
        for name, value in control.items()
        if name not in _LIFETIMES and not (private and name == "public")
    ]
    return ", ".join([*(["private"] if private else []), *others, f"max-age={int(lifetime)}"])


def _quoted(value: str) -> str:
    if _TOKEN.fullmatch(value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _etag(headers: Mapping[str, str], body: bytes) -> str:
    """The answer's own tag, or a strong one: the hash of the representation."""
    own = headers.get("etag", "")
    if _ETAG.fullmatch(own):
        return own
    digest = blake2b(digest_size=16)
    for name in ("content-type", "content-encoding", "content-language"):
        digest.update(headers.get(name, "").encode("latin-1", "replace") + b"\0")
    digest.update(body)
    return f'"{digest.hexdigest()}"'
