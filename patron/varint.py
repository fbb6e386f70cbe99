"""Whole numbers of variable length, as Protocol Buffers and Thrift's compact protocol write them."""

from __future__ import annotations

__all__ = ["varint"]


def varint(value: int) -> bytes:
    """
    *value*, which is not negative, seven bits to a byte, the lowest first (protobuf.dev/programming-guides/encoding).

    >>> varint(300)
    b'\\xac\\x02'
    """
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
