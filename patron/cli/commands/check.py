"""``patron check``: validate a configuration without starting anything."""

from __future__ import annotations

import sys

import click

from patron.cli.arguments import config

__all__ = ["command"]


@click.command(
    short_help="Validate CONFIG without starting anything.",
    epilog="""\b
Exit status: 0 it is right, 2 it is wrong; every mistake is one line on standard error.

\b
Examples:
  patron check config.yaml
  patron check config.yaml && patron run config.yaml
  patron check shop:service
""",
)
@config
def command(config: str) -> None:
    """
    Validate CONFIG and every module that it names, without starting anything.

    CONFIG is a file, or module:service for a service that is described in code.
    """
    from patron import extras
    from patron.cli.output import paint, warning
    from patron.config import load, summary
    from patron.errors import ConfigError

    configuration = load(config)
    for text in configuration.warnings:
        warning(text)
    if lacking := tuple(extras.missing(configuration.service)):
        raise ConfigError(*lacking)
    for line in summary.lines(configuration.service):
        click.echo(line)
    click.echo(f"{configuration.origin}: {paint('ok', 'green', sys.stdout)}", color=True)
