"""What a profile is: stacks, and numbers that belong to each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

__all__ = ["CPU", "Frame", "Kind", "Labels", "Profile", "Stack"]


class Frame(NamedTuple):
    """One call: *line* is where it is now, *start* where its function begins; 0 is not known."""

    function: str
    file: str = ""
    line: int = 0
    start: int = 0


#: The calls of one thread, the innermost first.
Stack = tuple[Frame, ...]
#: Pairs of name and value, sorted.
Labels = tuple[tuple[str, str], ...]


class Kind(NamedTuple):
    """What a number counts: ``cpu`` in ``nanoseconds``."""

    type: str
    unit: str


#: What CPU profiles count, and what their period is in.
CPU = Kind("cpu", "nanoseconds")


@dataclass
class Profile:
    """
    Stacks, each with one number for each of *kinds*; the last kind is the one to look at first.

    Times are nanoseconds; *start* is since 1970. *missing* says whose part of it could not be had. One thread owns it.
    """

    kinds: tuple[Kind, ...]
    start: int
    duration: int = 0
    period_kind: Kind = CPU
    period: int = 0
    comments: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    samples: dict[tuple[Stack, Labels], list[int]] = field(default_factory=dict)

    def add(self, stack: Iterable[Frame], values: Iterable[int], **labels: str) -> None:
        """Count *values* for *stack*, on top of what it has."""
        self._add((tuple(stack), tuple(sorted(labels.items()))), values)

    def _add(self, key: tuple[Stack, Labels], values: Iterable[int]) -> None:
        known = self.samples.get(key)
        self.samples[key] = (
            list(values) if known is None else [a + b for a, b in zip(known, values, strict=True)]
        )

    def merge(self, other: Profile) -> None:
        """Add everything that *other* has, a profile of the same kinds."""
        for key, values in other.samples.items():
            self._add(key, values)
        self.duration = max(self.duration, other.duration)
        self.comments += other.comments

    def label(self, name: str, value: str) -> None:
        """Give every sample one more label."""
        self.samples = {
            (stack, tuple(sorted({**dict(labels), name: value}.items()))): values
            for (stack, labels), values in self.samples.items()
        }

    def total(self) -> int:
        """The sum of the last kind."""
        return sum(values[-1] for values in self.samples.values())

    def to_json(self) -> dict[str, Any]:
        """The profile as JSON values, for another process."""
        frames: dict[Frame, int] = {}
        samples = [
            ([frames.setdefault(frame, len(frames)) for frame in stack], labels, values)
            for (stack, labels), values in self.samples.items()
        ]
        rest = {name: getattr(self, name) for name in _PLAIN}
        return {**rest, "frames": list(frames), "samples": samples}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """What `to_json` made JSON of."""
        frames = [Frame(*frame) for frame in data["frames"]]
        rest = {name: data[name] for name in _PLAIN}
        rest |= {
            "kinds": tuple(Kind(*kind) for kind in rest["kinds"]),
            "period_kind": Kind(*rest["period_kind"]),
        }
        profile = cls(**rest)
        for stack, labels, values in data["samples"]:
            key = tuple(frames[index] for index in stack), tuple((name, value) for name, value in labels)
            profile.samples[key] = values
        return profile


_PLAIN = ("kinds", "start", "duration", "period_kind", "period", "comments")
