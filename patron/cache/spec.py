"""What a setting may say of a store, checked before anything is open."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from patron.cache._redis_url import SCHEMES, is_url, url_problems

__all__ = ["CHOICES", "MEMORY", "is_resource", "resource_problems", "store_problems"]

MEMORY = "memory"

CHOICES = f'use "memory", a URL ({", ".join(SCHEMES)}) or the name of a resource that is a store'


def is_resource(spec: str) -> bool:
    """Whether *spec* names a resource."""
    return spec != MEMORY and not is_url(spec)


def store_problems(spec: Any) -> list[str]:
    """What is wrong with *spec*, as far as it can be said before anything is open: not which resources there are."""
    if not isinstance(spec, str) or not spec.strip():
        return [f"store is {spec!r}: {CHOICES}"]
    return [f"store {problem}" for problem in url_problems(spec)] if is_url(spec) else []


def resource_problems(spec: str, resources: Iterable[str]) -> list[str]:
    """What is wrong with *spec* when *resources* are the names of all that will be open."""
    if not is_resource(spec) or spec in (known := sorted(resources)):
        return []
    there = ", ".join(known) or "none"
    # Perhaps it was meant as a URL: what stands before the last @ of one may be a password.
    secret, at, rest = spec.rpartition("@")
    return [
        f"store {'...' * bool(secret) + at + rest!r} is no resource of the service (there are: {there}): {CHOICES}"
    ]
