"""``patron schema``: the JSON Schema of the configuration file."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command(
    short_help="Print the JSON Schema of the file.",
    epilog="""\b
Examples:
  patron schema > patron.schema.json
  patron schema --table
In an editor with a YAML language server, begin the configuration with
  # yaml-language-server: $schema=patron.schema.json
""",
)
@click.option("--table", is_flag=True, help="Print a table of every key with its default, in Markdown.")
def command(table: bool) -> None:
    """Print the JSON Schema (draft 2020-12) of the configuration file."""
    from patron.cli.output import emit_json

    if table:
        from patron.config.table import markdown

        click.echo(markdown())
        return
    from patron.config.schema import schema

    emit_json(schema())
