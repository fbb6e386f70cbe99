"""Waiting for something to become true, instead of sleeping and hoping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["until"]

T = TypeVar("T")


def until(predicate: Callable[[], T], timeout: float = 10.0, *, interval: float = 0.002) -> T:
    """
    Wait until *predicate* returns something true, and return that.

    Raises:
        AssertionError: it did not within *timeout* seconds; the message shows its last value.
    """
    end = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= end:
            raise AssertionError(f"{_name(predicate)} was still {value!r} after {timeout} s")
        time.sleep(interval)


def _name(predicate: Callable[[], object]) -> str:
    code = getattr(predicate, "__code__", None)
    return (
        repr(predicate)
        if code is None
        else f"{predicate.__name__} at {code.co_filename}:{code.co_firstlineno}"
    )
