"""The command ``patron``. Each module of `patron.cli.commands` is one command, found by its name."""

from __future__ import annotations

from typing import NoReturn

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> NoReturn:
    """
    Run the command line *arguments* (None: those of the process), and exit.

    Status 0: well. 1: it failed. 2: wrong usage or configuration.
    """
    from patron.cli.program import run

    raise SystemExit(run(arguments))
