"""Components that call a function every so often, or at the times of a cron expression."""

from __future__ import annotations

from patron.periodic.periodic import Periodic
from patron.periodic.settings import PeriodicSettings

__all__ = ["Periodic", "PeriodicSettings"]
