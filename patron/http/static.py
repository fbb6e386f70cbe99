"""Folders that are served as they are: the settings, and what can be wrong with them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patron.errors import ConfigError
from patron.http.auth import Authenticator
from patron.http.routes import RouteInfo, path_problems, shape

__all__ = ["StaticFiles", "problems", "spa"]


@dataclass(frozen=True, slots=True)
class StaticFiles:
    """
    The files of a folder, served below a prefix, where no route matches.

    Args:
        prefix: such as ``/assets``; ``/`` is everything that nothing else answers.
        folder: what is served, read only; a relative path is relative to the working directory.
        index: the file that is the page of its directory; None: directories have none.
        fallback: the file, below *folder*, that is answered for every other page below the prefix: for
            GET and HEAD that ask for ``text/html``, and for no path that ends like an asset's.
        exclude: paths below which there is no fallback, such as ``/api``.
        max_age: seconds that clients may keep a file without asking; None: they ask each time. Index and
            fallback pages they always ask for.
        immutable: whether the files never change under their names, so that a reload does not ask either.
        precompressed: whether ``app.js.br`` or ``app.js.gz`` is sent for ``app.js`` to clients that can decode it.
        authenticator: who may ask; None is everybody.
    """

    prefix: str
    folder: str | Path
    index: str | None = "index.html"
    fallback: str | None = None
    exclude: tuple[str, ...] = ()
    max_age: float | None = None
    immutable: bool = False
    precompressed: bool = False
    authenticator: Authenticator | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "exclude", tuple(self.exclude))
        if wrong := [f"static {self.prefix!r}: {problem}" for problem in _problems(self)]:
            raise ConfigError(*wrong)

    @property
    def pattern(self) -> str:
        """The label of its metrics and log lines."""
        return f"{self.prefix.rstrip('/')}/<path:file>"


def spa(prefix: str, folder: str | Path, index: str = "index.html", **options: Any) -> StaticFiles:
    """A single-page application: `StaticFiles` whose *index* answers for every page that has no file."""
    return StaticFiles(prefix, folder, index=index, fallback=index, **options)


def _problems(settings: Any) -> Iterator[str]:
    prefix = settings.prefix
    yield from path_problems(prefix)
    if isinstance(prefix, str) and (
        "//" in prefix or "<" in prefix or (prefix.endswith("/") and prefix != "/") or not prefix.isascii()
    ):
        yield "a prefix is plain ASCII such as /assets, without a / at its end"
    if not isinstance(settings.folder, str | os.PathLike) or not str(settings.folder):
        yield f"folder is {settings.folder!r}: use a path"
    for name in ("index", "fallback"):
        value = getattr(settings, name)
        if value is not None and not _is_relative(value, nested=name == "fallback"):
            yield f"{name} is {value!r}: use the name of a file, such as index.html"
    for path in settings.exclude:
        if not isinstance(path, str) or not path.startswith("/"):
            yield f"exclude: path {path!r} must begin with /"
    age = settings.max_age
    if age is not None and (
        isinstance(age, bool) or not isinstance(age, int | float) or not 0 <= age < math.inf
    ):
        yield f"max_age is {age!r}: use seconds from 0"
    if settings.authenticator is not None and not isinstance(settings.authenticator, Authenticator):
        yield f"authenticator {type(settings.authenticator).__name__} has no authenticate(request)"


def _is_relative(value: Any, *, nested: bool) -> bool:
    if not isinstance(value, str) or not value.isprintable() or "\\" in value:
        return False
    parts = value.split("/")
    return (nested or len(parts) == 1) and not {"", ".", ".."}.intersection(parts)


def problems(folders: Iterable[Any], infos: Sequence[RouteInfo]) -> Iterator[str]:
    """What is wrong with *folders* in a service that serves *infos*, the file system included."""
    seen = set[str]()
    for settings in folders:
        if not isinstance(settings, StaticFiles):
            yield f"{settings!r} is no StaticFiles"
            continue
        if settings.prefix in seen:
            yield f"static {settings.prefix!r}: there are two of them: give one another prefix"
        seen.add(settings.prefix)
        yield from (f"static {settings.prefix!r}: {problem}" for problem in _hidden(settings, infos))
        yield from (f"static {settings.prefix!r}: {problem}" for problem in _missing(settings))


def _hidden(settings: StaticFiles, infos: Sequence[RouteInfo]) -> Iterator[str]:
    for info in infos:
        if info.kind == "mount" and f"{settings.prefix}/".startswith(info.name.rstrip("/") + "/"):
            yield f"hidden by the mount {info.name!r}: move one of them"
        if info.method == "GET" and shape(info.path) == shape(settings.pattern):
            yield f"hidden by the route {info.path} of {info.handler}: move one of them"


def _missing(settings: StaticFiles) -> Iterator[str]:
    folder = os.path.abspath(settings.folder)
    if not os.path.isdir(folder):
        yield f"folder {str(settings.folder)!r} is no directory: create {folder}, or correct the path"
    elif not os.access(folder, os.R_OK | os.X_OK):
        yield f"folder {str(settings.folder)!r} cannot be read: {folder} needs other permissions"
    elif settings.fallback is not None and not os.path.isfile(os.path.join(folder, settings.fallback)):
        yield f"fallback {settings.fallback!r} is no file in {folder}"


def infos(folders: Iterable[StaticFiles]) -> Iterator[RouteInfo]:
    """The listing's lines."""
    for settings in folders:
        who = type(settings.authenticator).__name__ if settings.authenticator is not None else None
        yield RouteInfo(
            "GET", settings.pattern, f"static {settings.prefix}", "static", str(settings.folder), who
        )
