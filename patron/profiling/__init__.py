"""
Profiles of a live process: where its CPU time goes, what holds its memory, what its threads do.

Nothing runs while no profile is taken, not even a thread. `patron.http` serves them below ``/debug/pprof/``.
"""

from __future__ import annotations

from patron.profiling.desk import Profiler
from patron.profiling.model import Frame, Kind, Profile

__all__ = ["Frame", "Kind", "Profile", "Profiler"]
