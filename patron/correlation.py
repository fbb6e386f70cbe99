"""
One id for everything that happens because of one request or message, carried through the whole process.

The id comes in with a header, lives in a context variable, stands on every log line and goes out
with everything that the service sends.
"""

from __future__ import annotations

import base64
import contextlib
import contextvars
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from patron.errors import ConfigError

__all__ = [
    "CorrelationSettings",
    "accept",
    "add_contributor",
    "configure",
    "current",
    "extract",
    "forwarded",
    "message_headers",
    "new_id",
    "outgoing",
    "settings",
    "show_through",
    "shown",
    "use",
]

Extractor = Callable[[Mapping[str, str]], "str | None"]
Contributor = Callable[[dict[str, str]], None]
ContextFilter = Callable[[Mapping[str, str]], Mapping[str, Any]]

# What ids of the usual generators are made of. It leaves out whatever could end a header line, a
# JSON string or a shell word, since ids are pasted into all three.
_safe_id = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}").fullmatch
_safe_value = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,1022}[\x21-\x7e])?").fullmatch
_header_name = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+").fullmatch


class Identified(Protocol):
    """Something that knows its correlation id, or finds it out when it is asked."""

    @property
    def correlation_id(self) -> str: ...


# `patron.observe` sets these two without the function call in between; everyone else goes through `use`,
# and reads the id with `current`.
id_variable: contextvars.ContextVar[str | Identified | None] = contextvars.ContextVar(
    "patron_correlation", default=None
)
forwarded_variable: contextvars.ContextVar[Mapping[str, str] | None] = contextvars.ContextVar(
    "patron_forwarded", default=None
)
_contributors: list[Contributor] = []
context_filter: ContextFilter | None = None
"""What `shown` passes the fields through; `show_through` sets it."""


def uuid4() -> str:
    """A random UUID, version 4, as text; `uuid.uuid4` without the object in between."""
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def flow_id() -> str:
    """A flow id: 22 characters of base64url, the first one ``R``."""
    return "R" + base64.urlsafe_b64encode(os.urandom(16)).decode("ascii")[:21]


GENERATORS: Mapping[str, Callable[[], str]] = {"uuid4": uuid4, "flow-id": flow_id}


@dataclass(frozen=True, slots=True)
class CorrelationSettings:
    """
    Where correlation ids come from and what travels with them.

    Args:
        header: the header that carries the id, in and out; looked up without regard to case.
        generator: how a new id is made: ``uuid4``, ``flow-id`` or a function.
        forward: further headers that are taken from what comes in, logged, and sent on unchanged.
        extract: finds the id in the incoming headers instead of *header*; what it returns is checked
            like any other id.
    """

    header: str = "X-Correlation-Id"
    generator: Literal["uuid4", "flow-id"] | Callable[[], str] = "uuid4"
    forward: tuple[str, ...] = ()
    extract: Extractor | None = None

    def __post_init__(self) -> None:
        if isinstance(self.generator, str) and self.generator not in GENERATORS:
            raise ConfigError(
                f"correlation generator {self.generator!r} is unknown: use {' or '.join(GENERATORS)}"
            )
        for name in (self.header, *self.forward):
            if not _header_name(name):
                raise ConfigError(f"{name!r} is no header name: use letters, digits and dashes")


class _Active:
    """The settings in use, with what the hot path needs of them at hand."""

    __slots__ = ("extract", "forward", "header", "lowered", "new", "settings")

    def __init__(self, settings: CorrelationSettings) -> None:
        self.settings = settings
        self.header = settings.header
        self.lowered = settings.header.lower()
        self.forward = tuple((name, name.lower()) for name in settings.forward)
        self.extract = settings.extract
        generator = settings.generator
        self.new: Callable[[], str] = GENERATORS[generator] if isinstance(generator, str) else generator


_active = _Active(CorrelationSettings())


def configure(settings: CorrelationSettings) -> None:
    """Use *settings* in this process from now on."""
    global _active
    _active = _Active(settings)


def settings() -> CorrelationSettings:
    """The settings in use."""
    return _active.settings


def new_id() -> str:
    """A new id from the generator in use; never the same in two processes."""
    return _active.new()


def accept(value: object) -> str:
    """
    *value* when it is an id as we accept them from outside, else a new one.

    Accepted are 1 to 128 characters out of letters, digits and ``. _ ~ : / + = @ -``. Never raises.
    """
    if isinstance(value, str) and _safe_id(value):
        return value
    return _active.new()


