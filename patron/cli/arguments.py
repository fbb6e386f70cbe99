"""The arguments that several commands share."""

from __future__ import annotations

import time
from datetime import datetime

import click

__all__ = ["as_json", "config", "moment"]

config = click.argument(
    "config",
    type=click.Path(),  # whether it is there is said by who reads it, with the other problems
    envvar="PATRON_CONFIG",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Write JSON instead of a table.")


def moment(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """The time that an option names, in seconds since the epoch: a duration before now, or ISO 8601 (local time)."""
    from patron.config.durations import seconds

    if value is None:
        return None
    ago = seconds(value)
    try:
        return datetime.fromisoformat(value).timestamp() if ago is None else time.time() - ago
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is neither a duration (2h, 7d) nor a time (2026-11-21T10:00)", ctx, param
        ) from None
