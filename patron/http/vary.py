"""``Vary``: tells caches on the way what an answer depends on (RFC 9110, section 12.5.5)."""

from __future__ import annotations

__all__ = ["varying"]


def varying(headers: list[tuple[str, str]], *names: str) -> list[tuple[str, str]]:
    """*headers* with *names* among what ``Vary`` lists, which stays one header."""
    lines = [value for name, value in headers if name.lower() == "vary"]
    listed = {name.strip().lower() for line in lines for name in line.split(",")}
    missing = [name for name in names if name.lower() not in listed]
    if "*" in listed or not missing:
        return headers
    rest = [(name, value) for name, value in headers if name.lower() != "vary"]
    return [*rest, ("Vary", ", ".join((*lines, *missing)))]
