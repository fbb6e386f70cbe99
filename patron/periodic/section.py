"""The key ``periodic`` of the configuration file: a list of functions with their schedules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from patron.periodic.periodic import Periodic
from patron.periodic.settings import PeriodicSettings
from patron.sections import Section

__all__ = ["SECTION"]


def _components(given: Sequence[PeriodicSettings]) -> Sequence[Periodic]:
    return [Periodic(**{f.name: getattr(settings, f.name) for f in fields(settings)}) for settings in given]


SECTION = Section(
    "periodic",
    PeriodicSettings,
    "functions that are called every so often, or at the times of a cron expression",
    many=True,
    components=_components,
)
