"""``patron routes``: what a service answers to."""

from __future__ import annotations

import click

from patron.cli.arguments import as_json, config

__all__ = ["command"]


@click.command(
    short_help="List the HTTP routes of a service.",
    epilog="""\b
Examples:
  patron routes config.yaml
  patron routes config.yaml --json
  patron routes shop:service
""",
)
@config
@as_json
def command(config: str, as_json: bool) -> None:
    """List the HTTP routes of the service that CONFIG (a file, or module:service) describes, without starting it."""
    from patron.cli.output import emit_json, emit_table
    from patron.config import build
    from patron.config.summary import routes

    rows = routes(build(config))
    if as_json:
        emit_json(rows)
    else:
        used = [name for name in ("cache", "limits") if any(row[name] for row in rows)]
        emit_table(("method", "path", "kind", "handler", "authenticator", *used), rows)
