"""The files of the slots: each process writes its own, and whoever is asked reads all of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prometheus_client import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.values import MultiProcessValue

__all__ = ["SlotCollector", "slot_value"]


class SlotCollector(Collector):
    """The sum over the files of all slots in *directory*."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Metric]:
        """Read every file once. A file that was created a moment ago is still empty, and is left out."""
        files = [str(path) for path in self._directory.glob("*.db") if _has_content(path)]
        merged: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        return merged


def slot_value(slot: int, directory: Path) -> Any:
    """The value class whose values live in the files of *slot* in *directory*."""
    return MultiProcessValue(process_identifier=lambda: slot)  # type: ignore[no-untyped-call]


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False
