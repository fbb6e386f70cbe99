"""The shop's interface: the operations of its document, with what stands behind them."""

from __future__ import annotations

import os
from pathlib import Path

from contract import routes_from

from patron import Route
from patron.http import Bearer, RouteCache
from petshop import pets

__all__ = ["routes"]


def routes() -> list[Route]:
    """One for each operation, and the document."""
    token = os.environ.get("PETSHOP_TOKEN", "s3cret")
    return routes_from(
        Path(__file__).with_name("openapi.yaml"),
        pets,
        authenticators={"staff": Bearer(lambda given: "staff" if given == token else None)},
        options={"listPets": {"cache": RouteCache(max=10.0, min=1.0)}},
        check_answers=True,
    )
