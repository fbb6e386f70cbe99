"""
What every source must do: a suite that a source inherits, alone and with the engine on top.

::

    class TestNats(SourceContract):
        def source(self) -> Source:
            return NatsSource(self.topic, servers=["localhost:4222"])

``self.topic`` is a new name in each test and ``self.tmp_path`` a directory of its own; `source` may be
called often in one test and must mean the same topic. The class attributes and the hooks below say
what a broker cannot do; a test that it therefore cannot pass is skipped, and says so.
"""

from __future__ import annotations

from patron.testing._contract_engine import SourceWithEngine
from patron.testing._contract_source import SourceAlone
from patron.testing._contract_suite import UnreliablePublisher

__all__ = ["SourceContract", "UnreliablePublisher"]


class SourceContract(SourceAlone, SourceWithEngine):
    """Inherit it, write `source`, and say what the broker cannot do."""
