"""How often a route may be asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["RateLimit"]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """
    At most *rate* requests in *per* seconds.

    Args:
        rate: requests.
        per: seconds.
        burst: requests that may come at once; None is *rate*.
        by: whom they are counted for: each address, each principal, or the whole route.
        store: ``memory``, or the URL of a Redis server.
    """

    rate: float
    per: float = 1.0
    burst: float | None = None
    by: Literal["address", "principal", "route"] = "address"
    store: str = "memory"
