"""Finds the command, runs it, and turns what it raises into a message and an exit status."""

from __future__ import annotations

import errno
import importlib
import os
import pkgutil
import traceback
from collections.abc import Sequence

import click

from patron._version import VERSION
from patron.cli import commands
from patron.cli.output import problem
from patron.errors import ConfigError, MissingExtra, PatronError

__all__ = ["program", "run"]

OK, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


class _Commands(click.Group):
    """The modules of `patron.cli.commands`, imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(
            module.name for module in pkgutil.iter_modules(commands.__path__) if module.name[0] != "_"
        )

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        found: click.Command = importlib.import_module(f"{commands.__name__}.{cmd_name}").command
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            raise click.UsageError(self._unknown(name, self.list_commands(ctx)), ctx)
        return super().resolve_command(ctx, args)

    def _unknown(self, name: str, known: Sequence[str]) -> str:
        import difflib

        near = difflib.get_close_matches(name, known, n=1)
        return f"there is no command {name!r}: " + (
            f"did you mean {near[0]!r}?" if near else f"use {', '.join(known)}"
        )


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  patron run config.yaml
  patron check config.yaml
  PATRON_WORKERS=4 patron run config.yaml --print-config
""",
)
@click.version_option(VERSION, "--version", message="%(prog)s %(version)s")
def program() -> None:
    """Microservices in plain, blocking Python."""


def run(arguments: list[str] | None) -> int:
    """The exit status of the command line *arguments*."""
    try:
        status = program.main(arguments, prog_name="patron", standalone_mode=False)
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 - the edge of the process: every error becomes a status
        return _failed(error)
    return status if isinstance(status, int) else OK


def _failed(error: BaseException) -> int:
    if isinstance(error, click.ClickException):
        error.show()
        return WRONG if isinstance(error, click.UsageError) else FAILED
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return INTERRUPTED
    if isinstance(error, PatronError):
        return _refused(error)
    if isinstance(error, OSError) and error.errno in _FULL and error.filename is None:
        problem(f"the output cannot be written: {error.strerror}")
        return FAILED
    return _bug(error)


def _refused(error: PatronError) -> int:
    for line in getattr(error, "problems", ()) or (str(error),):
        problem(line)
    if os.environ.get("PATRON_DEBUG") == "1":
        traceback.print_exception(error)
    return WRONG if isinstance(error, (ConfigError, MissingExtra)) else FAILED


def _bug(error: BaseException) -> int:
    problem(f"this is a bug in Patron, or in a module that it called: {type(error).__name__}: {error}")
    if os.environ.get("PATRON_DEBUG") == "1":
        traceback.print_exception(error)
    else:
        problem("set PATRON_DEBUG=1 to see the traceback")
    return FAILED
