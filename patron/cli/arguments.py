"""The arguments that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["as_json", "config"]

config = click.argument(
    "config",
    type=click.Path(path_type=Path),  # whether it is there is said by who reads it, with the other problems
    envvar="PATRON_CONFIG",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Write JSON instead of a table.")
