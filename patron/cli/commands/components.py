"""``patron components``: what a service runs."""

from __future__ import annotations

from typing import Any

import click

from patron.cli.arguments import as_json, config

__all__ = ["command"]


@click.command(
    short_help="List the components of a service.",
    epilog="""\b
Examples:
  patron components config.yaml
  patron components config.yaml --json
  patron components shop:service
""",
)
@config
@as_json
def command(config: str, as_json: bool) -> None:
    """List the components of the service that CONFIG (a file, or module:service) describes, without starting it."""
    from patron.cli.output import emit_json, emit_table
    from patron.config import build
    from patron.config.summary import components

    rows = components(build(config))
    if as_json:
        emit_json(rows)
    else:
        emit_table(("name", "type", "reads", "at", "dead letters", "restart"), [_cells(row) for row in rows])


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("_", " "): value for name, value in row.items()}
