"""``patron run``: run a service until it is stopped."""

from __future__ import annotations

import click

from patron.cli.arguments import config

__all__ = ["command"]


@click.command(
    short_help="Run the service that CONFIG describes.",
    epilog="""\b
Exit status: 0 stopped clean, 1 a component failed or work was abandoned, 2 wrong configuration.

\b
Examples:
  patron run config.yaml
  PATRON_HTTP_DEFAULT_PORT=8080 PATRON_WORKERS=4 patron run config.yaml
  patron run config.yaml --print-config
""",
)
@config
@click.option(
    "--print-config", is_flag=True, help="Print every value with its source, secrets hidden, and run nothing."
)
def command(config: str, print_config: bool) -> None:
    """
    Run the service that CONFIG (a file, or module:service) describes, until it is stopped.

    SIGTERM and SIGINT stop it within its budget (the key grace); SIGHUP runs its hook, or reloads it.
    """
    if print_config:
        _print(config)
        return
    from patron.server import run_config

    run_config(config)


def _print(path: str) -> None:
    from patron.cli.output import emit_table, warning
    from patron.config import explain, load

    configuration = load(path)
    for text in configuration.warnings:
        warning(text)
    emit_table(("key", "value", "source"), explain.rows(configuration.entries))
