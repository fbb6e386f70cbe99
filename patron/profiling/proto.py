"""
Profiles in pprof's format: the message ``Profile`` of profile.proto, gzipped.

The fields are those of github.com/google/pprof/blob/main/proto/profile.proto, the encoding is that of
protobuf.dev/programming-guides/encoding. It is small enough to need neither a library nor generated code.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterable

from patron.profiling.model import Frame, Kind, Profile
from patron.varint import varint

__all__ = ["encode"]

_VARINT, _LENGTH = 0, 2  # wire types
# The one mapping that everything belongs to; it says that nothing is left to be symbolized.
_MAPPING = 1


def encode(profile: Profile) -> bytes:
    """*profile* as ``go tool pprof`` and others read it."""
    return gzip.compress(_Encoder(profile).message(), compresslevel=6, mtime=0)


def _varint(value: int) -> bytes:
    return varint(value & 0xFFFFFFFFFFFFFFFF)  # a negative int64 is ten bytes long


def _int(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value) if value else b""  # 0 is what a missing field means


def _bytes(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | _LENGTH) + _varint(len(data)) + data


def _packed(field: int, values: Iterable[int]) -> bytes:
    return _bytes(field, b"".join(map(_varint, values)))


class _Encoder:
    """One profile on its way; strings, functions and locations are written once and numbered."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._strings: dict[str, int] = {"": 0}
        self._functions: dict[tuple[str, str, int], int] = {}
        self._locations: dict[Frame, int] = {}

    def message(self) -> bytes:
        profile = self._profile
        parts = [_bytes(1, self._kind(kind)) for kind in profile.kinds]
        parts += [_bytes(2, self._sample(*key, values)) for key, values in profile.samples.items()]
        parts.append(_bytes(3, self._mapping()))
        parts += [_bytes(4, self._location(frame, number)) for frame, number in self._locations.items()]
        parts += [_bytes(5, self._function(number, *key)) for key, number in self._functions.items()]
        parts += [_int(9, profile.start), _int(10, profile.duration)]
        parts += [_bytes(11, self._kind(profile.period_kind)), _int(12, profile.period)]
        parts.append(_packed(13, map(self._text, profile.comments)))
        parts.append(_int(14, self._text(profile.kinds[-1].type)))
        # Last, because everything above adds to it.
        parts += [_bytes(6, text.encode("utf-8", "replace")) for text in self._strings]
        return b"".join(parts)

    def _text(self, text: str) -> int:
        return self._strings.setdefault(text, len(self._strings))

    def _kind(self, kind: Kind) -> bytes:
        return _int(1, self._text(kind.type)) + _int(2, self._text(kind.unit))

    def _sample(self, stack: Iterable[Frame], labels: Iterable[tuple[str, str]], values: list[int]) -> bytes:
        places = [self._locations.setdefault(frame, len(self._locations) + 1) for frame in stack]
        notes = [_bytes(3, _int(1, self._text(key)) + _int(2, self._text(value))) for key, value in labels]
        return b"".join([_packed(1, places), _packed(2, values), *notes])

    def _mapping(self) -> bytes:
        name = _int(5, self._text(sys.executable or "python"))
        return _int(1, _MAPPING) + name + _int(7, 1) + _int(8, 1) + _int(9, 1)

    def _location(self, frame: Frame, number: int) -> bytes:
        key = frame.function, frame.file, frame.start
        function = self._functions.setdefault(key, len(self._functions) + 1)
        line = _int(1, function) + _int(2, frame.line)
        return _int(1, number) + _int(2, _MAPPING) + _bytes(4, line)

    def _function(self, number: int, name: str, file: str, start: int) -> bytes:
        text = self._text(name)
        return _int(1, number) + _int(2, text) + _int(3, text) + _int(4, self._text(file)) + _int(5, start)