class Lowered(dict[str, str]):
    """Headers by their lower-case names."""

    __slots__ = ()
    case_insensitive = True


def lowered(headers: Mapping[str, str]) -> Mapping[str, str]:
    """*headers* as `lookup` reads them fastest; a mapping that does not care about case stays as it is."""
    if getattr(headers, "case_insensitive", False):
        return headers
    return Lowered(zip(map(str.lower, headers), headers.values(), strict=True))


def lookup(headers: Mapping[str, str], name: str) -> str | None:
    """
    The value of the header whose lower-case name is *name*, whatever the case of the key.

    A mapping that says ``case_insensitive = True`` is asked once; any other is searched.
    """
    value = headers.get(name)
    if value is not None or getattr(headers, "case_insensitive", False):
        return value
    for key in headers:
        if key.lower() == name:
            return headers[key]
    return None


def extract(headers: Mapping[str, str] | None, original: Mapping[str, str] | None = None) -> str:
    """
    The id that *headers* carry if it is acceptable, else a new one. Never raises.

    *original* is what an extraction function gets, when *headers* are a lowered copy.
    """
    active = _active
    if not headers:
        return active.new()
    if active.extract is None:
        value = lookup(headers, active.lowered)
        return value if isinstance(value, str) and _safe_id(value) else active.new()
    try:
        return accept(active.extract(headers if original is None else original))
    except Exception:  # noqa: BLE001 - a request must not fail because of its correlation id
        return active.new()


def extract_forwarded(headers: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """The headers to forward that *headers* have, without unprintable ones; None when there are none."""
    wanted = _active.forward
    if not wanted or not headers:
        return None
    found = {name: lookup(headers, low) for name, low in wanted}
    return {
        name: value for name, value in found.items() if isinstance(value, str) and _safe_value(value)
    } or None


def current() -> str | None:
    """The id of what is being done now, None outside of any operation."""
    value = id_variable.get()
    return value if value is None or isinstance(value, str) else value.correlation_id


def forwarded() -> Mapping[str, str]:
    """The forwarded headers of what is being done now."""
    return forwarded_variable.get() or {}


def show_through(chosen: ContextFilter | None) -> None:
    """Pass what logs and spans show of the correlation through *chosen*, which hides or changes what is secret."""
    global context_filter
    context_filter = chosen


def shown() -> Mapping[str, Any]:
    """
    The id (``correlationID``) and the forwarded headers of what is being done now, as logs and spans may show them.

    A filter that raises lets nothing through.
    """
    identifier = current()
    if identifier is None:
        return {}
    carried = {"correlationID": identifier, **(forwarded_variable.get() or {})}
    try:
        return carried if context_filter is None else dict(context_filter(carried))
    except Exception as error:  # noqa: BLE001 - it is the user's code, and it must not show what it should hide
        return {"correlationID": f"<context filter raised {type(error).__qualname__}>"}


@contextlib.contextmanager
def use(correlation_id: str | None, forwarded: Mapping[str, str] | None = None) -> Iterator[str]:
    """Make *correlation_id* the current one inside the block (None or an unacceptable one: a new id)."""
    accepted = accept(correlation_id)
    token = id_variable.set(accepted)
    carried = forwarded_variable.set(forwarded)
    try:
        yield accepted
    finally:
        forwarded_variable.reset(carried)
        id_variable.reset(token)


def add_contributor(contribute: Contributor) -> None:
    """Let *contribute* add its headers to whatever `outgoing` returns; tracing does so."""
    if contribute not in _contributors:
        _contributors.append(contribute)


def outgoing(skip: Iterable[str] = ()) -> dict[str, str]:
    """
    The headers to send with a request or message: correlation id, forwarded headers, trace.

    Outside of any operation it carries a new id. Names in *skip* (any case) are left out.
    """
    active = _active
    headers = {active.header: current() or active.new()}
    carried = forwarded_variable.get()
    if carried:
        headers.update(carried)
    for contribute in _contributors:
        contribute(headers)
    unwanted = {name.lower() for name in skip}
    return (
        {name: value for name, value in headers.items() if name.lower() not in unwanted}
        if unwanted
        else headers
    )


def message_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """
    The headers of a message that is published now: *headers*, and what `outgoing` has beside them.

    What *headers* say stays, whatever the case of its names; outside of any operation nothing is added.
    """
    given = dict(headers or {})
    if id_variable.get() is None:
        return given
    return {**outgoing(skip=given), **given}
