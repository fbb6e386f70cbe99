"""Finds files below a folder, never outside of it, and says what they are."""

from __future__ import annotations

import errno
import hashlib
import mimetypes
import os
import stat
import time
from collections.abc import Sequence
from typing import Any, BinaryIO, NamedTuple

from patron.observe import log

__all__ = ["File", "content_type", "is_asset", "open_file", "safe_segments"]

#: Larger files are not read for their ETag.
_DIGESTED = 8 * 1024 * 1024
#: Before 1980-01-02 it is no time but what zip files and reproducible builds write for none.
_EARLIEST = 315_619_200
#: Only to look names up in it, where there is such a thing: that needs no right to list it.
_FOLDER = os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
_FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
#: What opening a path says when there is no such file for us.
_ABSENT = frozenset(
    (
        errno.EACCES,
        errno.EINVAL,  # what was a link a moment ago is none any more
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ENXIO,
        errno.EPERM,
    )
)


def _types() -> mimetypes.MimeTypes:
    """Python's own table, not the machine's: a file has the same type everywhere."""
    types = mimetypes.MimeTypes()
    for type, suffixes in {
        "application/json": (".map",),
        "application/manifest+json": (".webmanifest",),
        "application/wasm": (".wasm",),
        "application/yaml": (".yaml", ".yml"),
        "font/otf": (".otf",),
        "font/ttf": (".ttf",),
        "font/woff": (".woff",),
        "font/woff2": (".woff2",),
        "image/avif": (".avif",),
        "image/webp": (".webp",),
        "image/x-icon": (".ico",),
        "text/javascript": (".js", ".mjs"),
        "text/markdown": (".md",),
    }.items():
        for suffix in suffixes:
            types.add_type(type, suffix)
    return types


_TYPES = _types()
_PACKED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}


def content_type(name: str) -> str:
    """The ``Content-Type`` of a file of this *name*."""
    type, packed = _TYPES.guess_type(name)
    if packed is not None:  # an archive is sent as one, not as its content in a coding
        return _PACKED.get(packed, "application/octet-stream")
    if type is None:
        return "application/octet-stream"
    return f"{type}; charset=utf-8" if type.startswith("text/") else type


def is_asset(name: str) -> bool:
    """Whether *name* ends as files of a known type do."""
    return _TYPES.guess_type(name) != (None, None)


def safe_segments(path: str) -> tuple[str, ...] | None:
    """
    The names in *path*, which is relative and decoded once; None when one of them may lead elsewhere.

    Hidden files are refused, but for ``.well-known`` (RFC 8615) at the beginning. A last name that
    is empty asks for a directory.
    """
    names = tuple(path.split("/"))
    inner = names[1:] if names[0] == ".well-known" else names
    if "" in names[:-1] or any(name.startswith(".") for name in inner):
        return None
    return names if "\\" not in path and "\0" not in path else None


class File(NamedTuple):
    """An open file and what is known of it; *coding* is the one that its content has."""

    stream: BinaryIO
    size: int
    modified: int | None
    etag: str
    content_type: str
    coding: str | None = None


def open_file(root: str, names: Sequence[str]) -> File | None:
    """
    The file *names* below *root*; None when there is none, or a link leads out of the folder.

    Nothing but regular files: opening a pipe or a device may block, or do worse.
    """
    path = os.path.join(root, *names)
    try:
        path = os.path.realpath(path)
        if not path.startswith(os.path.join(root, "")):
            return None
        descriptor = _opened(root, path)
    except OSError as error:
        if error.errno not in _ABSENT:
            raise
        if error.errno == errno.EACCES:
            log.warn("static file cannot be read", file=path, error=str(error))
        return None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        return None
    return _described(os.fdopen(descriptor, "rb", buffering=0), found, names[-1])


def _opened(root: str, path: str) -> int:
    """
    Open *path*, which was resolved, name by name below *root*.

    A link that is met now was put there since, perhaps by somebody who wants to lead elsewhere: it is not followed.
    """
    *folders, name = os.path.relpath(path, root).split("/")
    current = os.open(root, _FOLDER)
    try:
        for folder in folders:
            outer, current = current, os.open(folder, _FOLDER | os.O_NOFOLLOW, dir_fd=current)
            os.close(outer)
        return os.open(name, _FILE, dir_fd=current)
    finally:
        os.close(current)


def _described(stream: BinaryIO, found: os.stat_result, name: str) -> File:
    modified = min(int(found.st_mtime), int(time.time()))  # RFC 9110, section 8.8.2.1
    return File(
        stream,
        found.st_size,
        modified if modified > _EARLIEST else None,
        _etag(stream, found),
        content_type(name),
    )


# What identifies a state of a file → its digest. Bounded; any thread adds to it.
_digests: dict[tuple[int, ...], str] = {}


def _etag(stream: BinaryIO, found: os.stat_result) -> str:
    """
    A digest of the content: times say little where images are built reproducibly, and differ between replicas.

    Of large files it is what the file system says of them.
    """
    state = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    if found.st_size > _DIGESTED:
        return f'"{found.st_mtime_ns:x}-{found.st_size:x}"'
    etag = _digests.get(state)
    if etag is None:
        if len(_digests) > 10_000:
            _digests.clear()
        etag = _digests[state] = f'"{hashlib.file_digest(stream, _digest).hexdigest()}"'  # type: ignore[arg-type]
    return etag


def _digest() -> Any:
    return hashlib.blake2b(digest_size=16)
