"""What tests of a service need: the real machinery, a clock that obeys, and waiting without sleeping."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# At once, unlike the rest: its module has the same name, which would hide the function later.
from patron.testing.until import until

if TYPE_CHECKING:
    from patron.observe import capture as capture
    from patron.sources.memory import MemoryBroker as MemoryBroker
    from patron.sources.memory import MemorySource as MemorySource
    from patron.testing.clock import FakeClock as FakeClock
    from patron.testing.contract import SourceContract as SourceContract
    from patron.testing.driving import Driven as Driven
    from patron.testing.driving import drain as drain
    from patron.testing.driving import driven as driven
    from patron.testing.running import Running as Running
    from patron.testing.stores import StoreContract as StoreContract

# Looked up when first used: the contract imports pytest and `Running` a web server, which not every
# test wants.
_HOMES = {
    "Driven": "patron.testing.driving",
    "FakeClock": "patron.testing.clock",
    "MemoryBroker": "patron.sources.memory",
    "MemorySource": "patron.sources.memory",
    "Running": "patron.testing.running",
    "SourceContract": "patron.testing.contract",
    "StoreContract": "patron.testing.stores",
    "capture": "patron.observe",
    "drain": "patron.testing.driving",
    "driven": "patron.testing.driving",
}

__all__ = [
    "Driven",
    "FakeClock",
    "MemoryBroker",
    "MemorySource",
    "Running",
    "SourceContract",
    "StoreContract",
    "capture",
    "drain",
    "driven",
    "until",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'patron.testing' has no attribute {name!r}")
